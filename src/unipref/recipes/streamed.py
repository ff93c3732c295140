"""Training on rows that do not fit in memory: read, split, changed and tokenised a part at a time, and kept prepared.

A run with `data.stream` goes over its file twice. The first time it is split as any other is; held-out and validation
rows, and a sample of the training rows that the doctor looks at, are kept as ordinary records, chosen by a hash of
their texts. The second time the training rows are changed by the operators of a stage, tokenised and written into files
that are mapped into memory. Both lie beside the score store under what they were made from, so that a second run starts
from the files.
"""

import functools
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.core.io import write_json, write_text, writing_folder
from unipref.core.records import Comparison, Item, Message, Record, Span, Text
from unipref.data import (
    TOKEN_COLUMNS,
    DataReport,
    RowFault,
    as_pairs,
    is_heldout,
    responses_of,
)
from unipref.data.operators import digest
from unipref.data.prepared import key_folder, open_prepared, prepare, prepared_key, source_key, stream_records
from unipref.objectives import as_objective
from unipref.recipes._changes import changes
from unipref.recipes.config import Recipe, Stage
from unipref.rewards import DesignerObjectives
from unipref.rewards.designer import Scale
from unipref.rewards.scorers import Column
from unipref.store import ScoreStore
from unipref.training import processes
from unipref.training.prepared import Known, Mismatched, PreparedExamples

__all__ = [
    "MOST_HELD",
    "SAMPLE",
    "Smallest",
    "Split",
    "Streamed",
    "kept_bytes",
    "part_of",
    "refuse_unstreamable",
    "split_of",
]

MOST_HELD = 4096  # held-out records that are kept where `eval_limit` is not set, and validation records at most
SAMPLE = 4096  # training records that the doctor looks at
LAYOUT = 1  # version of what is kept here; another number makes it anew
_OF_MODEL = {"embedding": "a vector per prompt", "mask": "a mask per token", "step_weight": "a weight per step"}

Show = Callable[[int, int, Mapping[str, Any]], None]


def refuse_unstreamable(recipe: Recipe) -> None:
    """Refuse a recipe that asks of streamed rows what takes all of them at once.

    Raises:
        ConfigError: the message names every stage that does, and why.
    """
    faults = []
    if recipe.collect is not None:
        faults.append("`collect` samples answers to prompts that are held in memory")
    for stages in recipe.run_plan().values():
        for stage in stages:
            faults += [f"{stage.label}: {why}" for why in _why_not(stage)]
    if faults:
        raise ConfigError(
            "\n  ".join(["data.stream: true cannot train this recipe", *dict.fromkeys(faults)])
            + "\nLeave these out, or set data.stream: false, which holds all rows in memory (data.limit takes some)"
        )


def _why_not(stage: Stage) -> Iterator[str]:
    composition = stage.composition
    objective = as_objective(composition.objective)
    for operator in composition.operators:
        if not getattr(operator, "row_by_row", False):
            yield f"the operator {operator!r} looks at all rows together"
    if composition.merges:
        yield "it weighs models by their loss over all rows"
    if objective.trains_reward:
        yield "a reward model keeps the texts that it was trained on"
    for name, what in _OF_MODEL.items():
        if name in objective.needs | objective.token_needs:
            yield f"it reads {what} (`{name}`) that the model says of all rows before training"


# ------------------------------------------------------------------------------------------------------ the rows, split


class Smallest:
    """The `n` records of a stream that `limit_records` would choose of all of them, in the order in which they came."""

    def __init__(self, n: int, *, seed: int = 0) -> None:
        self.n, self.seed, self.seen = n, seed, 0
        self._kept: list[tuple[tuple[bytes, str], int, Any]] = []

    def add(self, record: Record, what: Any = None) -> None:
        """Look at one more; `what` is kept in its place, or else the record itself."""
        self._kept.append(((digest(record, self.seed), record.id), self.seen, record if what is None else what))
        self.seen += 1
        if len(self._kept) > 2 * self.n + 1024:
            self._cut()

    def chosen(self) -> list[Any]:
        """What was kept."""
        self._cut()
        return [what for _, _, what in sorted(self._kept, key=lambda entry: entry[1])]

    def _cut(self) -> None:
        self._kept.sort(key=lambda entry: entry[:2])
        del self._kept[self.n :]


