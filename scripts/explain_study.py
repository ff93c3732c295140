"""Make the tables of docs/studies/preferences-in-four-domains.md, and the file of advertisements that it needs.

    python scripts/explain_study.py paraphrases data/adparaphrase.csv data/paraphrases.csv
    python scripts/explain_study.py page runs/explain-preferences --ads data/paraphrases.csv

Every number between the page's marks comes from `explanation.json` or is counted in the file of advertisements; none is
typed. The data stay where they are.
"""

import argparse
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured import points, renewed, share, table, triple_of  # beside this file

from unipref.core.errors import DataError
from unipref.core.io import write_text
from unipref.data import read_records
from unipref.data.pairs import Pairs
from unipref.explain.factors import associations
from unipref.explain.refit import refit
from unipref.features.concept_sets import load_concepts
from unipref.features.rules import rule_values

PAGE = Path(__file__).resolve().parents[1] / "docs" / "studies" / "preferences-in-four-domains.md"
JUDGES = 3  # of five, who call two advertisements paraphrases
# what the authors name and can be counted, and kanji; length and brackets may go together
NAMED = ("ad:characters", "ad:brackets", "ad:kanji", "ad:fluency")
BASELINES = {
    "majority": "majority",
    "length_only": "length only",
    "shared_only": "shared only",
    "specific_only": "specific only",
    "dirty": "dirty",
}
MOST, MOST_OWN = 8, 5  # concepts in a table that all domains share, and that a domain has its own
STABLE = 0.9

Explanation = Mapping[str, Any]


# ---- advertisements ----


def paraphrases(source: Path, target: Path) -> tuple[int, int]:
    """Write the rows of `source` whose two texts say the same, by three of five judges; rows kept and rows read.

    Raises:
        DataError: the file has no column `count.paraphrase`.
    """
    rows = list(csv.DictReader(io.StringIO(source.read_text(encoding="utf-8-sig"))))
    if not rows or "count.paraphrase" not in rows[0]:
        raise DataError(f"{source} has no rows with a column 'count.paraphrase'; give AdParaphrase's adparaphrase.csv")
    kept = [row for row in rows if int(row["count.paraphrase"]) >= JUDGES]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    write_text(target, text.getvalue())
    return len(kept), len(rows)


def advertising(pairs: Pairs) -> str:
    """How each linguistic feature goes with being preferred: alone, and the published ones together.

    Of ten votes the side with more wins, and an even vote decides nothing. Beside others a feature is what remains of
    it in pairs that are equal in the others: sigmoid of its weight in a plain fit to signs.
    """
    decided = pairs.take(pairs.p != 0.5)
    concepts = load_concepts("ad-linguistic")
    values = rule_values(concepts, *(column.tolist() for column in (decided.prompt, decided.first, decided.second)))
    alone = associations(values.difference, decided.p, groups=decided.group)
    at = [j for j, concept in enumerate(concepts) if concept.key in NAMED]
    signs = np.sign(np.nan_to_num(values.difference[:, at]))
    together = refit(signs, np.where(decided.p > 0.5, 1.0, 0.0), groups=decided.group)
    beside = {
        concepts[j].key: [1 / (1 + math.exp(-value)) for value in triple]
        for j, triple in zip(at, zip(together.weight, together.low, together.high, strict=True), strict=True)
    }
    rows = [
        [
            concept.name + (" *" if concept.key in NAMED else ""),
            f"{one.n:,}",
            share(one.share.as_list()),
            f"{one.chi2:.1f}",
            p_value(one.p),
            p_value(one.p_holm),
            share(beside[concept.key]) if concept.key in beside else "",
        ]
        for concept, one in zip(concepts, alone, strict=True)
    ]
    told = (
        f"{len(pairs):,} pairs of paraphrases, {len(pairs) - len(decided)} of them with an even vote, which decides "
        f"nothing. p is adjusted for {len(concepts)} features (Holm). Beside others: the four features marked * in one "
        "model, as the share in pairs that are equal in the other three."
    )
    head = ["feature", "n that differ", "the side with more wins, %", "χ²", "p", "p adjusted", "beside others, %"]
    return f"{told}\n\n{table(head, rows)}"


# ---- explanation.json ----


def accuracies(explanation: Explanation) -> str:
    """Each mechanism's held-out accuracy beside the simpler models'."""
    rows = []
    for name, told in explanation["mechanisms"].items():
        accuracy = told["accuracy"]
        rows.append(
            [
                name,
                f"{told['n']['pairs']:,}",
                f"{told['n']['heldout']:,}",
                f"**{share(accuracy['heldout'])}**",
                *(share(accuracy["baselines"].get(key)) for key in BASELINES),
                share(accuracy.get("left_out_domains")),
                "yes" if told["trusted"] else "no",
            ]
        )
    return table(["who", "pairs", "held out", "model", *BASELINES.values(), "domain left out", "trusted"], rows)


def by_domain(explanation: Explanation) -> str:
    """Each domain's held-out accuracy beside what is simplest, and without having seen the domain."""
    rows = []
    for name, told in explanation["mechanisms"].items():
        accuracy = told["accuracy"]
        for domain, triple in accuracy["by_domain"].items():
            simple = accuracy["baselines_by_domain"][domain]
            rows.append(
                [
                    name,
                    domain,
                    f"{told['n']['domains'][domain]:,}",
                    share(triple),
                    share(simple.get("majority")),
                    share(simple.get("length_only")),
                    share(accuracy["leave_one_domain_out"].get(domain)),
                    "yes" if told["trusted_in"][domain] else "no",
                ]
            )
    return table(["who", "domain", "pairs", "model", "majority", "length only", "domain left out", "trusted"], rows)


