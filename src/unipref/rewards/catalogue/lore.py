"""Low-rank reward modelling."""

from unipref.core.cards import Citation
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import (
    PreferenceModel,
    descent,
    fit_codes,
    linear_head,
    preference_model,
    simplex,
    user_table,
)


@preference_model(
    "lore",
    source="arXiv:2504.14439, as in github.com/facebookresearch/LoRe",
    formula="P_u(a > b) = sigmoid(sum_k w_uk (V_k . phi(a) - V_k . phi(b))), w_u = softmax(a_u)",
    needs=("chosen", "rejected", "user"),
    citation=Citation(
        "LoRe: Personalizing LLMs via Low-Rank Reward Modeling",
        ("Avinandan Bose", "Zhihan Xiong", "Yuejie Chi", "Simon Shaolei Du", "Lin Xiao", "Maryam Fazel"),
        2025,
        "2504.14439",
    ),
)
def lore(
    *,
    rank: int = 5,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.03,
    epochs: int = 300,
    restarts: int = 1,
    adapt_steps: int = 500,
    seed: int = 0,
) -> PreferenceModel:
    """Every user weighs a few rewards that all share; a newcomer's weights are fitted to a handful of choices.

    The authors' code divides logits by 100 and takes rates to match; here the unit is the logit's own. Its pull of
    every reward towards that of a given model is a pull towards 0, the ridge.

    Args:
        rank: rewards that users share. With 1 it is Bradley-Terry's model.
        ridge: pull of the rewards' weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, restarts, seed: of the fit.
        adapt_steps: gradient steps for newcomers.
    """
    return PreferenceModel(
        linear_head(rank, spread=0.1),
        bradley_terry(),
        encoder=user_table(),
        mixing=simplex(),
        fitting=descent(ridge=ridge, lr=lr, epochs=epochs, restarts=restarts, seed=seed),
        adaptation=fit_codes(steps=adapt_steps),
        scale=scale,
        needs=("user",),
    )