@dataclass(frozen=True)
class Split:
    """A data set's rows, split; the training rows are not among them.

    Attributes:
        heldout, validation: bounded by `data.eval_limit`, or MOST_HELD.
        sample: SAMPLE training records at most.
        n: training records.
        chosen: of the training rows before validation, those that `data.limit` chose; None: all.
        report: the account of the training file's rows.
        told: what `data.json` says.
        key: all that decides the split.
    """

    heldout: list[Record]
    validation: list[Record]
    sample: list[Record]
    n: int
    chosen: np.ndarray | None
    report: DataReport
    told: dict[str, Any]
    key: dict[str, Any]


def split_of(recipe: Recipe, folder: Path | None, *, validation_share: float | None, salt: str) -> Split:
    """The rows of `recipe`, read once and split as `read_split` and validation split them.

    Args:
        folder: of prepared data; what was found is kept there, and found again. None: nothing is kept.
        validation_share, salt: of the training conversations what validation takes, and how.

    Raises:
        ConfigError: no record is held out.
    """
    options = recipe.data
    source = functools.partial(source_key, version=options.version, folder=folder)
    key = {
        "layout": LAYOUT,
        "train": source(options.train),
        "eval": None if options.eval is None else source(options.eval),
        "how": _how(recipe),
        "eval_share": options.eval_share,
        "limit": options.limit,
        "eval_limit": options.eval_limit,
        "validation": [validation_share, salt],
    }
    if folder is None:
        return _split(recipe, key)
    place = _named("split", key_folder(folder, key))
    if processes().is_main_process and _kept_split(place, key) is None:
        _keep_split(place, _split(recipe, key))
    processes().wait_for_everyone()
    found = _kept_split(place, key)
    if found is None:
        raise ConfigError(
            f"{place} is not there for every process; put the run folder on a disk that all of them share"
        )
    return found


def _how(recipe: Recipe) -> dict[str, Any]:
    options = recipe.data
    return {
        "format": options.format,
        "strict": options.strict,
        "domain_field": options.domain_column,
        "user_field": options.user_column,
    }


def _split(recipe: Recipe, key: Mapping[str, Any]) -> Split:
    options = recipe.data
    heldout = Smallest(options.eval_limit or MOST_HELD)
    validation = Smallest(min(options.eval_limit or MOST_HELD, MOST_HELD))
    sample = Smallest(SAMPLE)
    told: dict[str, Any] = {}
    inside = _conversations(recipe, heldout, told)
    chosen = None
    if options.limit is not None:
        candidates, at = Smallest(options.limit), 0
        for records, _ in stream_records(options.train, **_how(recipe)):
            for record in _training(recipe, records, inside):
                candidates.add(record, at)
                at += 1
        chosen = np.array(candidates.chosen(), dtype=np.int64)
    reports: list[DataReport] = []
    n = n_read = 0
    rows = _Limited(chosen)
    for records, report in stream_records(options.train, **_how(recipe)):
        reports.append(report)
        n_read += len(records)
        if inside is None:
            for record in records:
                if is_heldout(record.conversation, share=options.eval_share):
                    heldout.add(record)
        train = rows.of(_training(recipe, records, inside))
        for record in train:
            if _validates(key, record):
                validation.add(record)
            else:
                sample.add(record)
                n += 1
    report = DataReport.merged(reports)
    told["train"] = report.to_dict()
    if inside is not None:
        told["overlap_with_eval"] = n_read - rows.seen
    if not heldout.seen:
        raise ConfigError("no record is held out; raise data.eval_share or give data.eval")
    told["stream"] = {
        "train": n,
        "sample": min(SAMPLE, n),
        "heldout": {"of": heldout.seen, "kept": min(heldout.n, heldout.seen)},
        "validation": {"of": validation.seen, "kept": min(validation.n, validation.seen)},
        "notes": [*_bounded("held-out", heldout), *_bounded("validation", validation)],
    }
    return Split(heldout.chosen(), validation.chosen(), sample.chosen(), n, chosen, report, told, dict(key))


