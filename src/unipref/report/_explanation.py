"""One HTML file that says what drives preferences, from `explanation.json` alone."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unipref.core.errors import DataError
from unipref.core.io import write_text
from unipref.features.concepts import KINDS
from unipref.report import _explained as words
from unipref.report import _figures
from unipref.report._page import data_view, dots, environment
from unipref.report._words import MINUS, NOTHING, Metric, tick

__all__ = ["EXPLANATION", "write_explanation"]

EXPLANATION = "explanation.json"
N_OPEN = 12  # concepts of a figure that are seen without unfolding
N_STEPS = 10  # of a waterfall, the rest is one
N_COMPARED = 40  # concepts whose weights under all mechanisms are shown
WIDE = 3.0  # an axis is at most so many times as long as its longest bar; whiskers beyond it run to the edge

Triple = Sequence[float | None]
ACCURACY = Metric("accuracy", "held-out accuracy", "share", 1)


def write_explanation(folder: Path | str) -> Path:
    """Write `report.html` into `folder` from its `explanation.json`; its path.

    The page loads nothing, as every report. Its figures carry the numbers of the JSON unrounded: data-figure says of
    what, data-mechanism, data-domain and data-concept of which, data-value, data-low and data-high are weights (lift
    is 50 times a weight, in per cent) or accuracies.

    Raises:
        DataError: the folder holds no whole `explanation.json`.
    """
    folder = Path(folder)
    path = folder / "report.html"
    page = environment().get_template("explanation.html.j2")
    citations = folder / "citations.bib"
    told = _load(folder)
    cited = citations.read_text(encoding="utf-8") if citations.exists() else ""
    write_text(path, page.render(**_view(told), citations=cited))
    return path


def _load(folder: Path) -> dict[str, Any]:
    path = folder / EXPLANATION
    if not path.exists():
        raise DataError(f"{folder} holds no {EXPLANATION}; run `unipref explain` to its end first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); run `unipref explain` again to write it") from err


def _view(told: Mapping[str, Any]) -> dict[str, Any]:
    names = [told["main"], *(name for name in told["mechanisms"] if name != told["main"])]
    mechanisms = {name: told["mechanisms"][name] for name in names}
    main = mechanisms[told["main"]]
    return {
        "found": told,
        "words": words,
        "name": f"{told['name']}, explained",
        "version": told["version"],
        "created": told["created"],
        "headline": words.headline(told),
        "findings": words.findings(told),
        "main": main,
        "trust": {name: words.trust(each) for name, each in mechanisms.items()},
        "mechanisms": mechanisms,
        "colour": {name: i % 8 for i, name in enumerate(names)},
        "accuracy": _accuracy_plot(main["accuracy"]),
        "elsewhere": _elsewhere(main["accuracy"]),
        "calibration": _calibration(main["accuracy"]),
        "standing": [_mechanism_row(name, each) for name, each in mechanisms.items()],
        "order": words.order_told(main.get("order")),
        "concept_judge": _concept_judge(told),
        "metric": ACCURACY,
        "shared": {name: _shared(told, each) for name, each in mechanisms.items()},
        "travels": {name: words.travels(each) for name, each in mechanisms.items()},
        "domains": {name: _domains(told, each) for name, each in mechanisms.items()},
        "compared": _compared(told, names) if len(names) > 1 else None,
        "bias": {name: _bias(told, each["bias"]) for name, each in mechanisms.items() if each["bias"]},
        "pairs": [_pair(told, pair) for pair in told["pairs"]],
        "choices": {
            key: sorted({pair[key] for pair in told["pairs"]}, key=lambda name: (name != told["main"], name))
            for key in ("mechanism", "domain")
        },
        "decided": _deciding(told),
        "applications": {key: _application(told, each) for key, each in told["applications"].items() if each},
        "glossary": [_concept(told, key, each) for key, each in told["concepts"].items()],
        "data": data_view({each["source"]: each["report"] for each in told["data"]}),
        "recipe": "",
        "n_open": N_OPEN,
        "several_domains": any(len(each["domains"]) > 1 for each in mechanisms.values()),
    }


# ---- how well it predicts ----


def _accuracy_plot(accuracy: Mapping[str, Any]) -> dict[str, Any]:
    entries = {"this explanation": {"accuracy": accuracy["heldout"]}}
    entries |= {words.BASELINES.get(name, name): {"accuracy": t} for name, t in accuracy["baselines"].items()}
    return {"plot": dots(ACCURACY, entries), "colour": {name: 7 if i else 0 for i, name in enumerate(entries)}}


def _elsewhere(accuracy: Mapping[str, Any]) -> dict[str, Any] | None:
    """Domains with all of them in training, and with their own left out, on one axis; None for one domain."""
    left_out = accuracy["leave_one_domain_out"]
    if not left_out:
        return None
    both = {"by_domain": accuracy["by_domain"], "leave_one_domain_out": left_out}
    axis = _figures.axis([0.5, *(x for each in both.values() for triple in each.values() for x in triple)], about=3)
    ticks = [(axis.at(value), tick(ACCURACY, value)) for value in axis.ticks]
    plots = {}
    for key, triples in both.items():
        metric = Metric(key, ACCURACY.label, "share", 1)
        plot = dots(metric, {name: {key: triple} for name, triple in triples.items()})
        plots[key] = {**plot, "axis": axis, "ticks": ticks}
    return {"plots": plots, "colour": dict.fromkeys(left_out, 0)}


def _calibration(accuracy: Mapping[str, Any]) -> dict[str, Any] | None:
    """How often the explanation is right where it is so sure; None where nobody asked."""
    parts = {str(i): part for i, part in enumerate(accuracy.get("calibration") or (), 1)}
    if not parts:
        return None
    metric = Metric("calibration", "right", "share", 1)
    plot = dots(metric, {part: {"calibration": told["right"]} for part, told in parts.items()})
    for row in plot["rows"]:
        row["scored"] = f"n = {parts[row['run']]['n']}"
    names = {part: f"{100 * told['predicted']:.1f} % sure" for part, told in parts.items()}
    return {"plot": plot, "colour": dict.fromkeys(parts, 0), "names": names}


def _concept_judge(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """How often what a judge said of concepts changed with the order; None where no judge was asked."""
    judge = told.get("judge") or {}
    if "comparisons" not in judge:
        return None
    order = {"n": judge["comparisons"], "changed": judge.get("changed") or [None] * 3}
    return {"name": judge["name"], **words.order_told(order, "verdict")}


def _mechanism_row(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = told["accuracy"]
    cells = {
        "heldout": (accuracy["heldout"], False),
        "length_only": (accuracy["baselines"].get("length_only"), False),
        "difference": (accuracy["differences"].get("length_only"), True),
    }
    return {
        "name": name,
        "n": told["n"],
        "trusted": told["trusted"],
        "order": words.order_told(told.get("order")),
        "cells": {key: _cell(triple or [None] * 3, signed) for key, (triple, signed) in cells.items()},
    }


def _cell(triple: Triple, signed: bool) -> dict[str, Any]:
    interval = "" if triple[0] is None else ACCURACY.show_interval(triple, signed=signed)
    return {"triple": triple, "shown": ACCURACY.show(triple[0], signed=signed), "interval": interval}


# ---- bars ----


def _axis(
    bars: Iterable[float], whiskers: Iterable[float | None], *, about: int = 5
) -> tuple[_figures.Axis, list[tuple[float, str]]]:
    """An axis of weights around 0, about so many ticks in lift."""
    bars = list(bars)
    longest = max((abs(value) for value in bars), default=0.0)
    limit = WIDE * longest if longest else None
    ends = [value for value in whiskers if value is not None]
    ends = [max(-limit, min(limit, value)) for value in ends] if limit is not None else ends
    scaled = _figures.axis([words.LIFT * value for value in (longest, *ends)], around_zero=True, about=about)
    axis = _figures.Axis(scaled.low / words.LIFT, scaled.high / words.LIFT, ())
    return axis, [(scaled.at(value), f"{value:g}".replace("-", MINUS)) for value in scaled.ticks]


def _ends(entries: Iterable[Mapping[str, Any]]) -> list[float | None]:
    return [entry[end] for entry in entries for end in ("low", "high")]


def _bars(
    told: Mapping[str, Any], entries: Iterable[tuple[str, Mapping[str, Any]]], trusted: bool, axis: Any = None
) -> dict[str, Any]:
    """A row per concept: a bar to its weight, in a domain the shared part apart from the domain's own."""
    entries = list(entries)
    axis, ticks = axis or _axis([e["weight"] for _, e in entries], _ends(e for _, e in entries))
    rows = []
    for key, entry in entries:
        own = entry.get("specific")
        common = entry["weight"] - own if own is not None else entry["weight"]
        common = 0.0 if abs(common) < 1e-12 else common
        pieces = [_piece(axis, 0.0, common, "common" if own is not None else "whole")]
        if own:
            pieces.append(_piece(axis, common, entry["weight"], "own"))
        rows.append(
            {
                "key": key,
                "name": words.name_of(told, key),
                "means": _means(told, key, entry["weight"]),
                "too": [words.name_of(told, other) for other in told["concepts"].get(key, {}).get("alike", ())],
                "entry": entry,
                "own": own,
                "pieces": [piece for piece in pieces if piece["width"] > 0],
                "arrow": None if not own else {"at": axis.at(entry["weight"]), "right": own > 0},
                "whisker": None if entry["low"] is None or entry["high"] is None else (
                    axis.at(entry["low"]), axis.at(entry["high"])),
                "shown": words.lift(entry["weight"]),
                "parts": "" if not own else f"{words.bare(common)} shared, {words.bare(own)} here" if common else
                "all of it here",
                **words.standing(entry, trusted=trusted),
            }
        )  # fmt: skip
    return {"rows": rows, "zero": axis.at(0.0), "ticks": ticks}


