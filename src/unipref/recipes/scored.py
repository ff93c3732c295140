"""The job of `unipref reward score`: data with what a preference model says of it, as data that can be read again."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import DataError
from unipref.core.io import to_json, write_text
from unipref.core.records import Item, Record, as_written, plain_text
from unipref.core.statistics import sigmoid
from unipref.data.pairs import UNNAMED, Pairs
from unipref.recipes.reward import PLAINLY, STORE, Reading
from unipref.rewards import TextPreferenceModel
from unipref.store import FeatureStore

__all__ = ["score_data"]


def score_data(
    model: Path | str,
    source: str,
    output: Path,
    *,
    reading: Reading = PLAINLY,
    user: str | None = None,
    domain: str | None = None,
    column: str = "reward",
    relabel: bool = False,
) -> dict[str, Any]:
    """Write `source` to `output` as JSON lines that `align` reads, with what the model says; what was done, in numbers.

    A comparison gets `chosen_COLUMN` and `rejected_COLUMN`, the rewards of its sides, and `COLUMN_preference`, the
    model's probability that `chosen` is preferred. A response that is compared with nothing gets `COLUMN`.

    Args:
        user, domain: whose verdicts; None: of the user and domain that each row names.
        relabel: put the model's label in the place of the data's: the side it prefers becomes `chosen`, and
            `preference` its probability.

    Returns:
        {"written", "comparisons", "responses", "agreement": share of comparisons with a winner where the model says so
        too, an even verdict half, or None, "data": the account of the rows}.

    Raises:
        DataError: nothing in the source can be scored.
    """
    records, report = reading.records(source)
    whole = TextPreferenceModel.load(model, store=FeatureStore(Path(output).parent / STORE), records=records)
    compared = [record for record in records if record.comparisons]
    single = [
        (record, item)
        for record in records
        if not record.comparisons
        for item in record.items
        if item.role == "response" and plain_text(item.response).strip()
    ]
    if not compared and not single:
        raise DataError(f"{source} holds no response to score; give rows with responses")
    rows: list[dict[str, Any]] = []
    right: list[float] = []
    if compared:
        pairs = Pairs.of(compared)
        n = len(pairs)
        asked = {name: np.full(n, who, dtype=object) for name, who in (("user", user), ("domain", domain)) if who}
        logits, rewards = whole.verdicts(replace(pairs, **asked), records=records)
        places = [(record, k) for record in compared for k in range(len(record.comparisons))]
        for (record, k), name, logit, both in zip(places, pairs.ids, logits, rewards, strict=True):
            comparison = record.comparisons[k]
            if comparison.winner > comparison.loser:  # a pair's first side is the item that stands first
                logit, both = -logit, both[::-1]
            rows.append(_compared(record, k, str(name), float(logit), both, column, relabel=relabel))
            if comparison.preference != 0.5:
                right.append(0.5 * (1 + np.sign(logit * (comparison.preference - 0.5))))
    if single:
        values = whole.rewards(
            [plain_text(item.context) for _, item in single],
            [plain_text(item.response) for _, item in single],
            user=[user or record.user or UNNAMED for record, _ in single],
            domain=[domain or record.domain or UNNAMED for record, _ in single],
        )
        rows += [
            _alone(record, item, float(value), column) for (record, item), value in zip(single, values, strict=True)
        ]
    write_text(output, "".join(to_json(row) + "\n" for row in rows))
    return {
        "written": str(output),
        "comparisons": len(rows) - len(single),
        "responses": len(single),
        "agreement": float(np.mean(right)) if right else None,
        "data": report.to_dict(),
    }


def _compared(
    record: Record, k: int, name: str, logit: float, rewards: Iterable[float], column: str, *, relabel: bool
) -> dict[str, Any]:
    comparison = record.comparisons[k]
    chosen, rejected = record.items[comparison.winner], record.items[comparison.loser]
    up, down = map(float, rewards)
    preference = comparison.preference
    if relabel:
        if logit < 0:
            chosen, rejected, up, down, logit = rejected, chosen, down, up, -logit
        preference = float(sigmoid(logit))
    row: dict[str, Any] = {
        "id": name,
        "prompt": as_written(chosen.context),
        "chosen": as_written(chosen.response),
        "rejected": as_written(rejected.response),
        "preference": preference,
        f"chosen_{column}": up,
        f"rejected_{column}": down,
        f"{column}_preference": float(sigmoid(logit)),
    }
    return {**row, **_about(record), **({} if comparison.annotator is None else {"annotator": comparison.annotator})}


def _alone(record: Record, item: Item, value: float, column: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": record.id, "prompt": as_written(item.context), "completion": as_written(item.response)}
    if item.label is not None:
        row["label"] = item.label
    return {**row, column: value, **_about(record)}


def _about(record: Record) -> dict[str, Any]:
    told = {"user": record.user, "domain": record.domain}
    return {name: value for name, value in told.items() if value is not None}