def concepts(explanation: Explanation) -> str:
    """What each mechanism weighs most, in all domains, and with a stable sign in one: lift, interval and stability."""
    rows = []
    for name, told in explanation["mechanisms"].items():
        places = {"all": told["shared"], **(told["domains"] if len(told["domains"]) > 1 else {})}
        for place, entries in places.items():
            everywhere = place == "all"
            own = [
                (key, entry)
                for key, entry in entries.items()
                if everywhere or (entry["specific"] and entry["stability"] >= STABLE)
            ]
            rows += [
                [
                    name,
                    place,
                    explanation["concepts"][key]["name"],
                    f"{entry['lift']:+.1f}",
                    lifts(entry),
                    f"{100 * entry['stability']:.0f}",
                    standing(entry),
                ]
                for key, entry in sorted(own, key=lambda item: -abs(item[1]["weight"]))[
                    : MOST if everywhere else MOST_OWN
                ]
            ]
    return table(["who", "domain", "concept", "lift %", "held-out interval", "same sign %", ""], rows)


def bias(explanation: Explanation) -> str:
    """Weights of length, form and position, alone and beside the content that the model has."""
    rows = [
        [name, key.replace("_", " "), *(_or_why(one, fit) for fit in ("alone", "beside_content"))]
        for name, told in explanation["mechanisms"].items()
        for key, one in told["bias"].items()
    ]
    return table(["who", "of", "alone", "beside content"], rows)


def _or_why(one: Mapping[str, Any], fit: str) -> str:
    """The weight of one fit, or why it is not known."""
    return weight(one[fit]) if one[fit][0] is not None else f"not known: {one['why_not'][fit]}"


def between(explanation: Explanation) -> str:
    """How alike mechanisms weigh concepts, and what each weighs more than the other."""
    rows = []
    for pair in explanation["between"]:
        alike = "not known" if pair["similarity"] is None else f"{pair['similarity']:.2f}"
        stable = [one for one in pair["overlooked"] if one["stability"] >= STABLE]
        sides = [
            ", ".join(
                f"{explanation['concepts'][one['concept']]['name']} ({50 * abs(one['difference']):.0f})"
                for one in found
            )
            for found in (
                [one for one in stable if one["difference"] > 0][:5],
                [one for one in reversed(stable) if one["difference"] < 0][:5],
            )
        ]
        rows.append([pair["a"], pair["b"], alike, share(pair["agreement"]), f"{pair['same_pairs']:,}", *sides])
    return table(
        ["a", "b", "alike", "same verdict, %", "of pairs", "a weighs more (lift %)", "b weighs more (lift %)"], rows
    )


def applications(explanation: Explanation) -> str:
    """What the concepts are good for: choosing a response, and deciding near-ties."""
    guided = explanation["applications"].get("guidance", {}).get("mechanisms", {})
    rows = [
        [name, f"{one['n']:,}", share(one["top"]), share(one["random"]), points(one["difference"])]
        for name, one in guided.items()
        if "top" in one
    ]
    return table(["who", "n", "leading concepts, %", "as many others, %", "difference, points"], rows)


# ---- cells ----


def weight(triple: Sequence[float | None] | None) -> str:
    """A weight and its interval."""
    return triple_of(triple, lambda value: f"{value:+.2f}")


def lifts(entry: Mapping[str, Any]) -> str:
    """The interval of a concept's lift on held-out prompts, or why there is none."""
    if entry["low"] is None:
        return entry.get("no_interval") or "not known"
    return f"{50 * entry['low']:+.0f} to {50 * entry['high']:+.0f}"


def standing(entry: Mapping[str, Any]) -> str:
    """Whether the concept is said to drive, and whether its interval on held-out prompts says so too."""
    if not entry["drives"]:
        return ""
    clear = entry["low"] is not None and min(entry["low"] * entry["weight"], entry["high"] * entry["weight"]) > 0
    return "drives, confirmed" if clear else "drives"


def p_value(value: float) -> str:
    """A p-value: two digits, or that it is below a ten-thousandth."""
    if math.isnan(value):
        return "no data"
    return "< .0001" if value < 1e-4 else f"{value:.2g}"


# ---- the page ----


def main() -> None:
    """Write the file of advertisements, or renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    kept = commands.add_parser("paraphrases", help="keep the pairs that three of five judges call paraphrases")
    kept.add_argument("source", type=Path, help="AdParaphrase's adparaphrase.csv")
    kept.add_argument("target", type=Path, help="the file to write")
    page = commands.add_parser("page", help="renew the tables of the study's page")
    page.add_argument("folder", type=Path, help="the folder that `unipref explain` wrote")
    page.add_argument("--ads", type=Path, required=True, help="the file that `paraphrases` wrote")
    page.add_argument("--page", type=Path, default=PAGE, help="the page with the marks")
    args = parser.parse_args()
    if args.command == "paraphrases":
        n, of = paraphrases(args.source, args.target)
        print(f"{args.target}: {n:,} of {of:,} pairs")
        return
    explanation = json.loads((args.folder / "explanation.json").read_text(encoding="utf-8"))
    parts = {
        made.__name__: made(explanation) for made in (accuracies, by_domain, concepts, bias, between, applications)
    }
    parts["advertising"] = advertising(Pairs.of(read_records(args.ads)[0]))
    write_text(args.page, renewed(args.page.read_text(encoding="utf-8"), parts))


if __name__ == "__main__":
    main()