def _shared(told: Mapping[str, Any], mechanism: Mapping[str, Any]) -> dict[str, Any]:
    """Concepts shared by all domains; none is weighed for itself where the whole is not trusted or does not travel."""
    far = words.travels(mechanism)
    return _bars(told, mechanism["shared"].items(), mechanism["trusted"] and (far is None or far["passed"]))


def _piece(axis: _figures.Axis, start: float, end: float, word: str) -> dict[str, Any]:
    left, right = sorted((axis.at(start), axis.at(end)))
    return {"x": left, "width": round(right - left, 2), "word": word}


def _means(told: Mapping[str, Any], key: str, weight: float) -> str:
    """What having more of the concept means, where its name alone does not say it."""
    concept = told["concepts"].get(key)
    return "" if concept is None or concept["kind"] == "ngram" else concept["high"]


def _domains(told: Mapping[str, Any], mechanism: Mapping[str, Any]) -> dict[str, Any]:
    """A panel per domain, all on one axis; empty for one domain, of which nothing is its own."""
    if len(mechanism["domains"]) < 2:
        return {}
    every = [entry for entries in mechanism["domains"].values() for entry in entries.values()]
    axis = _axis([v for e in every for v in (e["weight"], e["weight"] - e["specific"])], _ends(every))
    panels = {}
    for name, entries in mechanism["domains"].items():
        # what is its own stands first, as the shared part has a figure of its own
        ordered = sorted(entries.items(), key=lambda item: (not item[1]["specific"], -abs(item[1]["weight"])))
        n_own = sum(bool(entry["specific"]) for entry in entries.values())
        here = words.trust_here(mechanism, name)
        panels[name] = {**_bars(told, ordered, here["trusted"], axis), "n_own": n_own, "here": here,
                        "n": mechanism["n"]["domains"][name]}  # fmt: skip
    return panels


