"""Statistical rejection sampling optimization, sampler and loss."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.rejection_sample import rejection_sample
from unipref.objectives.catalogue.rso import rso
from unipref.recipes.composition import Composition


@method(
    "rso_sampled",
    kind="recipe",
    source="arXiv:2309.06657",
    formula="max(0, 1 - gamma * dh) on pairs of responses accepted with probability exp((r - r_max) / beta)",
    needs=("group", "reward", "ref_logp"),
    citation=get_method("rso").citation,
)
def rso_sampled(
    *,
    gamma: float = 0.05,
    loss: str = "hinge",
    k: int = 8,
    beta: float = 0.5,
    by: str = "reward",
    variant: str = "rso",
    pairing: str | None = None,
    seed: int = 0,
) -> Composition:
    """The loss `rso` on pairs of responses that survive rejection sampling.

    The survivors are about distributed as the optimal policy would write, which is what makes the fit of their
    preferences a fit where it matters. The source draws 64 candidates per prompt from the supervised model that the
    stage starts from and keeps 8. Pairs are ordered by their reward.

    Args:
        gamma, loss: of `rso`.
        k: survivors per prompt; a prompt with fewer candidates is set aside.
        beta: trust in the reward, in its unit; infinity keeps any k, 0 the best.
        by: column of the reward.
        variant: "rso", or "rs_plus" by percentiles.
        pairing: "first_round", "tournament" or "best_worst"; the variant's own where it is not given.
        seed: of the draws.
    """
    sampled = rejection_sample(k=k, beta=beta, by=by, variant=variant, pairing=pairing, seed=seed)
    return Composition(rso(gamma=gamma, loss=loss), (sampled,))
