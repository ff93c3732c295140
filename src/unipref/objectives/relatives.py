"""What an objective is made of, slot by slot, and which other methods are nearest and differ in what.

Nothing here is written by hand per method: distances are counted between the parts that the methods build.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any

from unipref.core.cards import REQUIRED, Card, get_method, list_methods
from unipref.objectives.parts import Part
from unipref.objectives.terms import Objective, Term, as_objective

__all__ = ["differences", "distance", "nearest", "slots"]

_LABELS = ("name", "role")  # what a term is called and what it is for; neither changes its value
_WORDS = {"discrepancy": "link"}
_NUMBER, _WORD, _PART, _TERM = 0.25, 0.5, 1.0, 2.0  # a number that differs, a choice, another part, a further term
_FAR = 4.0  # as two further terms; beyond, a list of differences tells a reader nothing


def slots(term: Term) -> dict[str, Any]:
    """The term's slots by the names users know ("link" for the discrepancy), in the order of `Term`.

    A term that takes its rows together says by which class under "rows", with that class's own fields behind.
    """
    found = {_WORDS.get(f.name, f.name): getattr(term, f.name) for f in fields(term) if f.name not in _LABELS}
    return found if type(term) is Term else {"rows": type(term).__name__, **found}


def distance(left: Term | Objective, right: Term | Objective) -> float:
    """How far apart two objectives are: an edit distance over the slots of their terms, 0 where all parts are equal.

    A number that differs counts 1/4, another choice of the same part 1/2, another part 1, a further term 2. Terms are
    matched so that the sum is least; their names and roles do not count.
    """
    return _match(as_objective(left).terms, as_objective(right).terms)[0]


def differences(of: Term | Objective, to: Term | Objective) -> tuple[str, ...]:
    """What `to` has instead of what `of` has, one sentence per slot or term; empty where all parts are equal.

    Example:
        >>> from unipref.objectives import dpo, simpo
        >>> differences(dpo(), simpo())
        ('score mean_logp(2.0) instead of log_ratio(0.1)', 'offset margin(amount=1.0)')
    """
    ours, theirs = as_objective(of).terms, as_objective(to).terms
    matched = _match(ours, theirs)[1]
    many = len(ours) > 1 or len(theirs) > 1
    found: list[str] = []
    for mine, yours in matched:
        if mine is None:
            found.append(f"a further term {yours!r}")
        elif yours is None:
            found.append(f"no term {mine.name!r}")
        else:
            where = f"in {mine.name}: " if many else ""
            found += [where + change for change in _changes(slots(mine), slots(yours))]
    return tuple(found)


def nearest(key: str, n: int = 4) -> list[tuple[str, tuple[str, ...]]]:
    """The methods nearest to the objective `key`, nearest first, each with what it has instead; at default options.

    At most `n`, and beside the very nearest only those within two further terms. Methods with a required option have
    no defaults to compare and are left out.

    Raises:
        ConfigError: there is no such method.
    """
    card = get_method(key)
    if card.kind != "objective" or not _has_defaults(card):
        return []
    mine = _at_defaults(card.function)
    others = {o.key: _at_defaults(o.function) for o in list_methods("objective") if o.key != key and _has_defaults(o)}
    ranked = sorted((distance(mine, objective), other) for other, objective in others.items())[:n]
    near = [other for place, (far, other) in enumerate(ranked) if place == 0 or far <= _FAR]
    return [(other, differences(mine, others[other])) for other in near]


def _has_defaults(card: Card) -> bool:
    return REQUIRED not in card.options.values()


@cache
def _at_defaults(function: Callable[[], Term | Objective]) -> Objective:
    return as_objective(function())


def _match(
    ours: tuple[Term, ...], theirs: tuple[Term, ...]
) -> tuple[float, tuple[tuple[Term | None, Term | None], ...]]:
    """The least distance, and the pairs of terms (None: a term of one side only) that give it."""

    @cache
    def best(i: int, left: tuple[int, ...]) -> tuple[float, tuple[tuple[int | None, int | None], ...]]:
        if i == len(ours):
            return _TERM * len(left), tuple((None, j) for j in left)
        found = []
        for j in left:
            rest, pairs = best(i + 1, tuple(k for k in left if k != j))
            found.append((rest + _between(slots(ours[i]), slots(theirs[j])), ((i, j), *pairs)))
        rest, pairs = best(i + 1, left)
        found.append((rest + _TERM, ((i, None), *pairs)))
        return min(found, key=lambda option: option[0])  # the first of equals, so a match before none

    total, pairs = best(0, tuple(range(len(theirs))))
    return total, tuple((None if i is None else ours[i], None if j is None else theirs[j]) for i, j in pairs)


def _between(left: Any, right: Any) -> float:
    """The distance of two values: slots by name, parts, tuples of parts, numbers, words."""
    if left == right:
        return 0.0
    if isinstance(left, dict):
        return sum(_between(left.get(name), right.get(name)) for name in {**left, **right})
    if isinstance(left, Part) and type(left) is type(right):
        names = [f.name for f in fields(left)]  # type: ignore[arg-type]
        return min(_PART, sum(_between(getattr(left, name), getattr(right, name)) for name in names))
    if isinstance(left, tuple) and isinstance(right, tuple) and all(isinstance(v, Part) for v in (*left, *right)):
        gone, new = _unshared(left, right)
        pairs = sum(_between(a, b) for a, b in zip(gone, new, strict=False))
        return pairs + _PART * abs(len(gone) - len(new))
    if isinstance(left, Part) or isinstance(right, Part):
        return _PART
    both_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (left, right))
    return _NUMBER if both_numbers else _WORD


def _unshared(left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """The parts that only one of two tuples has, those of like type first and in the same order."""
    gone, new = [v for v in left if v not in right], [v for v in right if v not in left]
    kinds = {type(v) for v in gone} & {type(v) for v in new}

    def order(value: Any) -> tuple[bool, str]:
        return type(value) not in kinds, type(value).__name__

    return sorted(gone, key=order), sorted(new, key=order)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _changes(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    for name in {**ours, **theirs}:
        mine, yours = ours.get(name), theirs.get(name)
        if mine == yours:
            continue
        if isinstance(mine, tuple) and isinstance(yours, tuple):
            mine, yours = (" and ".join(map(repr, side)) for side in _unshared(mine, yours))
        else:
            mine, yours = map(_shown, (mine, yours))
        if not mine:
            yield f"{name} {yours}"
        elif not yours:
            yield f"no {name} {mine}"
        else:
            yield f"{name} {yours} instead of {mine}"
