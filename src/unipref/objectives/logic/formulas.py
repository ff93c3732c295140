"""Formulas over what models say, as frozen dataclasses whose repr is the formula, and their truth tables.

A truth table over n propositions is an integer of 2^n bits, a row a bit. Row 0, the lowest, has every proposition
true; the last proposition changes fastest. For (w, l) the rows are TT, TF, FT, FF.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unipref.core.errors import ConfigError

__all__ = [
    "FALSE",
    "MOST",
    "TRUE",
    "And",
    "Constant",
    "Formula",
    "Implies",
    "M",
    "Not",
    "Or",
    "Proposition",
    "Ref",
    "implies",
    "ordered",
    "table",
    "world",
]

MOST = 12  # propositions in one formula: 4,096 worlds


class Formula(ABC):
    """Base of the formulas: `a & b`, `a | b`, `~a`, `implies(a, b)`. Equality is of the written form."""

    _binds = 3  # as strongly as Python's own operators do: | 0, & 1, ~ 2

    def __and__(self, other: "Formula") -> "And":
        return And(self, other)

    def __or__(self, other: "Formula") -> "Or":
        return Or(self, other)

    def __invert__(self) -> "Not":
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} is neither true nor false by itself; join formulas with & | ~, not with and, or, not"
        )

    @property
    def propositions(self) -> tuple["Proposition", ...]:
        """The propositions it names, each once: the policy's first, w before l."""
        return ordered(self._leaves())

    def _leaves(self) -> Iterator["Proposition"]:
        yield from ()

    @abstractmethod
    def _rows(self, rows: dict["Proposition", int], every: int) -> int:
        """Its truth table, where `rows` are those of the propositions and `every` has all bits set."""

    def _inside(self, part: "Formula", least: int) -> str:
        return repr(part) if part._binds >= least else f"({part!r})"


@dataclass(frozen=True)
class Constant(Formula):
    """True or false in every world."""

    value: bool

    def _rows(self, rows: dict["Proposition", int], every: int) -> int:
        return every if self.value else 0

    def __repr__(self) -> str:
        return "TRUE" if self.value else "FALSE"


TRUE, FALSE = Constant(True), Constant(False)


@dataclass(frozen=True)
class Proposition(Formula):
    """A model says a response; true with the probability that the model gives it. Made as `M` or `Ref`.

    Attributes:
        of: which response; "w" and "l" are the two sides of a pair.
        copy: 2, 3, ... is a further proposition with the same probability, independent of the first.
    """

    of: str
    copy: int = 1

    _letter = "q"

    @property
    def symbol(self) -> str:
        """How its probability is written, such as "p_w"; a second copy has one prime more: "p_w'"."""
        return f"{self._letter}_{self.of}" + "'" * (self.copy - 1)

    def _leaves(self) -> Iterator["Proposition"]:
        yield self

    def _rows(self, rows: dict["Proposition", int], every: int) -> int:
        return rows[self]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.of!r})"
            if self.copy == 1
            else f"{type(self).__name__}({self.of!r}, {self.copy})"
        )


class M(Proposition):
    """The policy says the response."""

    _letter = "p"


class Ref(Proposition):
    """The reference model says the response. Its probability carries no gradient."""

    _letter = "r"


@dataclass(frozen=True)
class Not(Formula):
    """`~part`"""

    part: Formula

    _binds = 2

    def _leaves(self) -> Iterator[Proposition]:
        yield from self.part._leaves()

    def _rows(self, rows: dict[Proposition, int], every: int) -> int:
        return every & ~self.part._rows(rows, every)

    def __repr__(self) -> str:
        return f"~{self._inside(self.part, 2)}"


@dataclass(frozen=True)
class _Pair(Formula):
    left: Formula
    right: Formula

    def _leaves(self) -> Iterator[Proposition]:
        yield from self.left._leaves()
        yield from self.right._leaves()


class And(_Pair):
    """`left & right`"""

    _binds = 1

    def _rows(self, rows: dict[Proposition, int], every: int) -> int:
        return self.left._rows(rows, every) & self.right._rows(rows, every)

    def __repr__(self) -> str:
        return f"{self._inside(self.left, 1)} & {self._inside(self.right, 2)}"


class Or(_Pair):
    """`left | right`"""

    _binds = 0

    def _rows(self, rows: dict[Proposition, int], every: int) -> int:
        return self.left._rows(rows, every) | self.right._rows(rows, every)

    def __repr__(self) -> str:
        return f"{self._inside(self.left, 0)} | {self._inside(self.right, 1)}"


class Implies(_Pair):
    """`implies(left, right)`: false only where `left` is true and `right` is not."""

    def _rows(self, rows: dict[Proposition, int], every: int) -> int:
        return every & ~self.left._rows(rows, every) | self.right._rows(rows, every)

    def __repr__(self) -> str:
        return f"implies({self.left!r}, {self.right!r})"


def implies(left: Formula, right: Formula) -> Implies:
    """The formula "if `left`, then `right`"."""
    return Implies(left, right)


def ordered(propositions: Iterable[Proposition]) -> tuple[Proposition, ...]:
    """The propositions, each once: the policy's before the reference's, first copies before second ones, w before l."""
    by_response = sorted(set(propositions), key=lambda p: p.of, reverse=True)
    return tuple(sorted(by_response, key=lambda p: (type(p).__name__, p.copy)))


def table(formula: Formula, propositions: Sequence[Proposition]) -> int:
    """The formula's truth table over `propositions`: bit r is 1 where it holds in row r.

    Raises:
        ConfigError: there are more than MOST propositions, or the formula names one that is not among them.
    """
    n = len(propositions)
    if n > MOST:
        raise ConfigError(f"{n} propositions make 2^{n} worlds, and all are looked at; at most {MOST} propositions")
    strangers = [p for p in formula.propositions if p not in propositions]
    if strangers:
        raise ConfigError(f"{formula!r} names {strangers}, which are not among the propositions {list(propositions)}")
    every = (1 << (1 << n)) - 1
    rows = {}
    for place, proposition in enumerate(propositions):
        run = 1 << (n - 1 - place)  # `run` rows true, `run` rows false, and so on
        rows[proposition] = ((1 << run) - 1) * (every // ((1 << 2 * run) - 1))
    return formula._rows(rows, every)


def world(row: int, propositions: Sequence[Proposition]) -> str:
    """A row of a truth table in words, such as "M('w') & ~M('l')"."""
    n = len(propositions)
    return " & ".join(f"{'~' if row >> (n - 1 - i) & 1 else ''}{p!r}" for i, p in enumerate(propositions)) or "TRUE"
