"""Rows of an evaluation: what a run folder keeps of each held-out pair and each generation."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ShapeError
from unipref.core.records import Record, Text, plain_text

__all__ = [
    "conversations_of",
    "generation_rows",
    "margins_of",
    "mean_margins_of",
    "pair_rows",
    "raw_margins_of",
    "weights_of",
]

Rows = Sequence[Mapping[str, Any]]


def pair_rows(
    records: Sequence[Record],
    *,
    logp: Sequence[Sequence[np.ndarray]],
    ref_logp: Sequence[Sequence[np.ndarray]] | None,
    reward: Sequence[Sequence[float]] | None = None,
    aux: Collection[str] = (),
    seed: int | None = None,
) -> list[dict[str, Any]]:
    """One row per comparison of `records` that has a winner.

    A comparison at exactly 0.5 has none and is left out; below 0.5 the sides change places.

    Args:
        logp: per record and item the log-probs of the response's tokens under the policy, as `engine.score` gives
            them (nats).
        ref_logp: the same under the reference; None for a reward model, which has neither: of `logp` only the tokens
            count then.
        reward: of a reward model, per record and item its reward.
        aux: designer objectives; their scores are the items' columns of these names, missing where absent or NaN.
        seed: the training seed, where several are pooled.

    Returns:
        Rows with id, conversation, domain, weight, logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected
        (sums, nats; None for a reward model, whose rows have reward_chosen and reward_rejected, None where it gave
        none), len_chosen,
        len_rejected (tokens), words ([chosen, rejected]) and aux ({name: [chosen, rejected]}, None where missing).

    Raises:
        ShapeError: scores and records do not match.
    """
    given = {"logp": logp, "ref_logp": ref_logp, "reward": reward}
    for name, column in ((name, column) for name, column in given.items() if column is not None):
        if len(column) != len(records):
            raise ShapeError(f"{name} has {len(column)} entries for {len(records)} records")
        for record, values in zip(records, column, strict=True):
            if len(values) != len(record.items):
                raise ShapeError(f"{name} has {len(values)} values for the {len(record.items)} items of {record.id!r}")
    rows = []
    for at, (record, policy) in enumerate(zip(records, logp, strict=True)):
        for number, comparison in enumerate(record.comparisons):
            if comparison.preference == 0.5:
                continue
            chosen, rejected = comparison.winner, comparison.loser
            if comparison.preference < 0.5:
                chosen, rejected = rejected, chosen
            items = record.items[chosen], record.items[rejected]
            row = {
                "id": record.id if len(record.comparisons) == 1 else f"{record.id}/{number}",
                "conversation": record.conversation,
                "domain": record.domain,
                "weight": record.weight,
                "logp_chosen": None if ref_logp is None else _total(policy[chosen]),
                "logp_rejected": None if ref_logp is None else _total(policy[rejected]),
                "ref_logp_chosen": None if ref_logp is None else _total(ref_logp[at][chosen]),
                "ref_logp_rejected": None if ref_logp is None else _total(ref_logp[at][rejected]),
                "len_chosen": len(policy[chosen]),
                "len_rejected": len(policy[rejected]),
                "words": [len(plain_text(item.response).split()) for item in items],
                "aux": {name: [_known(item.columns.get(name, math.nan)) for item in items] for name in aux},
            }
            if reward is not None:
                row |= {"reward_chosen": _known(reward[at][chosen]), "reward_rejected": _known(reward[at][rejected])}
            rows.append(row if seed is None else {**row, "seed": seed})
    return rows


def generation_rows(
    records: Sequence[Record],
    samples: Sequence[Any],
    *,
    logp: Sequence[np.ndarray],
    ref_logp: Sequence[np.ndarray],
    aux: Mapping[str, Sequence[float]] | None = None,
    seed: int | None = None,
) -> list[dict[str, Any]]:
    """One row per sampled response.

    Args:
        records: those sampled for; the context is their first item's.
        samples: a `unipref.sampling.Sample` per record.
        logp, ref_logp: (tokens,) log-probs of each sample's tokens under policy and reference, nats.
        aux: designer scores by name, one per sample; NaN where a scorer had no opinion.

    Returns:
        Rows with id, conversation, prompt (the context as a reader should see it), text, n_tokens, stopped, logp,
        ref_logp (sums, nats) and aux ({name: score}, None where missing). Every prompt weighs the same.

    Raises:
        ShapeError: the arguments differ in length.
    """
    aux = aux or {}
    columns = {"records": records, "samples": samples, "logp": logp, "ref_logp": ref_logp, **aux}
    lengths = {name: len(values) for name, values in columns.items()}
    if len({*lengths.values()}) > 1:
        raise ShapeError(f"columns of generations differ in length: {lengths}")
    rows = []
    for i, (record, sample) in enumerate(zip(records, samples, strict=True)):
        row = {
            "id": record.id,
            "conversation": record.conversation,
            "prompt": _readable(record.items[0].context),
            "text": sample.text,
            "n_tokens": len(sample.ids),
            "stopped": sample.stopped,
            "logp": _total(logp[i]),
            "ref_logp": _total(ref_logp[i]),
            "aux": {name: _known(values[i]) for name, values in aux.items()},
        }
        rows.append(row if seed is None else {**row, "seed": seed})
    return rows


def weights_of(rows: Rows) -> list[float]:
    """Example weights; 1 where a row has none."""
    return [row.get("weight", 1.0) for row in rows]


def conversations_of(rows: Rows) -> list[str]:
    """The cluster of each row."""
    return [row["conversation"] for row in rows]


def margins_of(pairs: Rows) -> list[float]:
    """h_chosen - h_rejected with h = logp - ref_logp, nats; of a reward model the difference of its rewards."""

    def implicit_reward(row: Mapping[str, Any], side: str) -> float:
        if f"reward_{side}" in row:
            return math.nan if row[f"reward_{side}"] is None else row[f"reward_{side}"]
        return row[f"logp_{side}"] - row[f"ref_logp_{side}"]

    return [implicit_reward(row, "chosen") - implicit_reward(row, "rejected") for row in pairs]


def raw_margins_of(pairs: Rows) -> list[float | None]:
    """logp_chosen - logp_rejected, nats; None of a reward model."""
    return [None if row["logp_chosen"] is None else row["logp_chosen"] - row["logp_rejected"] for row in pairs]


def mean_margins_of(pairs: Rows) -> list[float | None]:
    """The same with log-probabilities per token."""
    return [
        None
        if row["logp_chosen"] is None
        else row["logp_chosen"] / row["len_chosen"] - row["logp_rejected"] / row["len_rejected"]
        for row in pairs
    ]


def _readable(context: Text) -> str:
    if isinstance(context, str):
        return context
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in context)


def _total(logps: np.ndarray) -> float:
    return float(np.asarray(logps, dtype=np.float64).sum())


def _known(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