def _bounded(what: str, kept: Smallest) -> list[str]:
    if kept.seen <= kept.n:
        return []
    return [
        f"of {kept.seen:,} {what} records {kept.n:,} are kept, chosen by a hash of their texts; the others are neither "
        "trained nor evaluated on (data.eval_limit sets how many)"
    ]


def _conversations(recipe: Recipe, heldout: Smallest | None, told: dict[str, Any] | None) -> set[bytes] | None:
    """What `data.eval` has conversations of, hashed; None where it is not given."""
    if recipe.data.eval is None:
        return None
    found, reports = set(), []
    for records, report in stream_records(recipe.data.eval, **_how(recipe)):
        reports.append(report)
        for record in records:
            found.add(_hashed(record.conversation))
            if heldout is not None:
                heldout.add(record)
    if told is not None:
        told["eval"] = DataReport.merged(reports).to_dict()
    return found


def _hashed(conversation: str) -> bytes:
    return blake2b(conversation.encode("utf-8", "backslashreplace"), digest_size=12).digest()


def _training(recipe: Recipe, records: Sequence[Record], inside: Collection[bytes] | None) -> list[Record]:
    """Those of `records` that are not held out; a limit and validation take more of them."""
    if inside is None:
        return [r for r in records if not is_heldout(r.conversation, share=recipe.data.eval_share)]
    return [record for record in records if _hashed(record.conversation) not in inside]


def _validates(key: Mapping[str, Any], record: Record) -> bool:
    share, salt = key["validation"]
    return share is not None and is_heldout(record.conversation, share=share, salt=salt)


class _Limited:
    """Of rows that come a part at a time those whose numbers are in `chosen`, which ascends; all where it is None."""

    def __init__(self, chosen: np.ndarray | None) -> None:
        self.chosen, self.seen = chosen, 0

    def of(self, records: list[Record]) -> list[Record]:
        first, self.seen = self.seen, self.seen + len(records)
        if self.chosen is None:
            return records
        low, high = np.searchsorted(self.chosen, [first, self.seen])
        return [records[i - first] for i in self.chosen[low:high].tolist()]


# ------------------------------------------------------------------------------------------------------------ training