def _bias(told: Mapping[str, Any], bias: Mapping[str, Any]) -> dict[str, Any]:
    """Length, form and position: alone, and beside the content concepts, on one axis, and why some are not known."""
    names = {name: "standing first" if name == "position" else words.name_of(told, name) for name in bias}
    known = {name: entry for name, entry in bias.items() if any(entry[key][0] is not None for key in _FITS)}
    unknown: dict[str, list[str]] = {}
    for name in bias.keys() - known.keys():
        why = (bias[name].get("why_not") or {}).get("alone") or "not measured"
        unknown.setdefault(why, []).append(names[name])
    triples = [entry[key] for entry in known.values() for key in _FITS]
    axis, ticks = _axis([t[0] for t in triples if t[0] is not None], [end for t in triples for end in t[1:]], about=4)
    plots = []
    for key, title in _FITS.items() if known else ():
        rows = [
            {
                "run": name,
                "triple": entry[key],
                "shown": words.lift(entry[key][0]),
                "interval": _ends_or_why(entry, key),
                "scored": "",
            }
            for name, entry in known.items()
        ]
        plots.append({"title": title, "metric": Metric(f"bias.{key}", title, "score"), "rows": rows, "axis": axis,
                      "ticks": ticks, "line": 0.0, "measured": True})  # fmt: skip
    left = [f"{', '.join(sorted(each))} ({why})" for why, each in sorted(unknown.items())]
    return {"plots": plots, "names": names, "colour": dict.fromkeys(bias, 0), "unknown": "; ".join(left)}


