"""Accelerated preference optimization."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.objectives.compose import base_objective
from unipref.recipes.catalogue._rounds import repeated
from unipref.recipes.composition import Composition, Loop


@method(
    "apo_momentum",
    kind="loop",
    status="reconstructed",
    source="arXiv:2410.06293, the idea from its abstract",
    formula="m_{t+1} = argmin loss(reference theta_t); theta_{t+1} = m_{t+1} + alpha * (m_{t+1} - m_t), m_0 = theta_0",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Accelerated Preference Optimization for Large Language Model Alignment",
        ("Jiafan He", "Huizhuo Yuan", "Quanquan Gu"),
        2024,
        "2410.06293",
    ),
)
def apo_momentum(
    *, rounds: int = 3, alpha: float = 0.3, base: str = "dpo", base_options: Mapping[str, Any] | None = None
) -> Loop:
    """Rounds of a preference loss, each of which goes on past its end in the direction it came.

    After a round is trained its weights move on by alpha times their way from where the round before ended in
    training (the first round: from the model it started from). Checkpoints, optimiser and metrics are those of the
    training; the model of a round is the moved one, which the next round starts from and is compared with. Rounds
    that fully reach their optimum gain 1 + alpha + ... + alpha^t each, so progress per round tends to 1 / (1 - alpha).
    Weights and probabilities move alike only in a softmax over free logits; in a network watch the held-out
    likelihood. Not TRL's apo_zero and apo_down.

    Reconstructed: momentum over rounds is the abstract's; the step and its form on weights are recalled, not read.
    alpha and the number of rounds are ours.

    Args:
        alpha: in [0, 1); 0 is the plain loop. Not from the source.
        rounds: 3 as in most iterative work.
        base: the loss of every round, a method's name.
        base_options: options of the base.
    """
    if not 0 <= alpha < 1:
        raise ConfigError(f"alpha must be in [0, 1): with {alpha} the rounds run away or turn back")
    objective = base_objective(base, base_options, of="apo_momentum")
    return Loop(
        repeated(Composition(objective, momentum=alpha), rounds),
        collects="pairs of responses from the last round's model, labelled",
    )