@dataclass
class Streamed:
    """The training records of a run, which are read again for every stage that is not prepared yet.

    Attributes:
        folder: of prepared data; None where nothing will be trained.
        designer: fitted objectives that score them.
    """

    recipe: Recipe
    split: Split
    folder: Path | None
    designer: DesignerObjectives | None = None
    store: ScoreStore | None = None
    _inside: set[bytes] | None = field(default=None, repr=False)
    _made: set[Path] = field(default_factory=set, repr=False)

    def fitted(self, designer: DesignerObjectives) -> "Streamed":
        """These rows, scored by `designer` after what it normalises by is fitted to all of them."""
        if not any(part.normalise != "none" and part.scale is None for part in designer.parts):
            return replace(self, designer=designer)
        if self.folder is None:
            return replace(self, designer=self._fit(designer))
        specs = [asdict(replace(part, scorer=None)) | {"scorer": repr(part.scorer)} for part in designer.parts]
        key = {"split": self.split.key, "parts": specs, "versions": [part.scorer.version for part in designer.parts]}
        path = _named("scales", key_folder(self.folder, key)).with_suffix(".json")
        if processes().is_main_process and (_unversioned(designer) or not path.exists()):
            write_json(path, [part.scale and asdict(part.scale) for part in self._fit(designer).parts])
        processes().wait_for_everyone()
        scales = [scale and Scale(**scale) for scale in json.loads(path.read_text(encoding="utf-8"))]
        parts = [replace(part, scale=scale) for part, scale in zip(designer.parts, scales, strict=True)]
        return replace(self, designer=replace(designer, parts=tuple(parts)))

    def _fit(self, designer: DesignerObjectives) -> DesignerObjectives:
        raw = [designer.raw_part(records, store=self.store) for records in self._rows()]
        return designer.fitted([np.concatenate(values) for values in zip(*raw, strict=True)])

    def examples(
        self,
        stage: Stage,
        tokenizer: Any,
        *,
        max_length: int,
        strict: bool = False,
        mismatched_seed: int | None = None,
        tokens: Collection[str] = (),
        show: Show | None = None,
    ) -> tuple[PreparedExamples, dict[str, DataReport]]:
        """The rows as `stage` trains on them, and the account of what its operators and the encoding did.

        They are tokenised by the main process where that was not done before; the others wait for it.

        Args:
            as of `unipref.recipes.stage.examples_of`.
            show: is told how many rows are tokenised.
        """
        names = sorted(set(tokens) & set(TOKEN_COLUMNS))
        options = self.recipe.data
        further = {
            "split": self.split.key,
            "objectives": None if self.designer is None else self.designer.describe(),
            "changes": [name for name, _ in changes(stage)],
        }
        key = prepared_key(
            self.split.key["train"],
            tokenizer,
            max_length=max_length,
            format=options.format,
            domain_field=options.domain_column,
            user_field=options.user_column,
            tokens=names,
            further=further,
        )
        place = _named("rows", key_folder(self.folder, key))
        facts = place.with_suffix(".json")
        if processes().is_main_process:
            if not facts.exists() or (_unversioned(self.designer) and place not in self._made):
                shutil.rmtree(place, ignore_errors=True)
            prepare(
                self._changed(stage, facts),
                tokenizer,
                place,
                key=key,
                max_length=max_length,
                strict=strict,
                tokens=names,
                progress=None if show is None else lambda done: show(done, self.split.n, {"doing": "tokenising"}),
            )
            self._made.add(place)
        processes().wait_for_everyone()
        data = open_prepared(place, key)
        if data is None:
            raise ConfigError(f"{place} is not there for every process; put the run folder on a disk that all share")
        told = json.loads(facts.read_text(encoding="utf-8"))
        mismatched = None
        if mismatched_seed is not None:
            others = Mismatched(data, seed=mismatched_seed, max_length=max_length, bos=tokenizer.bos_token_id)
            mismatched = PreparedExamples(others, Known(roles=frozenset({"response"})))
        reports = {name: DataReport.from_dict(values) for name, values in told["reports"].items()}
        examples = PreparedExamples(data, Known.from_dict(told["known"]), names, mismatched)
        return examples, {**reports, "encoding": data.report}

    def _rows(self) -> Iterator[list[Record]]:
        """The training records, some at a time, as they are read."""
        if self._inside is None:
            self._inside = _conversations(self.recipe, None, None)
        limited = _Limited(self.split.chosen)
        for records, _ in stream_records(self.recipe.data.train, **_how(self.recipe)):
            rows = limited.of(_training(self.recipe, records, self._inside))
            yield [record for record in rows if not _validates(self.split.key, record)]

    def _changed(self, stage: Stage, facts: Path) -> Iterator[tuple[list[Record], DataReport]]:
        """The records that `stage` trains on, some at a time; what is to be told of them is in `facts` at the end."""
        known = Known()
        reports: dict[str, list[DataReport]] = {name: [] for name, _ in changes(stage)}
        for records in self._rows():
            if self.designer is not None:
                records = self.designer.score_part(records, store=self.store)
            records, found = part_of(stage, records)
            for name, report in found.items():
                reports[name].append(report)
            known = known.joined(Known.of_records(records))
            yield records, DataReport(n_read=len(records), n_kept=len(records))
        merged = {name: DataReport.merged(parts).to_dict() for name, parts in reports.items()}
        write_json(facts, {"known": known.to_dict(), "reports": merged})


