"""Preference structures: two formulas whose odds are a loss's log ratio, the named ones, and how they are ordered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from types import MappingProxyType

from torch import Tensor

from unipref.core.errors import ConfigError
from unipref.objectives.logic.counting import Polynomial, count_worlds, polynomial, wmc
from unipref.objectives.logic.formulas import FALSE, TRUE, Formula, M, Proposition, Ref, implies, ordered, table

__all__ = [
    "SINGLE_MODEL",
    "STRUCTURES",
    "Structure",
    "between",
    "decompile",
    "definable",
    "entails",
    "equivalent",
    "from_truth_table",
    "lattice",
]

_MARKS = ("·", "D", "N", "ND")  # by 2 * counted in the numerator + counted in the denominator


@dataclass(frozen=True)
class Structure:
    """A preference structure (P, P_C, P_A). Equality is of the written form; `equivalent` compares meanings.

    Attributes:
        core: P, what a good model should satisfy.
        condition: P_C, the worlds that are looked at.
        additive: P_A, the worlds that count for both sides, whatever P says.

    Source: arXiv:2412.17696, preference structures and their formula forms.
    """

    core: Formula
    condition: Formula = TRUE
    additive: Formula = FALSE

    @property
    def form(self) -> Formula:
        """(P or P_A) and P_C, whose count is the numerator of the ratio."""
        return (self.core | self.additive) & self.condition

    @property
    def negated(self) -> Formula:
        """(not P or P_A) and P_C, whose count is the denominator."""
        return (~self.core | self.additive) & self.condition

    @property
    def numerator(self) -> Polynomial:
        """The polynomial of `form`."""
        return self._fraction[0]

    @property
    def denominator(self) -> Polynomial:
        """The polynomial of `negated`."""
        return self._fraction[1]

    @cached_property
    def _fraction(self) -> tuple[Polynomial, Polynomial]:
        return count_worlds(self.form), count_worlds(self.negated)

    @cached_property
    def propositions(self) -> tuple[Proposition, ...]:
        """The propositions that it names."""
        return ordered((self.core & self.condition & self.additive).propositions)

    def log_ratio(self, log_probs: Mapping[Proposition, Tensor]) -> Tensor:
        """rho = log WMC(form) - log WMC(negated), in nats; `log_probs` and the shape as in `wmc`."""
        return wmc(self.form, log_probs) - wmc(self.negated, log_probs)

    def rows(self, propositions: Sequence[Proposition]) -> tuple[int, int]:
        """Truth tables of `form` and `negated` over `propositions`; see `formulas.table`."""
        return table(self.form, propositions), table(self.negated, propositions)

    def truth_table(self, propositions: Sequence[Proposition] | None = None) -> str:
        """A mark per world: N counts in the numerator, D in the denominator, ND in both, · in neither.

        Args:
            propositions: the worlds are theirs, all true first and the last changing fastest; by default those that
                the structure names.
        """
        over = self.propositions if propositions is None else tuple(propositions)
        top, bottom = self.rows(over)
        return ",".join(_MARKS[2 * (top >> row & 1) + (bottom >> row & 1)] for row in range(1 << len(over)))


def decompile(numerator: Polynomial, denominator: Polynomial) -> Structure:
    """The preference structure whose log ratio is log(numerator) - log(denominator).

    With F_t and F_b the formulas of the two (product is "and", sum "or", 1 - p "not"): core F_b -> F_t, condition
    F_t or F_b, additive F_t and F_b.

    Raises:
        ConfigError: factors share a proposition, or two summands count the same world.

    Source: arXiv:2412.17696, the translation and Prop. 3.

    Example:
        >>> from unipref.objectives.logic import Chance, M
        >>> p_w, p_l = Chance(M("w")), Chance(M("l"))
        >>> decompile(p_w, p_l)
        Structure(core=implies(M('l'), M('w')), condition=M('w') | M('l'), additive=M('w') & M('l'))
    """
    return _over(numerator.formula, denominator.formula)


def _over(top: Formula, bottom: Formula) -> Structure:
    """The structure with form `top` and negated form `bottom`."""
    return Structure(implies(bottom, top), top | bottom, top & bottom)


def from_truth_table(marks: str, propositions: Sequence[Proposition]) -> Structure:
    """The structure with the truth table `marks`, as `Structure.truth_table` writes it.

    Raises:
        ConfigError: a mark is unknown, or there is not one per world.
    """
    given = [mark.strip() for mark in marks.split(",")]
    wrong = [mark for mark in given if mark not in _MARKS]
    if wrong or len(given) != 1 << len(propositions):
        raise ConfigError(
            f"a truth table over {list(propositions)} has {1 << len(propositions)} of the marks {', '.join(_MARKS)}; "
            f"got {marks!r}"
        )
    code = [_MARKS.index(mark) for mark in given]
    top, bottom = (sum(1 << row for row, mark in enumerate(code) if mark & bit) for bit in (2, 1))
    return _from_rows(top, bottom, propositions)


def _from_rows(top: int, bottom: int, propositions: Sequence[Proposition]) -> Structure:
    return decompile(polynomial(top, propositions), polynomial(bottom, propositions))


def _over_both(a: Structure, b: Structure) -> tuple[tuple[Proposition, ...], tuple[int, int], tuple[int, int]]:
    over = ordered(a.propositions + b.propositions)
    return over, a.rows(over), b.rows(over)


def equivalent(a: Structure, b: Structure) -> bool:
    """Whether the two count the same worlds, so that every link makes the same loss of them."""
    _, left, right = _over_both(a, b)
    return left == right


def entails(a: Structure, b: Structure) -> bool:
    """Whether b counts what a counts for the winner, and a what b counts against it.

    Then rho_a <= rho_b for all probabilities, and a's loss is at least b's under every link that falls in rho, such as
    the logistic and the margin form (the squared form does not).

    Source: arXiv:2412.17696, entailment of structures.
    """
    _, (top_a, bottom_a), (top_b, bottom_b) = _over_both(a, b)
    return not (top_a & ~top_b) and not (bottom_b & ~bottom_a)


def between(a: Structure, b: Structure) -> Iterator[Structure]:
    """Every structure strictly between a and b, over the propositions that the two name, in the order of their rows.

    There are 2^k - 2 of them, where k is the number of worlds that b adds to the numerator plus the number that it
    takes from the denominator.

    Raises:
        ConfigError: a does not entail b.
    """
    if not entails(a, b):
        raise ConfigError(
            f"there is nothing between structures of which the first does not entail the second: {a}, {b}"
        )
    over, ends, other = _over_both(a, b)
    for top in _subsets(other[0] & ~ends[0]):
        for bottom in _subsets(ends[1] & ~other[1]):
            found = (ends[0] | top, ends[1] & ~bottom)
            if found not in (ends, other):
                yield _from_rows(*found, over)


def _subsets(rows: int) -> Iterator[int]:
    subset = 0
    while True:
        yield subset
        if subset == rows:
            return
        subset = (subset - rows) & rows  # the next one, in counting order


def definable(n: int) -> int:
    """How many losses n propositions define: pairs of a numerator and a denominator, 4^(2^n) of them."""
    return 4 ** (2**n)


def lattice(structures: Mapping[str, Structure] | None = None) -> frozenset[tuple[str, str]]:
    """The covering relation of entailment: (a, b) where a entails b and no third one stands between.

    Args:
        structures: by name; SINGLE_MODEL where it is None.

    Raises:
        ConfigError: two structures are equivalent, so that neither stands above the other.
    """
    found = SINGLE_MODEL if structures is None else structures
    below = {(a, b) for a, b in permutations(found, 2) if entails(found[a], found[b])}
    for a, b in sorted(below):
        if (b, a) in below:
            raise ConfigError(f"{a} and {b} are one structure under two names; give it once")
    return frozenset((a, b) for a, b in below if not any((a, c) in below and (c, b) in below for c in found))


_W, _L = M("w"), M("l")
_LIKES, _DISLIKES = _W & Ref("l"), Ref("w") & _L  # the policy has moved from the reference towards w; towards l

CE = Structure(_W)
CEUNL = Structure(_W & ~_L)
CPO = _over(_W, _L)
ORPO = Structure(implies(_L, _W), (_W | _L) & ~(_W & _L))
DPO = _over(_LIKES, _DISLIKES)
DPOP = _over(_LIKES & M("w", 2), _DISLIKES & Ref("w", 2))

SINGLE_MODEL: Mapping[str, Structure] = MappingProxyType(
    {
        "CEUnl": CEUNL,
        "CE": CE,
        "ORPO": ORPO,
        "CPO": CPO,
        **{
            name: from_truth_table(marks, (_W, _L))
            for name, marks in (
                ("cUnl", "D,N,D,·"),
                ("qfUnl", "·,N,D,ND"),
                ("fUnl", "D,N,D,N"),
                ("cfUnl", "·,N,D,N"),
                ("cCPO", "N,N,D,·"),
                ("unCPO", "N,N,D,N"),
            )
        },
    }
)
"""The losses of one model and one pair that the paper names.

Source: arXiv:2412.17696, truth-table view. The version read prints the condition of CE and CEUnl as false, which would
leave no world to count; it is true here. It prints CEUnl's denominator as p_l + (1 - p_w), which counts the world
where l is said and w is not twice; here it is 1 - p_w * (1 - p_l), the one that fits the truth table.
"""

STRUCTURES: Mapping[str, Structure] = MappingProxyType({**SINGLE_MODEL, "DPO": DPO, "SimPO": DPO, "DPOP": DPOP})
"""All named structures. SimPO is DPO's with a reference set by hand; see `symbolic`'s `manual`.

DPOP's ratio is that of the part of its loss where the penalty acts: lam = 1, chosen response below its reference.
"""
