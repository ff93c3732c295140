"""Terms and objectives: seven slots make a term, a sum of terms makes an objective.

Shapes: I items, N rows of a term (items for points, pairs for pairs, records for groups).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Union

import torch
from torch import Tensor

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import Link, Regression, linear, logistic
from unipref.objectives.lists import ListLoss
from unipref.objectives.parts import Part, exact
from unipref.objectives.scores import log_ratio, mean_logp, sequence, sides
from unipref.objectives.states import State
from unipref.objectives.statistics import kl_baseline
from unipref.objectives.targets import labels
from unipref.objectives.units import Unit, group, pair, point
from unipref.objectives.weights import exp_advantage, one

__all__ = [
    "COMPUTED",
    "HEADS",
    "ROLES",
    "Loss",
    "Objective",
    "Term",
    "as_objective",
    "groupwise",
    "nll",
    "pairwise",
    "pointwise",
]

ROLES = ("preference", "anchor", "auxiliary", "state")
HEADS = (
    "value",
    "step_value",
    "reward_head",
    "degree_head",
    "reward_mask",
    "kl_mask",
)  # columns that a trained head gives
COMPUTED = ("kl", "reverse_kl")  # columns per token that the engine computes against a live reference
_LABELS, _ONE, _LOGISTIC, _LINEAR, _MEAN_LOGP, _GROUP = labels(), one(), logistic(), linear(), mean_logp(), group()


@dataclass(frozen=True, repr=False)
class Term(Part):
    """One term of an objective.

    Attributes:
        name: what the log calls it.
        score: a number per response.
        unit: what is compared.
        discrepancy: how far the contrast is from its target.
        offset: what is added before that.
        target: what the contrast should be.
        weight: objective weights; detached, not in the denominator.
        coefficient: how much the term counts, times `schedule` of the clock where there is one.
        role: one of ROLES. "state" terms train something other than the policy.
    """

    name: str
    score: Part
    unit: Unit
    discrepancy: Link | Regression | ListLoss
    offset: tuple[Part, ...] = ()
    target: Part = _LABELS
    weight: Part = _ONE
    coefficient: float = 1.0
    schedule: Part | None = None
    role: str = "preference"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"a term has no role {self.role!r}{nearest(self.role, ROLES)}")

    @property
    def needs(self) -> frozenset[str]:
        """Columns per item that the term cannot do without, besides "logp"."""
        return frozenset(name for part in self.walk() for name in part.reads)

    @property
    def token_needs(self) -> frozenset[str]:
        """Columns per token that the term cannot do without; "logp" among them."""
        return frozenset(name for part in self.walk() for name in part.token_reads)

    @property
    def statistics(self) -> tuple[kl_baseline, ...]:
        """The statistics that must be in the batch, each once."""
        return tuple(dict.fromkeys(part for part in self.walk() if isinstance(part, kl_baseline)))

    @property
    def states(self) -> tuple[State, ...]:
        """The states whose values must be in the batch, each once."""
        return tuple(dict.fromkeys(part for part in self.walk() if isinstance(part, State)))

    def coefficient_at(self, clock: Clock) -> float:
        """The coefficient when the run stands at `clock`."""
        return self.coefficient * (1.0 if self.schedule is None else self.schedule(clock))

    def rows(self, batch: Batch) -> Tensor:
        """(N,) example weights; 0 for rows that do not count, such as those with a missing reward."""
        weight = self.unit.weight(batch)
        for name in self._observed:
            missing = batch.item(name).isnan()
            missing = missing.any(dim=1) if missing.ndim == 2 else missing  # a vector counts where it is whole
            weight = weight * self.unit.holds(~missing, batch)
        return weight

    @cached_property
    def _observed(self) -> tuple[str, ...]:
        slots = (self.score, self.target, self.weight)  # not the offset: without one the row keeps its plain loss
        return tuple(sorted({name for slot in slots for part in slot.walk() for name in part.observed}))

    def values(self, batch: Batch) -> Tensor:
        """(N,) losses of the rows, with objective weights and without example weights."""
        z, back = self._contrasts(batch)
        shifts = [offset(batch, self.unit) for offset in self.offset if offset.flips]
        if shifts:
            z, back = z + sum(shifts), None if back is None else back - sum(shifts)
        extra = sum((offset(batch, self.unit) for offset in self.offset if not offset.flips), 0.0)
        target, weight = self.target(batch, self.unit), self.weight(batch, self.unit)
        if back is None:
            return self.discrepancy.between(z, target, extra, weight)
        return self.discrepancy.between(z, target, extra, weight, back)

    def _contrasts(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """(N,) the contrast, and that of the swapped pair where it is not the negative."""
        if isinstance(self.score, sides):
            if not isinstance(self.unit, pair):
                raise ConfigError(f"the term {self.name!r} scores the sides of a pair apart; its unit must be a pair")
            up, down = self.score.chosen(batch), self.score.rejected(batch)
            return self.unit.across(up, down, batch), self.unit.across(up, down, batch, swapped=True)
        values = self.score(batch).nan_to_num() if self.score.observed else self.score(batch)
        z = self.unit.contrast(values, batch)
        return z, self.unit.reverse(values, batch) if self.unit.asymmetric else None

    def numerator(self, batch: Batch) -> Tensor:
        """0-d: the sum of the rows' losses by example weight."""
        values = self.values(batch)
        return (self.rows(batch).to(values.dtype) * values).sum()

    def denominator(self, batch: Batch) -> Tensor:
        """0-d float64, from data only: the sum of example weights, times tokens where the unit counts tokens."""
        return (exact(self.rows(batch)) * self.unit.size(batch)).sum()

    def __call__(self, **fields: Tensor) -> Tensor:
        """The loss of the objective that has this one term; see `Objective.__call__`."""
        return Objective((self,))(**fields)

    def __add__(self, other: Union["Term", "Objective"]) -> "Objective":
        return as_objective(self) + other

    def __mul__(self, factor: float) -> "Term":
        return replace(self, coefficient=self.coefficient * float(factor))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        kinds = {pair: "pairwise", point: "pointwise", group: "groupwise"}
        kind = "groupwise" if isinstance(self.unit, group) else kinds.get(type(self.unit))
        if kind is None:
            return super().__repr__()
        arguments = [repr(self.name), f"score={self.score!r}"]
        if kind == "groupwise" and self.unit != _GROUP:
            arguments.append(f"unit={self.unit!r}")
        if isinstance(self.unit, point):
            arguments += [
                f"{slot}={v!r}"
                for slot, v, plain in (("of", self.unit.of, "all"), ("per", self.unit.per, "response"))
                if v != plain
            ]
        for slot, plain in (
            ("offset", ()),
            ("target", _LABELS),
            ("discrepancy", None),
            ("weight", _ONE),
            ("schedule", None),
            ("role", "preference"),
        ):
            value = getattr(self, slot)
            if value != plain:
                arguments.append(f"{'link' if slot == 'discrepancy' else slot}={value!r}")
        prefix = "" if self.coefficient == 1 else f"{self.coefficient!r} * "
        return f"{prefix}{kind}({', '.join(arguments)})"


