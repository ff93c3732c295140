"""Weighted model counting: the polynomial of a formula, its value in log space, and the formula of a polynomial.

Shapes: whatever the log-probabilities have; they broadcast.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from unipref.core.errors import ConfigError
from unipref.objectives.logic.formulas import FALSE, TRUE, Formula, Proposition, table, world
from unipref.objectives.scores import log1mexp

__all__ = ["Chance", "Complement", "Number", "Polynomial", "Product", "Sum", "count_worlds", "polynomial", "wmc"]


class Polynomial(ABC):
    """Base of the polynomials in probabilities: `p * q`, `p + q` and `1 - p`. The repr is the polynomial.

    Every one of them is the chance of an event. Factors are independent and summands exclude each other, so that
    products are "and", sums "or", and 1 - p "not"; `formula` says which event, and refuses what is none.
    """

    _binds = 2  # + 0, * 1

    def __mul__(self, other: "Polynomial") -> "Product":
        return Product(self, other)

    def __add__(self, other: "Polynomial") -> "Sum":
        return Sum(self, other)

    def __rsub__(self, one: int) -> "Complement":
        if one != 1:
            raise ConfigError(f"{one} - {self!r} is no probability; only 1 - p is")
        return Complement(self)

    @property
    @abstractmethod
    def formula(self) -> Formula:
        """The formula whose weighted model count this is.

        Raises:
            ConfigError: factors share a proposition, or two summands count the same world.
        """

    def log_value(self, log_probs: Mapping[Proposition, Tensor]) -> Tensor:
        """Its log, in nats; `log_probs` are at most 0."""
        known: dict[int, Tensor] = {}  # by identity: a decision diagram uses a node many times

        def of(node: "Polynomial") -> Tensor:
            if id(node) not in known:
                known[id(node)] = node._log(log_probs, of)
            return known[id(node)]

        return of(self)

    @abstractmethod
    def _log(self, log_probs: Mapping[Proposition, Tensor], of: Callable[["Polynomial"], Tensor]) -> Tensor:
        """Its log, where `of` gives the log of what it is made of."""

    def _inside(self, part: "Polynomial", least: int) -> str:
        return repr(part) if part._binds >= least else f"({part!r})"


@dataclass(frozen=True)
class Number(Polynomial):
    """0 or 1: what never happens, what always does."""

    value: int

    @property
    def formula(self) -> Formula:
        return TRUE if self.value else FALSE

    def _log(self, log_probs: Mapping[Proposition, Tensor], of: Callable[[Polynomial], Tensor]) -> Tensor:
        return torch.tensor(0.0 if self.value else -torch.inf)

    def __repr__(self) -> str:
        return str(self.value)


ZERO, ONE = Number(0), Number(1)


@dataclass(frozen=True)
class Chance(Polynomial):
    """The probability of a proposition."""

    that: Proposition

    @property
    def formula(self) -> Formula:
        return self.that

    def _log(self, log_probs: Mapping[Proposition, Tensor], of: Callable[[Polynomial], Tensor]) -> Tensor:
        try:
            return log_probs[self.that]
        except KeyError:
            given = ", ".join(map(repr, log_probs)) or "none"
            raise ConfigError(f"the count needs the log-probability of {self.that!r}; given are {given}") from None

    def __repr__(self) -> str:
        return self.that.symbol


@dataclass(frozen=True)
class Complement(Polynomial):
    """1 - part"""

    part: Polynomial

    _binds = 0

    @property
    def formula(self) -> Formula:
        return ~self.part.formula

    def _log(self, log_probs: Mapping[Proposition, Tensor], of: Callable[[Polynomial], Tensor]) -> Tensor:
        return log1mexp(of(self.part))

    def __repr__(self) -> str:
        return f"1 - {self._inside(self.part, 1)}"


@dataclass(frozen=True)
class _Pair(Polynomial):
    left: Polynomial
    right: Polynomial


class Product(_Pair):
    """left * right"""

    _binds = 1

    @property
    def formula(self) -> Formula:
        left, right = self.left.formula, self.right.formula
        shared = [p for p in left.propositions if p in right.propositions]
        if shared:
            again = f"{type(shared[0]).__name__}({shared[0].of!r}, {shared[0].copy + 1})"
            raise ConfigError(
                f"{self!r} is not multilinear: both factors have {shared[0]!r}; for a square, give the second factor a "
                f"copy of its own, {again}"
            )
        return left & right

    def _log(self, log_probs: Mapping[Proposition, Tensor], of: Callable[[Polynomial], Tensor]) -> Tensor:
        return of(self.left) + of(self.right)

    def __repr__(self) -> str:
        return f"{self._inside(self.left, 1)} * {self._inside(self.right, 1)}"


class Sum(_Pair):
    """left + right"""

    _binds = 0

    @property
    def formula(self) -> Formula:
        left, right = self.left.formula, self.right.formula
        propositions = (left | right).propositions
        twice = table(left, propositions) & table(right, propositions)
        if twice:
            row = (twice & -twice).bit_length() - 1
            raise ConfigError(f"{self!r} is not disjoint: both summands count the world {world(row, propositions)}")
        return left | right

    def _log(self, log_probs: Mapping[Proposition, Tensor], of: Callable[[Polynomial], Tensor]) -> Tensor:
        return torch.logaddexp(of(self.left), of(self.right))

    def __repr__(self) -> str:
        return f"{self.left!r} + {self._inside(self.right, 1)}"


@lru_cache(maxsize=4096)
def count_worlds(formula: Formula) -> Polynomial:
    """The weighted model count of `formula`, exact: what its worlds' weights add up to.

    The truth table is split proposition by proposition (an ordered decision diagram). One on which nothing depends is
    not in the result at all, so it changes neither the value nor the gradient, not even by a rounding.

    Raises:
        ConfigError: it has more than 12 propositions.

    Example:
        >>> from unipref.objectives.logic import M
        >>> count_worlds(M("w") & ~M("l")), count_worlds(M("w") | M("l"))
        (p_w * (1 - p_l), p_w + (1 - p_w) * p_l)
    """
    return polynomial(table(formula, formula.propositions), formula.propositions)


def polynomial(rows: int, propositions: Sequence[Proposition]) -> Polynomial:
    """The polynomial of the truth table `rows` over `propositions`; see `count_worlds`."""
    weights = [(p, 1 - p) for p in map(Chance, propositions)]
    known: dict[tuple[int, int], Polynomial] = {}

    def split(rows: int, place: int) -> Polynomial:
        size = 1 << (len(propositions) - place)
        if rows in (0, (1 << size) - 1):
            return ONE if rows else ZERO
        if (rows, place) not in known:
            half = size // 2
            holds, fails = rows & ((1 << half) - 1), rows >> half
            if holds == fails:
                return split(holds, place + 1)
            branches = zip(weights[place], (split(holds, place + 1), split(fails, place + 1)), strict=True)
            parts = [weight if rest is ONE else weight * rest for weight, rest in branches if rest is not ZERO]
            known[rows, place] = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return known[rows, place]

    return split(rows, 0)


def wmc(formula: Formula, log_probs: Mapping[Proposition, Tensor]) -> Tensor:
    """Log of the weighted model count of `formula`: how likely it is when its propositions are independent.

    Sum over the worlds where the formula holds of the product of p for what is true and 1 - p for what is not.

    Args:
        log_probs: log-probability of each proposition, at most 0, nats. Those that the formula does not name only
            take part in the shape.

    Returns:
        The shape that `log_probs` broadcast to; at most 0, -inf for what no world satisfies.

    Raises:
        ConfigError: a log-probability is missing, or the formula has more than 12 propositions.

    Source: arXiv:2412.17696, weighted model counting; 1 - p is taken in log space, without cancellation.

    Example:
        >>> from unipref.objectives.logic import M
        >>> half = torch.tensor([0.5]).log()
        >>> wmc(M("w") | M("l"), {M("w"): half, M("l"): half}).exp()
        tensor([0.7500])
    """
    value = count_worlds(formula).log_value(log_probs)
    if not log_probs:
        return value
    some = next(iter(log_probs.values()))
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in log_probs.values()))
    return value.to(some).expand(shape) if value.ndim == 0 else value.expand(shape)
