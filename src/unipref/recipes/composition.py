"""What a method of kind "recipe" or "loop" is made of: an objective on changed data, once or in rounds."""

from dataclasses import dataclass
from typing import Any

from unipref.core.cards import Card
from unipref.core.errors import ConfigError
from unipref.data import Operator
from unipref.data.pair_questions import PairQuestion
from unipref.objectives import Objective, Term, as_objective

__all__ = ["Composition", "Loop", "collected_by", "rounds_of"]


@dataclass(frozen=True)
class Composition:
    """An objective, and what is done to the data before it sees them.

    Attributes:
        operators: applied in order, to training and validation records alike.
        momentum: after training go on by this share of the way to this model from where the round before ended in
            training (the first round: from the model that it starts from); 0 stays.
        merges: a loop's last round that trains nothing: its model is the mean of the models of the rounds before,
            weighted for the least loss on the records, with the model that the loop started from as reference.
        judge: what is trained is no policy but a judge of pairs, which is asked this; None otherwise.
    """

    objective: Objective | Term
    operators: tuple[Operator, ...] = ()
    momentum: float = 0.0
    merges: bool = False
    judge: PairQuestion | None = None


@dataclass(frozen=True)
class Loop:
    """Rounds of training; each starts from the model that the one before ended with, which is its reference too.

    Attributes:
        collects: what has to be sampled or labelled between the rounds, as the method is published; "" where the data
            at hand are enough. With data at hand the rounds can still be trained, off-policy.
    """

    rounds: tuple[Composition, ...]
    collects: str = ""


def rounds_of(card: Card, options: dict[str, Any]) -> tuple[Composition, ...]:
    """What a stage with the method of `card` trains, round by round.

    Raises:
        ConfigError: the method is none that a stage can train.
    """
    if card.kind not in ("objective", "recipe", "loop"):
        raise ConfigError(f"{card.key} is of kind {card.kind!r}; a stage trains an objective, a recipe or a loop")
    built = card.build(**options)
    if isinstance(built, Loop):
        return built.rounds
    return (built if isinstance(built, Composition) else Composition(as_objective(built)),)


def collected_by(card: Card, options: dict[str, Any]) -> str:
    """What the loop of `card` collects between its rounds; "" of others, and where the data at hand are enough."""
    built = card.build(**options) if card.kind == "loop" else None
    return built.collects if isinstance(built, Loop) else ""
