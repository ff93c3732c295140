"""Rejection sampling and DPO."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.mine_pairs import mine_pairs
from unipref.objectives.catalogue.dpo import dpo
from unipref.recipes.composition import Composition, Loop


@method(
    "rs_dpo",
    kind="loop",
    status="reconstructed",
    source="arXiv:2402.10038",
    formula="-log sigmoid(beta * dh) over every pair with sigmoid((r_c - r_r) / tau) > eta",
    needs=("reward", "ref_logp"),
    citation=get_method("mine_pairs").citation,
)
def rs_dpo(
    *,
    beta: float = 0.1,
    eta: float = 0.85,
    tau: float = 1.0,
    by: str = "reward",
    cap: int | None = None,
    equal_prompts: bool = False,
    seed: int = 0,
) -> Loop:
    """DPO on every two of a prompt's sampled responses whose rewards are far enough apart.

    One round: the responses come from the supervised model that it starts from, which is its reference. The number of
    pairs grows with the square of the responses and differs between prompts; `cap` and `equal_prompts` hold that.

    Reconstructed: the pipeline is the paper's; the rule and its numbers are from a review of it. k = 16 responses are
    recalled.

    Args:
        beta: not from the source.
        eta: in [1/2, 1); 1/2 takes every two that differ.
        tau: unit of reward.
        by: column of the reward.
        cap: most pairs per prompt, drawn at random.
        equal_prompts: a prompt's pairs share its weight.
        seed: of the draw.
    """
    mined = mine_pairs(eta=eta, tau=tau, by=by, cap=cap, equal_prompts=equal_prompts, seed=seed)
    return Loop(
        (Composition(dpo(beta=beta), (mined,)),),
        collects="some 16 responses per prompt from the model that the stage starts from, each with a reward",
    )
