"""The posterior of concept weights under a Laplace prior."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import method
from unipref.explain.posterior import Posterior, posterior
from unipref.features.concept_cards import DISSECT


@method(
    "laplace_posterior",
    kind="explanation",
    source="arXiv:2402.11296, the authors' code",
    formula="y ~ Bernoulli(sigmoid(X a)), a_j ~ Laplace(0, scale), no intercept; told as 100 sigmoid(a_j)",
    needs=("chosen", "rejected"),
    citation=DISSECT,
)
def laplace_posterior(
    *, scale: float = 0.1, draws: int = 2000, warm_up: int = 500, chains: int = 4, seed: int = 0
) -> Callable[..., Posterior]:
    """How sure one can be of each concept's weight, in one domain, where a sparse fit says only which it keeps.

    A posterior mean is never exactly 0, so it selects nothing. The authors draw with NUTS and average ten fits to nine
    tenths of the pairs; here it is Hamiltonian Monte Carlo on all of them.

    Args:
        scale: of the prior.
        draws, warm_up, chains: of the sampler; draws are those kept of each chain.
        seed: of its chains.
    """
    return partial(posterior, scale=scale, draws=draws, warm_up=warm_up, chains=chains, seed=seed)
