"""Rewards by attribute, weighed by what the prompt asks for."""

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, descent, preference_model, simplex
from unipref.rewards.models.routers import prompt_router
from unipref.rewards.models.steps import attribute_heads, in_steps


@preference_model(
    "multi_attribute",
    source="arXiv:2406.12845, its abstract, and github.com/RLHFlow/RLHF-Reward-Modeling",
    formula="r(x, y) = sum_k g_k(x) V_k . phi(y); V by ratings, then g = c softmax(G x) by comparisons",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts",
        ("Haoxiang Wang", "Wei Xiong", "Tengyang Xie", "Han Zhao", "Tong Zhang"),
        2024,
        "2406.12845",
    ),
)
def multi_attribute(
    *,
    heads: int = 4,
    gate: tuple[int, ...] = (),
    without: str | None = None,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.01,
    epochs: int = 200,
    restarts: int = 1,
    seed: int = 0,
) -> PreferenceModel:
    """A reward per attribute, fitted to ratings; a gate that reads the prompt then says how much each counts.

    The ratings decide what the attributes mean, in spreads of their ratings, and comparisons decide the gate alone. Its
    shares are at least 0, so an attribute of which more is worse is to be given with its sign turned. Data without
    ratings leave the rewards free, and everything is fitted to comparisons; without vectors of prompts the gate gives
    one set of shares. A response alone has its reward in the prompt that is given.

    The authors' gate is a perceptron of three layers of 1024; here it is linear unless `gate` says otherwise. They
    compute what verbosity must lose by rank correlations on a grid, `without` by least squares, and in the code the
    gate is trained on the rewards from before.

    Args:
        heads: rewards where nothing is rated; with 1 it is Bradley-Terry's model.
        gate: widths of the gate's hidden layers; none: a linear map.
        without: an attribute, such as verbosity, of which every other one that rises with it is cleared.
        ridge: pull of the rewards' weights to 0; None: chosen on what a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, restarts, seed: of the fit.
    """
    if heads < 1:
        raise ConfigError(f"multi_attribute(heads={heads!r}): at least 1")
    fit = descent(ridge=ridge, lr=lr, epochs=epochs, restarts=restarts, seed=seed)
    return PreferenceModel(
        attribute_heads(heads, without),
        bradley_terry(),
        encoder=prompt_router(tuple(gate), scaled=True),
        mixing=simplex(),
        fitting=in_steps(first=descent(ridge=ridge, epochs=epochs, seed=seed), then=fit),
        scale=scale,
    )
