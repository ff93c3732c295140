"""What training on pairs did to probabilities on the way: three patterns that a loss curve does not show.

A pair's loss reads only the gap between its two responses. It falls just as well where both become less likely and the
rejected one faster, and where the probability goes to responses that nobody compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["dynamics", "log_gradient_ratio"]

# Chosen by us, as the paper gives none.
_DROP = 5.0  # times as fast as the chosen response moves, the rejected one falls
_CLEAR = 4.0  # standard errors from 0 before a slope has a sign
_WINDOW = 8  # logged steps at least
_UNSEEN = 5  # evaluations at least
_CERTAIN = math.log(0.5)  # a chosen response likelier than not has nowhere to rise: all others must fall, and do in SFT

_REMEDY = (
    "arXiv:2406.07327 has two remedies: `flex_dpo`, with a smaller beta for the rejected side, and `dpo_sft`, which "
    "keeps the chosen one likely"
)
_MESSAGES = {
    "drastic_drop": (
        "between steps {start:g} and {end:g} rejected responses fell {times} as fast as chosen ones moved: what is "
        "learned there is mostly what to avoid"
    ),
    "degradation": (
        "between steps {start:g} and {end:g} chosen responses became less likely while margins grew: rejected ones "
        "only fell faster"
    ),
    "dispersion": (
        "between steps {start:g} and {end:g} chosen and rejected responses fell and responses that training does not "
        "compare rose: the probability goes where no preference points"
    ),
}


def log_gradient_ratio(logp_chosen: np.ndarray, logp_rejected: np.ndarray) -> np.ndarray:
    """ln of |d loss / d pi_rejected| / |d loss / d pi_chosen|, which is logp_chosen - logp_rejected.

    Of DPO's loss, and of any that reads only the gap of two log-probabilities with one beta. It is of gradients with
    respect to *probabilities*: the less likely the rejected response already is, the harder it is pushed on. With
    respect to log-probabilities both are always equal, so that the two must not be compared. In nats, as the ratio of
    whole responses overflows.

    Source: arXiv:2406.07327, its property 1.
    """
    return np.asarray(logp_chosen, dtype=float) - np.asarray(logp_rejected, dtype=float)


def dynamics(rows: Sequence[Mapping[str, Any]], *, window: int | None = None) -> dict[str, Any]:
    """What the rows of `metrics.jsonl` say of the three patterns, for one run of one seed.

    The signs of slopes decide, and their ratio: drastic_drop where the rejected side falls more than five times as fast
    as the chosen one moves (unless that one is likelier than not already); degradation where the chosen side falls
    while the margin grows; dispersion where both sides fall and unseen responses rise. Each is looked for in windows
    that move along the run, else in the whole run, and counts where the slopes are four standard errors from 0, so that
    the noise of batches raises none.

    Implicit rewards (`rewards/chosen`, `rewards/rejected`) are read where they are logged, as the log-probability over
    the reference's varies less from batch to batch than the log-probability, and a common beta changes no sign and no
    ratio; else `logps/...`. Unseen responses are the column `logps/unseen`, or the held-out pairs where training was
    evaluated on the way.

    Source: the patterns are arXiv:2406.07327's; thresholds, windows and what counts as clear are ours.

    Args:
        rows: in the order of steps. window: logged steps; None: a third of the run, 8 at least.

    Returns:
        {"read": the columns, "n": logged steps, "log_gradient_ratio": {"first", "last"}: mean over the pairs of the
        first and last rows, nats, "flags": [{"code", "start", "end", "message", and the slopes per step "chosen",
        "rejected", "margin"}], "remedy": a sentence where there are flags, "why_not": one where nothing could be
        judged}.
    """
    columns = next(
        (
            names
            for names in (("rewards/chosen", "rewards/rejected"), ("logps/chosen", "logps/rejected"))
            if len(_series(rows, *names, "logps/chosen")) >= _WINDOW
        ),
        None,
    )
    logged = _series(rows, "logps/chosen", "logps/rejected")
    few = max(1, len(logged) // 10)
    ends = (logged[:few], logged[-few:]) if len(logged) else (np.full((1, 3), math.nan),) * 2
    ratio = [float(log_gradient_ratio(part[:, 1], part[:, 2]).mean()) for part in ends]
    found: dict[str, Any] = {
        "read": list(columns or ()),
        "n": len(logged),
        "log_gradient_ratio": dict(zip(("first", "last"), ratio, strict=True)),
        "flags": [],
    }
    if columns is None:
        return found | {"why_not": f"fewer than {_WINDOW} logged steps have both sides of pairs; log more often"}
    points = _series(rows, *columns, "logps/chosen")
    size = max(_WINDOW, len(points) // 3) if window is None else max(_WINDOW, window)
    windows = [points[i : i + size] for i in range(max(1, len(points) - size + 1))]
    spans, whole = [_Span.of(part) for part in windows], _Span.of(points)
    unseen = _unseen(rows)
    for code, holds in (
        ("drastic_drop", lambda span: span.drops),
        ("degradation", lambda span: span.degrades),
        ("dispersion", lambda span: span.falls and _rises(unseen, span)),
    ):
        hits = [span for span in spans if holds(span)] or [span for span in [whole] if holds(span)]
        if hits:
            found["flags"].append(_flag(code, hits))
    return found | ({"remedy": _REMEDY} if found["flags"] else {})


@dataclass(frozen=True)
class _Slope:
    value: float
    error: float

    @property
    def sign(self) -> int:
        """1 or -1 where it is clear, else 0."""
        return 0 if abs(self.value) <= _CLEAR * self.error else int(math.copysign(1, self.value))

    @classmethod
    def of(cls, steps: np.ndarray, values: np.ndarray) -> "_Slope":
        """Least squares; the error is 0 of points on a line."""
        t, v = steps - steps.mean(), values - values.mean()
        spread = float(t @ t)
        value = float(t @ v) / spread
        rest = v - value * t
        level = float(np.abs(values).max()) * 1e-12  # equal values differ by roundings
        return cls(value, max(math.sqrt(float(rest @ rest) / (len(t) - 2) / spread), level / math.sqrt(spread)))


@dataclass(frozen=True)
class _Span:
    start: float
    end: float
    chosen: _Slope
    rejected: _Slope
    margin: _Slope
    certain: bool

    @classmethod
    def of(cls, points: np.ndarray) -> "_Span":
        steps, chosen, rejected, logp = points.T
        slopes = [_Slope.of(steps, values) for values in (chosen, rejected, chosen - rejected)]
        return cls(float(steps[0]), float(steps[-1]), *slopes, bool(logp.mean() > _CERTAIN))

    @property
    def drops(self) -> bool:
        furthest = abs(self.chosen.value) + 2 * self.chosen.error
        return not self.certain and self.rejected.sign < 0 and self.rejected.value < -_DROP * furthest

    @property
    def degrades(self) -> bool:
        return self.chosen.sign < 0 < self.margin.sign

    @property
    def falls(self) -> bool:
        return self.chosen.sign < 0 and self.rejected.sign < 0


def _flag(code: str, hits: Sequence[_Span]) -> dict[str, Any]:
    worst = min(hits, key=lambda span: span.rejected.value if code == "drastic_drop" else span.chosen.value)
    start, end = min(span.start for span in hits), max(span.end for span in hits)
    pace = abs(worst.rejected.value) / max(abs(worst.chosen.value), 1e-300)
    times = f"{pace:.1f} times" if pace < 100 else "over 100 times"
    return {
        "code": code,
        "start": start,
        "end": end,
        "message": _MESSAGES[code].format(start=start, end=end, times=times),
        "chosen": worst.chosen.value,
        "rejected": worst.rejected.value,
        "margin": worst.margin.value,
    }


def _series(rows: Sequence[Mapping[str, Any]], *names: str) -> np.ndarray:
    """(N, 1 + names) step and values of the rows that have all of them."""
    kept = [[row["step"], *(row[name] for name in names)] for row in rows if all(_finite(row.get(n)) for n in names)]
    return np.array(kept, dtype=float).reshape(-1, 1 + len(names))


def _unseen(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(N, 2) step and mean log-probability of responses that training does not compare."""
    own = _series(rows, "logps/unseen")
    if len(own):
        return own
    heldout = _series(rows, "eval_logps/chosen", "eval_logps/rejected")
    return np.stack([heldout[:, 0], heldout[:, 1:].mean(axis=1)], axis=1)


def _rises(unseen: np.ndarray, span: _Span) -> bool:
    inside = unseen[(unseen[:, 0] >= span.start) & (unseen[:, 0] <= span.end)]
    return len(inside) >= _UNSEEN and _Slope.of(inside[:, 0], inside[:, 1]).sign > 0


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
