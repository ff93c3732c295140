"""Joint preference optimization."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.joint import joint
from unipref.objectives.catalogue.dpo import dpo
from unipref.recipes.composition import Composition


@method(
    "dove",
    kind="recipe",
    source="arXiv:2404.00530, released code",
    formula="-log sigmoid(beta * (H(x_c, c) - H(x_r, r))), H(x, y) = logp(x, y) - ref_logp(x, y)",
    needs=("chosen", "rejected", "ref_logp"),
    citation=get_method("joint").citation,
)
def dove(*, beta: float = 0.1, score_prompt: bool = True) -> Composition:
    """DPO on prompt and response together, for pairs whose two sides answer different prompts.

    Pairs with one prompt on both sides may stand among the others: their prompts cancel, which leaves DPO exactly.
    Where prompts differ much in length, their part of the score is the larger one. The text that a chat template
    writes around a prompt is scored too, the first token is not. The released code cuts the rejected side by the chosen
    side's length; here each side is cut by its own.

    Args:
        score_prompt: false scores responses alone, which is DPO across prompts (the code's `joint_distribution`).
    """
    return Composition(dpo(beta=beta), (joint(),) if score_prompt else ())