def pairwise(
    name: str = "pairwise",
    *,
    score: Part,
    link: Link | Regression = _LOGISTIC,
    offset: tuple[Part, ...] = (),
    target: Part = _LABELS,
    weight: Part = _ONE,
    schedule: Part | None = None,
    role: str = "preference",
) -> Term:
    """A term on the difference of two responses' scores.

    Example:
        >>> pairwise("dpo", score=log_ratio(0.1), link=logistic())
        pairwise('dpo', score=log_ratio(0.1), link=logistic())
    """
    return Term(name, score, pair(), link, offset, target, weight, schedule=schedule, role=role)


def pointwise(
    name: str = "pointwise",
    *,
    score: Part,
    link: Link | Regression = _LINEAR,
    of: str = "all",
    per: str = "response",
    offset: tuple[Part, ...] = (),
    target: Part = _LABELS,
    weight: Part = _ONE,
    schedule: Part | None = None,
    role: str = "preference",
) -> Term:
    """A term on single responses; `of` and `per` as in `units.point`."""
    return Term(name, score, point(of, per), link, offset, target, weight, schedule=schedule, role=role)


def groupwise(
    name: str = "groupwise",
    *,
    score: Part,
    link: ListLoss,
    unit: group = _GROUP,
    target: Part = _LABELS,
    offset: tuple[Part, ...] = (),
    weight: Part = _ONE,
    schedule: Part | None = None,
    role: str = "preference",
) -> Term:
    """A term on all responses of a record together; `link` and `unit` are of `unipref.objectives.lists`."""
    return Term(name, score, unit, link, offset, target, weight, schedule=schedule, role=role)


