"""DPO on reward-augmented data."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.goal_conditioned import TEMPLATE, goal_conditioned
from unipref.objectives.catalogue.cdpo import cdpo
from unipref.recipes.composition import Composition


@method(
    "ra_dpo",
    kind="recipe",
    source="arXiv:2410.08067, released code",
    formula="cdpo(x + s_c, c > r) + cdpo(x + s_r, r > c)",
    needs=("chosen", "rejected", "score", "ref_logp"),
    citation=get_method("goal_conditioned").citation,
)
def ra_dpo(
    *, beta: float = 0.01, flip: float = 0.3, by: str = "score", where: str = "system", template: str = TEMPLATE
) -> Composition:
    """DPO on pairs that stand twice, under the score of either side, each time that side preferred.

    The model learns which responses deserve which score, also from the responses that lost; afterwards ask for the
    highest score. The rows double. Pairs of equal scores would contradict themselves and are left out. Any other loss
    can be trained on such data: give its stage the operator `goal_conditioned`.

    Args:
        beta: 0.01 in the released runs.
        flip: label smoothing; 0.3 for the released Qwen2-7B and Gemma-2-9b runs, 0, which is DPO, for the one from an
            SPPO checkpoint.
        by: column of the score.
        where: the goal stands in the "system" message or at the start of the last "user" turn.
        template: has "{goal}" where the score goes; its words are ours.
    """
    return Composition(cdpo(beta=beta, flip=flip), (goal_conditioned(by=by, where=where, template=template),))
