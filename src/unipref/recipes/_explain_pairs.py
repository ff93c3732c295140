"""The pairs that are explained: of data, of aligned models and of scorers."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Record, plain_text
from unipref.data import DataReport, as_pairs, is_heldout, read_records
from unipref.data.pairs import UNNAMED, Pairs
from unipref.data.sources import open_source
from unipref.features.concepts import PairValues
from unipref.recipes._explain_asked import Asked, NamedFile, stem
from unipref.recipes.config import load_recipe
from unipref.rewards import make_scorer

__all__ = ["gathered", "with_scorers", "without_order"]

DERIVED = ("model:", "scorer:")  # how the names of mechanisms begin that the data do not hold
ORDER_SALT = "unipref-explain-order-1"
MOST_JUDGES = 12  # names in the column `annotator`, more are people of one mechanism

Said = dict[tuple[str, str, str], str]  # see `unipref.explain.explanation.Evidence`


def gathered(asked: Asked, tell: Callable[[str], None]) -> tuple[Pairs, Said, list[dict[str, Any]], list[str]]:
    """The pairs of all sources, what was said of them, the account of each source, and what a reader should know."""
    parts, data, notes = [], [], []
    evidence: Said = {}
    by_file = len(asked.files) > 1
    with_column = 0
    for file in asked.files:
        tell(f"reading {file.path}")
        records, report = _records(file.path, asked)
        named = sum(record.domain is not None for record in records)
        with_column += named > 0
        if file.domain is not None:
            records = [replace(record, domain=file.domain) for record in records]
        elif not named and asked.domain is not None:
            raise ConfigError(_no_column(file.path, asked.domain, "--domain"))
        elif not named and by_file and file.mechanism is None:
            records = [replace(record, domain=stem(file.path)) for record in records]
        elif 0 < named < len(records):
            notes.append(f"{file.path}: {len(records) - named:,} rows name no domain; they are the domain {UNNAMED!r}.")
        pairs, told = _judged(records, file, asked)
        notes += told
        parts.append(pairs)
        evidence |= _evidence(records, pairs, file.path, asked.evidence)
        data.append(_account(file.path, report))
        # a column that is not used is no news here; it stands in data.json
        notes += [note for note in report.notes if note not in notes and "columns not used" not in note]
        if report.set_aside:
            reasons = "; ".join(f"{count:,} x {reason}" for reason, count in report.counts.items())
            notes.append(f"{file.path}: {len(report.set_aside):,} of {report.n_read:,} rows are set aside: {reasons}.")
    for run in asked.runs:
        tell(f"reading {run}")
        pairs, account, told = _of_run(run)
        parts.append(pairs)
        data.append(account)
        notes += told
    pairs = Pairs.joined(parts)
    if asked.domain is not None and asked.files and not with_column:
        raise ConfigError(_no_column(asked.files[0].path, asked.domain, "--domain"))
    if asked.evidence is not None and asked.files and not evidence:
        raise ConfigError(_no_column(asked.files[0].path, asked.evidence, "--evidence"))
    return pairs, evidence, data, notes


def _evidence(records: Sequence[Record], pairs: Pairs, path: str, column: str | None) -> Said:
    """What the judges of `pairs`, which are those of `records` in their order, said to their verdicts."""
    if column is None:
        said = [next((plain_text(item.response) for item in r.items if item.role == "rationale"), "") for r in records]
    else:
        by_line = {line: row.get(column) for line, row in open_source(path).rows if isinstance(row, Mapping)}
        said = ["" if by_line.get(record.line) is None else str(by_line[record.line]) for record in records]
    texts = [text.strip() for record, text in zip(records, said, strict=True) for _ in record.comparisons]
    keys = zip(pairs.mechanism.tolist(), pairs.place.tolist(), pairs.ids.tolist(), strict=True)
    return {key: text for key, text in zip(keys, texts, strict=True) if text}


def _records(path: str, asked: Asked) -> tuple[list[Record], DataReport]:
    records, report = read_records(
        path,
        format=asked.format,
        strict=asked.strict,
        limit=asked.limit,
        domain_field=asked.domain or "domain",
        user_field=asked.mechanism or "user",
    )
    if all(record.comparisons for record in records):
        return records, report
    records, paired = as_pairs(records)
    return records, report.then(paired)


def _no_column(path: str, column: str, flag: str) -> str:
    names = {name for _, row in open_source(path).rows if isinstance(row, Mapping) for name in row}
    return (
        f"{flag} {column}: no row of {path} has a value in such a column{nearest(column, names)}; name another, or "
        "the file's own as NAME=FILE"
    )


def _judged(records: Sequence[Record], file: NamedFile, asked: Asked) -> tuple[Pairs, list[str]]:
    """The pairs of `records` by whoever judged them."""
    if file.mechanism is not None:
        return Pairs.of(records, mechanism=file.mechanism), []
    if asked.mechanism is not None:
        if not any(record.user for record in records):
            raise ConfigError(_no_column(file.path, asked.mechanism, "--mechanism"))
        records = [
            replace(
                record,
                comparisons=tuple(replace(one, annotator=record.user or UNNAMED) for one in record.comparisons),
            )
            for record in records
        ]
    pairs = Pairs.of(records)
    names = set(pairs.mechanism.tolist())
    if len(names) > MOST_JUDGES and asked.mechanism is None:
        note = (
            f"{file.path}: {len(names):,} annotators are taken as one mechanism; name the column of a few groups or "
            "judges with --mechanism to tell them apart."
        )
        return replace(pairs, mechanism=np.full(len(pairs), UNNAMED, dtype=object)), [note]
    return pairs, []


def _of_run(name: str) -> tuple[Pairs, dict[str, Any], list[str]]:
    """Held-out pairs of an `align` run as the data judge them and as each aligned model's implicit reward does.

    The implicit reward of a response is log p / p_ref; the model prefers the response with the larger one, whatever its
    method's beta is.
    """
    folder, only = _run_folder(name)
    recipe = load_recipe(folder / "recipe.yaml", validate_files=False)
    collected = folder / "shared" / "collected-heldout.jsonl"
    source = str(collected) if collected.is_file() else recipe.data.eval or recipe.data.train
    records, report = read_records(source, format="auto" if collected.is_file() else recipe.data.format)
    by_id = {record.id: record for record in records if record.comparisons}
    paths = [*sorted(folder.glob("*/evaluation.json")), *sorted(folder.glob("*/seed-*/evaluation.json"))]
    evaluations = {path.parent.relative_to(folder).parts[0]: path for path in reversed(paths)}  # of the first seed
    if only is not None:
        if only not in evaluations:
            raise ConfigError(f"{folder} has no evaluated run {only!r}{nearest(only, evaluations)}")
        evaluations = {only: evaluations[only]}
    if not evaluations:
        raise ConfigError(f"{folder} holds no evaluation.json; finish the run with `unipref align … --resume`")
    parts: list[Pairs] = []
    notes = [
        f"{folder}: an aligned model prefers the response of the larger implicit reward, log p - log p_ref; its size "
        "is not used, as it depends on each method's beta."
    ]
    for run, path in sorted(evaluations.items()):
        rows = json.loads(path.read_text(encoding="utf-8"))["pairs"]
        judged, lost = [], Counter[str]()
        for row in rows:
            record, margin = by_id.get(row["id"]), _margin(row)
            if record is None or len(record.comparisons) != 1:
                lost["the data have no such pair any more" if record is None else "the record has several pairs"] += 1
            elif margin is None:
                lost["no log-probability"] += 1
            else:
                judged.append((record, margin))
        if not judged:
            told = "; ".join(f"{n} x {why}" for why, n in lost.items()) or "it has none"
            raise DataError(f"{path}: no held-out pair can be taken from it ({told}); the texts are read from {source}")
        notes += [f"{path}: {n:,} pairs are left out: {why}." for why, n in lost.items()]
        model = Pairs.of([record for record, _ in judged], mechanism=f"model:{run}")
        if not parts:
            parts.append(replace(model, mechanism=np.full(len(model), UNNAMED, dtype=object)))
        wins = 0.5 * (1 + np.sign([margin for _, margin in judged]))  # of the chosen one
        chosen_first = np.array([record.comparisons[0].winner < record.comparisons[0].loser for record, _ in judged])
        parts.append(replace(model, p=np.where(chosen_first, wins, 1 - wins)))
    account = _account(str(source), report) | {"run": str(folder)}
    return Pairs.joined(parts), account, notes


def _account(source: str, report: DataReport) -> dict[str, Any]:
    facts = next(iter(report.sources.values()), {})
    return {"source": source, "rows": report.n_read, "sha256": facts.get("sha256"), "report": report.to_dict()}


def _run_folder(name: str) -> tuple[Path, str | None]:
    for folder in (Path(name), Path("runs") / name):
        if (folder / "recipe.yaml").is_file():
            return folder, None
        if (folder.parent / "recipe.yaml").is_file():
            return folder.parent, folder.name
    raise ConfigError(
        f"--run {name}: there is no folder of `unipref align` there, nor in runs/; give FOLDER or FOLDER/RUN"
    )


def _margin(row: Mapping[str, Any]) -> float | None:
    values = [row.get(key) for key in ("logp_chosen", "ref_logp_chosen", "logp_rejected", "ref_logp_rejected")]
    if any(value is None for value in values):
        return None
    return (values[0] - values[1]) - (values[2] - values[3])


def with_scorers(
    pairs: Pairs, scorers: Mapping[str, Mapping[str, Any]], notes: list[str], tell: Callable[[str], None]
) -> Pairs:
    """`pairs`, and those of each scorer, which prefers the response that it scores higher."""
    if not scorers:
        return pairs
    seen: dict[tuple[str, frozenset[str]], int] = {}
    for i, key in enumerate(zip(pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        seen.setdefault((key[0], frozenset(key[1:])), i)
    once = pairs.take(sorted(seen.values()))
    parts = [pairs]
    for key, options in scorers.items():
        tell(f"scoring by {key}")
        scorer = make_scorer({"scorer": key, "options": dict(options)})
        prompts = once.prompt.tolist()
        first, second = (np.asarray(scorer.score(prompts, side.tolist())) for side in (once.first, once.second))
        known = ~(np.isnan(first) | np.isnan(second))
        if not known.any():
            raise DataError(f"the scorer {key!r} has no score of both responses of any pair")
        if not known.all():
            notes.append(f"scorer:{key}: {int((~known).sum()):,} pairs without a score of both responses are left out.")
        own = once.take(known)
        p = 0.5 * (1 + np.sign(first[known] - second[known]))
        parts.append(replace(own, p=p, mechanism=np.full(len(own), f"scorer:{key}", dtype=object)))
    return Pairs.joined(parts)


def without_order(pairs: Pairs, values: Sequence[PairValues]) -> tuple[Pairs, list[PairValues]]:
    """The same pairs; those of models and scorers, which see no order, in one that is drawn by lot.

    In files of chosen and rejected responses the first is the one that people took. Kept in that order, "the first
    wins" would be a baseline of a model that agrees with people, and know what no baseline may.
    """
    derived = np.array([name.startswith(DERIVED) for name in pairs.mechanism.tolist()])
    lot = np.array([is_heldout(id_, share=0.5, salt=ORDER_SALT) for id_ in pairs.ids.tolist()])
    rows = derived & lot
    if not rows.any():
        return pairs, list(values)
    turned = rows[:, None]
    swapped = []
    for table in values:
        sides = (table.first, table.second)
        if table.first is not None and table.second is not None:
            sides = (np.where(turned, table.second, table.first), np.where(turned, table.first, table.second))
        swapped.append(PairValues(table.concepts, np.where(turned, -table.difference, table.difference), *sides))
    return pairs.swapped(rows), swapped
