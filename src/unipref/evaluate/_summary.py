"""Numbers of a run and differences between runs, each [value, low, high] with a 95 % interval over conversations.

Several seeds: give the rows of all of them together (a "seed" entry per row). Means then run over prompts and seeds,
and the bootstrap still draws whole conversations, all seeds of a prompt at once. The intervals therefore say how the
numbers would vary over prompts for these trained models; how they vary over seeds is in `by_seed`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, nearest
from unipref.core.statistics import Interval, agreements, mean, mean_difference, wins
from unipref.evaluate._rows import conversations_of, margins_of, mean_margins_of, raw_margins_of, weights_of

__all__ = ["LENGTH_EDGES", "differences", "metrics_of", "summarise", "summarise_reference"]

LENGTH_EDGES = (0, 20, 40, 80)  # words; a bucket starts at each and the last is open

Rows = Sequence[Mapping[str, Any]]
Metrics = dict[str, tuple[int, Callable[[Rows], Sequence[float]], tuple[float, float] | None]]
_SHARE = (0.0, 1.0)


def summarise(
    pairs: Rows,
    generations: Rows,
    *,
    designer: Collection[str],
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """What `summary.json` says of one run, except its method, seeds, seconds, alarms and diagnostics.

    Args:
        pairs: rows of `pair_rows`, held out.
        generations: rows of `generation_rows`.
        designer: names of the designer objectives; every row's aux must have them.

    Returns:
        accuracy: share of pairs with implicit reward margin h_chosen - h_rejected > 0, h = logp - ref_logp, or of a
            reward model with a reward margin > 0; a tie counts half, and `ties` is their share.
        ranking_accuracy: share with logp_chosen > logp_rejected, no reference (arXiv:2405.19534), and
            ranking_accuracy_per_token with mean token log-probs. Ties count half there too (the paper counts them as
            right).
        margin: mean of h_chosen - h_rejected, nats.
        kl: mean of logp - ref_logp over generations, nats per response: an unbiased estimate of KL(policy, reference)
            where sampling was plain (temperature 1, top_p 1); it can be below 0 by chance. kl_per_token: the same per
            token drawn.
        length: tokens per generation; stopped: share that the model ended itself.
        drift: mean of logp - ref_logp on held-out chosen and rejected responses; drift_per_token per token.
        aux: per designer objective its mean on generations; `heldout`, the share of held-out pairs of different score
            where the implicit reward prefers the higher-scored side; `agreement`, the share of the same pairs where
            people did; `data_mean` of chosen and rejected; all by length; and how many scores were missing.
        n: pairs, generations, conversations.
        by_seed: accuracy and each objective's mean on generations, per seed.

    Raises:
        ConfigError: a row lacks the score of a designer objective.
    """
    _check_aux(pairs, generations, designer)
    settings = {"seed": seed, "resamples": resamples}

    def average(rows: Rows, value: Callable[[Mapping[str, Any]], Any], **more: Any) -> list[float | None]:
        return _mean(rows, [value(row) for row in rows], **settings, **more).as_list()

    result: dict[str, Any] = {
        "n": {
            "pairs": len(pairs),
            "generations": len(generations),
            "conversations": len({row["conversation"] for row in (*pairs, *generations)}),
        },
        **{
            name: _mean(pairs, column, bounds=_SHARE, **settings).as_list()
            for name, column in (
                ("accuracy", wins(margins_of(pairs))),
                ("ties", [float(margin == 0) for margin in margins_of(pairs)]),
                ("ranking_accuracy", wins(raw_margins_of(pairs))),
                ("ranking_accuracy_per_token", wins(mean_margins_of(pairs))),
            )
        },
        "margin": _mean(pairs, margins_of(pairs), **settings).as_list(),
        "kl": average(generations, lambda row: row["logp"] - row["ref_logp"]),
        "kl_per_token": _per_token(generations, "logp", "ref_logp", "n_tokens", **settings),
        "length": average(generations, lambda row: row["n_tokens"]),
        "stopped": average(generations, lambda row: float(row["stopped"]), bounds=_SHARE),
        "drift": {
            side: average(pairs, lambda row, side=side: _gap(row, f"logp_{side}", f"ref_logp_{side}"))
            for side in ("chosen", "rejected")
        },
        "drift_per_token": {
            side: _per_token(pairs, f"logp_{side}", f"ref_logp_{side}", f"len_{side}", **settings)
            for side in ("chosen", "rejected")
        },
        "aux": {name: _objective(name, pairs, generations, settings) for name in designer},
    }
    seeds = sorted({row["seed"] for row in (*pairs, *generations) if "seed" in row})
    result["by_seed"] = {str(number): _of_seed(number, pairs, generations, designer) for number in seeds}
    return result


def summarise_reference(
    pairs: Rows,
    generations: Rows,
    *,
    designer: Collection[str],
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """The un-aligned model's numbers, for `summary.json`'s `reference`.

    Args:
        pairs: rows of any run on the held-out pairs; only their reference columns are read.
        generations: rows of the reference model's own samples.

    Returns:
        Like `summarise`, without what compares a policy with its reference.
    """
    of_reference = [
        {**row, "logp_chosen": row["ref_logp_chosen"], "logp_rejected": row["ref_logp_rejected"]} for row in pairs
    ]
    full = summarise(of_reference, generations, designer=designer, seed=seed, resamples=resamples)
    against_itself = {
        "accuracy", "ties", "margin", "kl", "kl_per_token", "drift", "drift_per_token", "by_seed",
    }  # fmt: skip
    result = {name: value for name, value in full.items() if name not in against_itself}
    for objective in result["aux"].values():
        del objective["heldout"]
        for bucket in objective["by_length"]:
            del bucket["heldout"]
    return result


def differences(
    runs: Mapping[str, tuple[Rows, Rows]],
    controls: Mapping[str, str | Sequence[str]],
    *,
    designer: Collection[str],
    metrics: Metrics | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> list[dict[str, Any]]:
    """Differences run - control with paired bootstrap intervals: the same conversations are drawn for both.

    Args:
        runs: per run its pair rows and its generation rows.
        controls: per run the run, or runs, that it is compared with.
        metrics: as `metrics_of` gives them, which is what stands where none are given.

    Returns:
        One entry per comparison and metric: a, b, metric, value [a - b, low, high], n (rows of the smaller side) and
        conversations. Only conversations that both runs have a score of count, so where scores are missing the value
        is not the difference of the two means in `summarise`.
        Metrics: accuracy, ranking_accuracy, aux.NAME.generations, aux.NAME.heldout, kl, length.

    Raises:
        ConfigError: a name in `controls` is not a run.
    """
    entries = []
    for a, others in controls.items():
        for b in [others] if isinstance(others, str) else others:
            for name in (a, b):
                if name not in runs:
                    raise ConfigError(f"controls names the run {name!r}, which does not exist{nearest(name, runs)}")
            for metric, (which, column, bounds) in (metrics or metrics_of(designer)).items():
                left, right = runs[a][which], runs[b][which]
                difference = mean_difference(
                    column(left),
                    column(right),
                    weights=(weights_of(left), weights_of(right)),
                    clusters=(conversations_of(left), conversations_of(right)),
                    bounds=bounds,
                    seed=seed,
                    resamples=resamples,
                )
                counts = {"n": difference.n, "conversations": difference.clusters}
                entries.append({"a": a, "b": b, "metric": metric, "value": difference.as_list(), **counts})
    return entries


def metrics_of(designer: Collection[str]) -> Metrics:
    """Per metric: 0 for pairs or 1 for generations, its column, and the bounds of a difference."""
    share = (-1.0, 1.0)
    table: dict[str, Any] = {
        "accuracy": (0, lambda rows: wins(margins_of(rows)), share),
        "ranking_accuracy": (0, lambda rows: wins(raw_margins_of(rows)), share),
    }
    for name in designer:
        table[f"aux.{name}.generations"] = (1, lambda rows, name=name: [row["aux"][name] for row in rows], None)
        table[f"aux.{name}.heldout"] = (
            0,
            lambda rows, name=name: agreements(margins_of(rows), _gaps(rows, name)),
            share,
        )
    table["kl"] = (1, lambda rows: [row["logp"] - row["ref_logp"] for row in rows], None)
    table["length"] = (1, lambda rows: [float(row["n_tokens"]) for row in rows], None)
    return table


def _objective(name: str, pairs: Rows, generations: Rows, settings: Mapping[str, Any]) -> dict[str, Any]:
    def on_generations(rows: Rows) -> Interval:
        return _mean(rows, [row["aux"][name] for row in rows], **settings)

    def on_pairs(rows: Rows, margins: Callable[[Rows], Sequence[float]]) -> Interval:
        return _mean(rows, agreements(margins(rows), _gaps(rows, name)), bounds=_SHARE, **settings)

    def side_mean(side: int) -> list[float | None]:
        return _mean(pairs, [row["aux"][name][side] for row in pairs], **settings).as_list()

    buckets = []
    for low, high in zip(LENGTH_EDGES, (*LENGTH_EDGES[1:], None), strict=True):
        texts = [row for row in generations if _within(len(row["text"].split()), low, high)]
        sides = [row for row in pairs if _within(sum(row["words"]) / 2, low, high)]
        generated, heldout = on_generations(texts), on_pairs(sides, margins_of)
        buckets.append(
            {
                "words": [low, None if high is None else high - 1],
                "n": {"generations": generated.n, "heldout": heldout.n},
                "generations": generated.as_list(),
                "heldout": heldout.as_list(),
            }
        )
    return {
        "generations": on_generations(generations).as_list(),
        "heldout": on_pairs(pairs, margins_of).as_list(),
        "agreement": on_pairs(pairs, lambda rows: [1.0] * len(rows)).as_list(),
        "data_mean": {"chosen": side_mean(0), "rejected": side_mean(1)},
        "by_length": buckets,
        "missing": {
            "generations": sum(row["aux"][name] is None for row in generations),
            "heldout": sum(None in row["aux"][name] for row in pairs),
        },
    }


def _of_seed(number: int, pairs: Rows, generations: Rows, designer: Collection[str]) -> dict[str, Any]:
    pairs = [row for row in pairs if row.get("seed") == number]
    generations = [row for row in generations if row.get("seed") == number]

    def value(rows: Rows, column: Sequence[float]) -> float | None:
        return _mean(rows, column, seed=0, resamples=1).as_list()[0]

    return {
        "accuracy": value(pairs, wins(margins_of(pairs))),
        "aux": {name: value(generations, [row["aux"][name] for row in generations]) for name in designer},
    }


def _check_aux(pairs: Rows, generations: Rows, designer: Collection[str]) -> None:
    for kind, rows in (("pair", pairs), ("generation", generations)):
        for row in rows:
            for name in designer:
                if name not in row["aux"]:
                    raise ConfigError(
                        f"the {kind} row {row['id']!r} has no score {name!r}{nearest(name, row['aux'])}; "
                        "score every row with every designer objective, with None where one has no opinion"
                    )


def _mean(rows: Rows, column: Sequence[float], **settings: Any) -> Interval:
    return mean(column, weights=weights_of(rows), clusters=conversations_of(rows), **settings)


def _per_token(rows: Rows, logp: str, ref_logp: str, tokens: str, **settings: Any) -> list[float | None]:
    """Ratio of sums: a token counts once, whichever response it is in."""
    gaps = [_gap(row, logp, ref_logp) for row in rows]
    per_token = [
        None if gap is None or not row[tokens] else gap / row[tokens] for row, gap in zip(rows, gaps, strict=True)
    ]
    weights = [weight * row[tokens] for weight, row in zip(weights_of(rows), rows, strict=True)]
    return mean(per_token, weights=weights, clusters=conversations_of(rows), **settings).as_list()


def _gap(row: Mapping[str, Any], logp: str, ref_logp: str) -> float | None:
    """None of a reward model, whose rows have no log-probabilities."""
    return None if row[logp] is None else row[logp] - row[ref_logp]


def _gaps(rows: Rows, name: str) -> np.ndarray:
    sides = np.array([[np.nan if s is None else s for s in row["aux"][name]] for row in rows], dtype=np.float64)
    return sides[:, 0] - sides[:, 1] if len(rows) else np.zeros(0)


def _within(words: float, low: int, high: int | None) -> bool:
    return low <= words and (high is None or words < high)