def _unversioned(designer: DesignerObjectives | None) -> bool:
    """Whether a scorer cannot say when its values change, so that what an earlier run kept may be out of date."""
    parts = () if designer is None else designer.parts
    return any(part.scorer.version is None and not isinstance(part.scorer, Column) for part in parts)


def part_of(stage: Stage, records: list[Record]) -> tuple[list[Record], dict[str, DataReport]]:
    """Some of the rows as `stage` trains on them: after its operators, in the form that its objective compares."""
    reports = {}
    for name, change in changes(stage):
        records, reports[name] = _in_part(stage, change, records)
    return records, reports


def kept_bytes(split: Split, scratch: Path) -> int:
    """What is kept of `split` on the disk; `scratch` is a folder for trying it."""
    _keep_split(scratch, split)
    return sum(path.stat().st_size for path in scratch.iterdir())


def _in_part(stage: Stage, change: Any, records: list[Record]) -> tuple[list[Record], DataReport]:
    """What `change` makes of some of the rows; where it makes nothing of these, others may still have something."""
    if change is not as_pairs:
        return change(records)
    for record in records:
        if not record.comparisons and [record.items[i].label is None for i in responses_of(record)] == [False]:
            raise ConfigError(
                f"{stage.label} compares two responses, and {record.id} is one response with a label: such rows are "
                "joined by their prompts, which takes all of them at once. Give rows with `chosen` and `rejected`, use "
                "a method for unpaired data such as kto, or set data.stream: false"
            )
    try:
        return as_pairs(records)
    except DataError as err:
        report = DataReport(n_read=len(records))
        for record in records:
            fault = RowFault("no pair can be made of it", str(err) if len(records) == 1 else "")
            report.drop(fault, source=record.source or record.id, line=record.line, strict=False)
        return [], report


# ------------------------------------------------------------------------------------------------------- what is kept


def _named(what: str, path: Path) -> Path:
    return path.with_name(f"{what}-{path.name}")


def _canonical(key: Any) -> str:
    return json.dumps(key, sort_keys=True, default=str)


def _keep_split(place: Path, split: Split) -> None:
    with writing_folder(place) as folder:
        for name in ("heldout", "validation", "sample"):
            write_text(folder / f"{name}.jsonl", "".join(_line(record) for record in getattr(split, name)))
        if split.chosen is not None:
            np.save(folder / "chosen.npy", split.chosen)
        told = {"n": split.n, "told": split.told, "report": split.report.to_dict(), "key": split.key}
        write_json(folder / "split.json", told)


def _kept_split(place: Path, key: Mapping[str, Any]) -> Split | None:
    """What `_keep_split` wrote; None where there is nothing, or something else."""
    try:
        kept = json.loads((place / "split.json").read_text(encoding="utf-8"))
        if _canonical(kept["key"]) != _canonical(key):
            return None
        parts = [
            [_record(json.loads(line)) for line in (place / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
            for name in ("heldout", "validation", "sample")
        ]
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    chosen = np.load(place / "chosen.npy") if (place / "chosen.npy").exists() else None
    return Split(*parts, kept["n"], chosen, DataReport.from_dict(kept["report"]), kept["told"], dict(key))


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"  # NaN stays NaN, and a lone surrogate is escaped


def _record(values: dict[str, Any]) -> Record:
    """The record that `_line` wrote."""
    items = tuple(
        Item(
            **{
                **item,
                "context": _text(item["context"]),
                "response": _text(item["response"]),
                "response_ids": None if item["response_ids"] is None else tuple(item["response_ids"]),
                "spans": tuple(Span(**span) for span in item["spans"]),
            }
        )
        for item in values["items"]
    )
    comparisons = tuple(Comparison(**each) for each in values["comparisons"])
    return Record(**{**values, "items": items, "comparisons": comparisons})


def _text(value: str | list[dict[str, str]]) -> Text:
    return value if isinstance(value, str) else tuple(Message(**turn) for turn in value)