_FITS = {"alone": "Alone", "beside_content": "Beside the content that the model has"}


def _ends_or_why(entry: Mapping[str, Any], key: str) -> str:
    """The interval, or the reason why there is none; and what must be known to read it."""
    _, low, high = entry[key]
    if low is None or high is None:
        return (entry.get("why_not") or {}).get(key) or "no interval"
    caution = (entry.get("caution") or {}).get(key)
    return f"{words.bare(low)} to {words.bare(high)}" + (f"; {caution}" if caution else "")


# ---- mechanisms beside one another ----


def _compared(told: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Shared weights of a concept under every mechanism; those that differ most stand first."""
    mechanisms = [told["mechanisms"][name] for name in names]
    keys = list(dict.fromkeys(key for each in mechanisms for key in each["shared"]))

    def weight(key: str) -> list[float]:
        return [each["shared"].get(key, {}).get("weight", 0.0) for each in mechanisms if key in each["concepts"]]

    known = [key for key in keys if len(weight(key)) > 1]
    known = sorted(known, key=lambda key: min(weight(key)) - max(weight(key)))[:N_COMPARED]
    shown = [each["shared"][key] for each in mechanisms for key in known if key in each["shared"]]
    axis, ticks = _axis([entry["weight"] for entry in shown], _ends(shown))
    rows = []
    for key in known:
        lanes = []
        for name, each in zip(names, mechanisms, strict=True):
            entry = each["shared"].get(key)
            there = key in each["concepts"]
            value = entry["weight"] if entry else 0.0 if there else None
            ends = [entry["low"], entry["high"]] if entry else [None, None]
            lanes.append(
                {
                    "mechanism": name,
                    "triple": [value, *ends],
                    "dot": None if value is None else axis.at(value),
                    "whisker": None if None in ends else (axis.at(ends[0]), axis.at(ends[1])),
                    "drives": bool(entry and entry["drives"]),
                    "shown": "no such concept" if value is None else words.lift(value) if entry else "no weight",
                }
            )
        rows.append({"key": key, "name": words.name_of(told, key), "lanes": lanes})
    return {"rows": rows, "ticks": ticks, "zero": axis.at(0.0), "n_left": len(keys) - len(known),
            "between": [_between(told, pair) for pair in told["between"]]}  # fmt: skip


def _between(told: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    a, b = pair["a"], pair["b"]
    sure = all(told["mechanisms"][name]["trusted"] for name in (a, b))
    sides = [
        {"title": f"{words.overlooks(less)}: more weight" if sure else "More weight", "more": more, "less": less,
         "rows": [{**entry, "name": words.name_of(told, entry["concept"])} for entry in pair["overlooked"]
                  if sign * entry["difference"] > 0]}
        for sign, more, less in ((1, a, b), (-1, b, a))
    ]  # fmt: skip
    return {
        **pair,
        "sides": sides,
        "sentences": " ".join(_of_both(told, pair, sure)),
        "shown": NOTHING if pair["similarity"] is None else _two(pair["similarity"]),
        "agreement": pair.get("agreement") or [None] * 3,
    }


def _of_both(told: Mapping[str, Any], pair: Mapping[str, Any], sure: bool) -> Iterator[str]:
    """What a reader has to know to compare two mechanisms, a sentence each."""
    agreement, n = pair.get("agreement"), words.plural(pair.get("same_pairs") or 0, "pair")
    if agreement and agreement[0] is not None:
        yield f"On {n} that both judged they agree in {ACCURACY.show(agreement[0])}"
        yield f"({ACCURACY.show_interval(agreement)})."
    elif pair.get("same_pairs"):
        yield f"{n} were judged by both."
    else:
        yield "They judged no pair in common, so where they differ may be the pairs as well as who judged."
    if not sure:
        yield "Not both explanations are trusted: these are differences of models, and may not be of preferences."
    a, b = (set(told["mechanisms"][pair[side]]["n"]["domains"]) for side in ("a", "b"))
    if not a & b:
        yield "They judged in different domains, so this compares shared weights alone."
    yield "Similarity is the correlation of their weights: 1 where they weigh alike, 0 where one tells nothing of the"
    yield "other."
    if pair["similarity"] is None:
        yield f"It is not known here: {pair.get('why_not') or 'one of the two has no weights that differ'}."
    if len(pair.get("by_domain") or {}) > 1:
        by_domain = pair["by_domain"].items()
        each = ", ".join(f"{name} {'unknown' if value is None else _two(value)}" for name, value in by_domain)
        yield f"By domain, of which it is the mean: {each}."


def _two(value: float, sign: str = "-") -> str:
    return f"{value:{sign}.2f}".replace("-", MINUS)


# ---- pairs ----


def _pair(told: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    """A pair with the steps from 0 to its logit."""
    steps = [
        {"key": key, "name": words.name_of(told, key), "value": value, "x": x,
         "aside": words.leaning(told["concepts"].get(key, {}).get("kind", "table"), x)}
        for key, x, value in pair["contributions"][:N_STEPS]
    ]  # fmt: skip
    rest = pair["contributions"][N_STEPS:]
    if rest:
        steps.append({"key": "", "name": words.plural(len(rest), "further concept"), "x": None,
                      "value": pair["logit"] - sum(step["value"] for step in steps), "aside": "together"})  # fmt: skip
    at, ends = 0.0, [0.0, pair["logit"]]
    for step in steps:
        step["start"], at = at, at + step["value"]
        ends.append(at)
    axis = _figures.axis(ends, around_zero=True)
    for step in steps:
        step["piece"] = _piece(axis, step["start"], step["start"] + step["value"], "for" if step["value"] > 0 else
                               "against")  # fmt: skip
        step["shown"] = _two(step["value"], "+")
    return {
        **pair,
        "steps": steps,
        "zero": axis.at(0.0),
        "total": {**_piece(axis, 0.0, pair["logit"], "sum"),
                  "shown": _two(pair["logit"], "+")},
        "decider": pair["contributions"][0][0] if pair["contributions"] else "",
        "verdict": _verdict(pair),
        "preferred": _preferred(pair),
        "expected": _expected(pair),
        "flip_told": words.changes(told, pair),
    }  # fmt: skip


def _deciding(told: Mapping[str, Any]) -> dict[str, str]:
    """Concepts that are the largest step of some pair, with their names, the most frequent first."""
    found = Counter(pair["contributions"][0][0] for pair in told["pairs"] if pair["contributions"])
    return {key: f"{words.name_of(told, key)} ({n})" for key, n in found.most_common()}


def _verdict(pair: Mapping[str, Any]) -> str:
    if pair["p"] == 0.5:
        return "tie"
    if pair["predicted"] == 0.5:
        return "undecided"
    return "right" if (pair["predicted"] > 0.5) == (pair["p"] > 0.5) else "wrong"


def _preferred(pair: Mapping[str, Any]) -> str:
    if pair["p"] == 0.5:
        return "a tie"
    share = max(pair["p"], 1 - pair["p"])
    return ("first" if pair["p"] > 0.5 else "second") + ("" if share == 1 else f" ({100 * share:.0f} %)")


def _expected(pair: Mapping[str, Any]) -> str:
    if pair["predicted"] == 0.5:
        return "neither"
    share = max(pair["predicted"], 1 - pair["predicted"])
    return f"{'first' if pair['predicted'] > 0.5 else 'second'}, {100 * share:.1f} %"


# ---- in use ----

_CHOICES = {
    "plain": "asked plainly, without a hint",
    "top": "its leading concepts",
    "random": "concepts drawn at random",
    "own": "its own leading concepts",
    "reference": "the reference's leading concepts",
    "overlooked": "what the reference weighs most above it",
}
_QUIET = ("plain", "random")  # what the others are held against
_TOLD = ("k", "why_not", "n", "of", "rule", "difference", "concepts", "mechanism", "model", "missing", "asked")


def _application(told: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A test of the concepts in use: a figure per mechanism of shares, or why there is none, and what else is told."""
    tests = []
    live = "mechanism" in found  # of one mechanism alone, by a model that was asked
    tested = {found["mechanism"]: found} if live else found.get("mechanisms", {})
    for name, each in tested.items():
        shares = {key: value for key, value in each.items() if key in _CHOICES}
        named = each.get("concepts") or {}
        named = named if isinstance(named, Mapping) else {"top": named}
        plot = dots(ACCURACY, {_CHOICES[key]: {"accuracy": triple} for key, triple in shares.items()})
        tests.append(
            {
                "name": name,
                "why_not": each.get("why_not", ""),
                "n": each.get("n"),
                "of": each.get("of"),
                "k": each.get("k", found.get("k")),
                "rule": each.get("rule", ""),
                "missing": each.get("missing") or 0,
                "difference": _cell(each["difference"], True) if each.get("difference") else None,
                "against": "Overlooked over random" if "overlooked" in shares else "Leading over random",
                "plot": plot if shares else None,
                "colour": {_CHOICES[key]: 7 if key in _QUIET else 0 for key in shares},
                "concepts": {
                    _CHOICES[key]: [f"{'more' if sign > 0 else 'less'} {words.short(told, concept)}"
                                    for concept, sign in each_named]
                    for key, each_named in named.items()
                },
                "asked": _asked(each.get("asked")),
                "more": {k: v for k, v in each.items()
                         if k not in _CHOICES and k not in _TOLD},
            }
        )  # fmt: skip
    more = {} if live else {k: v for k, v in found.items() if k not in ("mechanisms", "k", "reference")}
    models = [each["model"] for each in tested.values() if each.get("model")]
    return {"tests": tests, "reference": found.get("reference"), "model": models[0] if models else None, "more": more}


def _asked(account: Mapping[str, Any] | None) -> str:
    """What the questions of a live test cost, and how many verdicts changed with the order."""
    if not account:
        return ""
    order = words.order_told({"n": account["comparisons"], "changed": account["changed"]}, "verdict")
    changed = f"; {order['shown']} {order['aside']}, changed with the order" if account["comparisons"] else ""
    requests, tokens = words.plural(account["requests"], "request"), words.plural(account["tokens"], "token")
    return f"{requests} ({tokens}), {words.plural(account['cached'], 'answer')} kept from before{changed}."


# ---- concepts ----


def _concept(told: Mapping[str, Any], key: str, concept: Mapping[str, Any]) -> dict[str, Any]:
    alone = concept.get("alone") or {}
    share = alone.get("share") or [None] * 3
    p = alone.get("p_holm")
    return {
        **concept,
        "key": key,
        "how": KINDS.get(concept["kind"], concept["kind"]),
        "alike": [words.name_of(told, other) for other in concept.get("alike", ())],
        "share": share,
        "share_shown": ACCURACY.show(share[0]),
        "share_interval": "" if share[0] is None else ACCURACY.show_interval(share),
        "n": alone.get("n"),
        "p": NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}",
        "influence": alone.get("influence"),
        "agreement": concept.get("agreement"),
    }
