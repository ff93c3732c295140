"""Rounds as several loops have them."""

from collections.abc import Sequence

from unipref.core.errors import ConfigError
from unipref.data import Operator
from unipref.data.catalogue.chunk import chunk
from unipref.objectives import Objective, Term
from unipref.recipes.composition import Composition

__all__ = ["in_parts", "repeated"]


def repeated(round_: Composition, rounds: int) -> tuple[Composition, ...]:
    """The same round `rounds` times, each on all records.

    Raises:
        ConfigError: `rounds` is below 1.
    """
    _some(rounds, "rounds")
    return (round_,) * rounds


def in_parts(
    objective: Objective | Term,
    parts: int,
    *,
    operators: Sequence[Operator] = (),
    by: str | None = None,
    hardest_first: bool = False,
    seed: int = 0,
    name: str = "parts",
) -> tuple[Composition, ...]:
    """A round for each of `parts` equal parts of the records, which together are one pass over them.

    One part is the records as they are: nothing is ordered, and no difficulty is asked for.

    Args:
        operators: applied to a part.
        by, hardest_first, seed: as for the operator `chunk`.
        name: what the loop calls its `parts`.

    Raises:
        ConfigError: `parts` is below 1.
    """
    _some(parts, name)
    if parts == 1:
        return (Composition(objective, tuple(operators)),)
    chunks = (chunk(part=i, parts=parts, by=by, hardest_first=hardest_first, seed=seed) for i in range(parts))
    return tuple(Composition(objective, (one, *operators)) for one in chunks)


def _some(count: int, name: str) -> None:
    if count < 1:
        raise ConfigError(f"{count} {name} train nothing; give 1 or more")
