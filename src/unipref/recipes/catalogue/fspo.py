"""Few-shot preference optimization."""

from unipref.core.cards import method
from unipref.data.catalogue.few_shot import FSPO, few_shot
from unipref.objectives.catalogue.ipo import ipo
from unipref.recipes.composition import Composition


@method(
    "fspo",
    kind="recipe",
    source="arXiv:2502.19312, as in github.com/Asap7772/fewshot-preference-optimization",
    formula="ipo on (N labelled pairs of the same user + x, y > y')",
    needs=("chosen", "rejected", "user", "ref_logp"),
    citation=FSPO,
)
def fspo(
    *,
    shots: int = 4,
    tau: float = 0.01,
    norm: str = "sum",
    where: str = "user",
    fewer: str = "leave_out",
    draws: int = 1,
    seed: int = 0,
) -> Composition:
    """IPO on prompts that begin with a user's earlier choices, so that a newcomer's taste is learned from the prompt.

    At the paper's tau of 0.01 the margin is pulled to 1 / (2 tau) = 50 nats. The source first trains on the chosen
    responses, behind the same examples: a stage `sft` with the operator `few_shot` before this one. With no shots it
    is plain `ipo`.

    Args:
        shots, where, fewer, draws, seed: of the examples; see the operator `few_shot`.
        tau, norm: see `ipo`.
    """
    return Composition(
        ipo(tau=tau, norm=norm), (few_shot(shots=shots, where=where, fewer=fewer, draws=draws, seed=seed),)
    )