def nll(name: str = "nll", *, of: str = "preferred", score: Part = _MEAN_LOGP, per: str = "response") -> Term:
    """Negative log-likelihood of the chosen responses, an anchor; by default the mean over each response's tokens."""
    return pointwise(name, score=score, of=of, per=per, link=linear(), role="anchor")


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss: `total` (0-d, with gradient) and what each term adds to it (0-d, detached)."""

    total: Tensor
    terms: Mapping[str, Tensor]


@dataclass(frozen=True, repr=False)
class Objective(Part):
    """A sum of terms. Two terms of one name get numbers ("nll", "nll_2")."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError("an objective needs at least one term")
        named: dict[str, Term] = {}
        for term in self.terms:
            name, n = term.name, 1
            while name in named:
                n += 1
                name = f"{term.name}_{n}"
            named[name] = term if name == term.name else replace(term, name=name)
        object.__setattr__(self, "terms", tuple(named.values()))

    @property
    def needs(self) -> frozenset[str]:
        """Columns per response that the objective cannot do without, besides "logp"."""
        return frozenset().union(*(term.needs for term in self.terms))

    @property
    def token_needs(self) -> frozenset[str]:
        """Columns per token that the objective cannot do without; empty where sums per response are enough."""
        return frozenset().union(*(term.token_needs for term in self.terms))

    @property
    def reads_logp(self) -> bool:
        """Whether anything needs the policy's log-probabilities; what trains a reward head alone does not."""
        return any(part.reads_logp for term in self.terms for part in term.walk())

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles besides "response" that some item of the data must have."""
        return tuple(dict.fromkeys(role for t in self.terms for part in t.walk() for role in part.roles))

    @property
    def unit_needs(self) -> str:
        """ "pair" where two responses are compared, "group" where a record's responses are, else "point"."""
        if any(term.unit.compares for term in self.terms):
            return "pair"
        return "group" if any(isinstance(term.unit, group) for term in self.terms) else "point"

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads that the wrapped model must have, of HEADS."""
        return tuple(sorted(set(HEADS) & (self.needs | self.token_needs)))

    @property
    def computed(self) -> tuple[str, ...]:
        """What the engine must compute per token besides log-probabilities, of COMPUTED."""
        return tuple(sorted(set(COMPUTED) & self.token_needs))

    @property
    def states(self) -> tuple[State, ...]:
        """What must be kept from step to step, each once."""
        return tuple(dict.fromkeys(state for term in self.terms for state in term.states))

    @property
    def coupling(self) -> str:
        """What ties the rows of a step together: "none", a "statistic" or state taken first, or "full"."""
        if any(part.couples for term in self.terms for part in term.walk()):
            return "full"
        return "statistic" if self.statistics or self.states else "none"

    @property
    def statistics(self) -> tuple[kl_baseline, ...]:
        """Statistics over mismatched responses that must be in the batch, each once."""
        return tuple(dict.fromkeys(s for term in self.terms for s in term.statistics))

    def denominators(self, batch: Batch) -> dict[str, Tensor]:
        """0-d float64 per term, from data only; a step's global denominator is the sum over its batches."""
        return {term.name: term.denominator(batch) for term in self.terms}

    def loss(self, batch: Batch, denominators: Mapping[str, Tensor] | None = None) -> Loss:
        """The loss over `batch`.

        A term whose coefficient is 0 at the batch's clock is left out, gradient and all (where no term is left, the
        total has no gradient); one whose denominator is 0 is 0. With the global `denominators` of a step, losses of its
        batches add up to the loss of the step.

        Raises:
            ConfigError: a column, the pairs or a statistic is missing.
        """
        parts: dict[str, Tensor] = {}
        for term in self.terms:
            coefficient = term.coefficient_at(batch.clock)
            if coefficient != 0:
                denominator = term.denominator(batch) if denominators is None else denominators[term.name]
                parts[term.name] = coefficient * _ratio(term.numerator(batch), denominator)
        zero = torch.zeros((), device=next(iter(batch.items.values())).device)
        total = sum(parts.values(), zero)
        return Loss(total, {term.name: parts.get(term.name, zero).detach() for term in self.terms})

    def __call__(self, *, clock: Clock | None = None, **fields: Tensor) -> Tensor:
        """0-d loss of flat fields, for a loop of one's own.

        Fields: logp_chosen, logp_rejected, ref_logp_chosen, ... each (P,), for pairs; logp, label, ... each (I,), for
        single responses; see `Batch.from_fields`. Without a clock the run stands at its start, where a gated term such
        as UPO's auxiliary one is still closed.

        Example:
            >>> from unipref.objectives import dpo
            >>> loss = dpo(beta=0.1)(logp_chosen=torch.tensor([-1.0]), logp_rejected=torch.tensor([-21.0]),
            ...                      ref_logp_chosen=torch.tensor([-1.0]), ref_logp_rejected=torch.tensor([-1.0]))
            >>> round(loss.item(), 6)  # ln(1 + e^-2)
            0.126928
        """
        return self.loss(Batch.from_fields(clock=clock, **fields)).total

    @property
    def trains_reward(self) -> bool:
        """Whether what it prefers by is the "reward_head" alone, so that a reward model is trained and no policy."""
        read = {name for part in self._first().score.walk() for name in (*part.reads, *part.token_reads)}
        return read == {"reward_head"}

    def _first(self) -> Term:
        """The first preference term, or the first that is no state's own where there is none."""
        policy = [term for term in self.terms if term.role != "state"]
        return next((t for t in policy if t.role == "preference"), (policy or self.terms)[0])

    @torch.no_grad()
    def implicit_reward(self, batch: Batch) -> Tensor:
        """(I,) the score of the first preference term (of the first term that reads log-probs where there is none)."""
        score = self._first().score(batch).detach()
        return score if score.ndim == 1 else score.sum(1)  # a score per segment adds up to that of the response

    def diagnostics(self, batch: Batch, denominators: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """0-d numbers that say whether the auxiliary term has any say; empty where there is none.

        "upo/gradient_ratio": norm of the auxiliary terms' gradient in the responses' log-probs over the same of the
        preference terms (of the anchors where there is none), coefficients applied, on this batch; 0 while the gate is
        closed. "upo/gradient_ratio_ungated": the same as if the gate were open. "upo/ess", "upo/advantage",
        "upo/capped": see `exp_advantage.summary`. NaN where a number does not exist.
        """
        auxiliary = [term for term in self.terms if term.role == "auxiliary"]
        if not auxiliary:
            return {}
        base = [t for t in self.terms if t.role == "preference"] or [t for t in self.terms if t.role == "anchor"]
        leaf = batch.item("logp").detach().clone().requires_grad_()
        held = replace(batch, items={**batch.items, "logp": leaf})
        found = {}
        for name, at in (("gradient_ratio", batch.clock), ("gradient_ratio_ungated", None)):
            norms = []
            for terms in (auxiliary, base):
                gradient = exact(torch.zeros_like(leaf, requires_grad=False))
                for term in terms:
                    coefficient = term.coefficient if at is None else term.coefficient_at(at)
                    denominator = term.denominator(held) if denominators is None else denominators[term.name]
                    with torch.enable_grad():
                        part = coefficient * _ratio(term.numerator(held), denominator)
                    gradient += torch.autograd.grad(part, leaf)[0]
                norms.append(gradient.norm())
            found[f"upo/{name}"] = torch.where(norms[1] > 0, norms[0] / norms[1], torch.nan)
        for term in auxiliary:
            if isinstance(term.weight, exp_advantage):
                summary = term.weight.summary(batch, term.unit, term.rows(batch))
                found |= {f"upo/{name}": value for name, value in summary.items()}
        return found

    def with_references(self, references: Mapping[str, float]) -> "Objective":
        """The same objective with `references` (column -> weight) in place of the reference of every log-ratio.

        Raises:
            ConfigError: a part reads a reference otherwise, token by token or in a mixture of its own.
        """
        others = [part for part in self.walk() if not isinstance(part, sequence)]
        fixed = {n for part in others for n in (*part.reads, *part.token_reads) if n.startswith("ref_logp")}
        if fixed:
            raise ConfigError(
                f"a part of {self.terms[0].name} reads {', '.join(sorted(fixed))} by itself, not in a log-ratio; give "
                "the batch what it should read under that name"
            )

        def change(part: Part) -> Part:
            if isinstance(part, sequence) and part.references:
                return log_ratio(part.scale, references=references, eta=part.eta)
            return part

        return self.changed(change)

    def __add__(self, other: Union[Term, "Objective"]) -> "Objective":
        return Objective(self.terms + as_objective(other).terms)

    def __mul__(self, factor: float) -> "Objective":
        return Objective(tuple(factor * term for term in self.terms))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        shown = " + ".join(map(repr, self.terms))
        return shown if len(self.terms) > 1 else f"as_objective({shown})"


def as_objective(objective: Term | Objective) -> Objective:
    """A term as the objective that has only it; an objective as it is.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(objective, Term):
        return Objective((objective,))
    if isinstance(objective, Objective):
        return objective
    raise ConfigError(f"an objective is a Term or a sum of terms, not {type(objective).__name__}; call the method")


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    some = denominator > 0
    return numerator * torch.where(some, 1 / torch.where(some, denominator, 1.0), 0.0).to(numerator.dtype)
