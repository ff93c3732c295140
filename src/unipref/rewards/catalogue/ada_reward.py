"""A reward model with adaptive preference scaling."""

from unipref.core.cards import get_method
from unipref.objectives import ada_reward as adaptive
from unipref.rewards.models import PreferenceModel, descent, linear_head, mlp_head, preference_model


@preference_model(
    "ada_reward",
    source="arXiv:2406.02764, as in github.com/IlgeeHong/Adaptive-Preference-Scaling",
    formula="-tau log sigmoid((r(a) - r(b)) / tau), tau = clip(|r(a) - r(b)| / c), H(sigmoid(c)) = log 2 - rho",
    needs=("chosen", "rejected"),
    citation=get_method("ada_reward", "objective").citation,
)
def ada_reward(
    *,
    rho: float = 0.1,
    tau_min: float = 0.1,
    tau_max: float | None = 1.0,
    quadratic: bool = False,
    hidden: tuple[int, ...] = (),
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.01,
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """One reward per response, fitted with a temperature per pair: clear pairs keep some pull.

    The loss is the objective `ada_reward`; with tau_min and tau_max at 1 it is Bradley-Terry's. What is told as a
    probability is sigmoid of the difference, as if tau were 1, and the ridge is chosen by it.

    Args:
        rho, tau_min, tau_max, quadratic: see the objective.
        hidden: widths of a perceptron's layers; none: a weighted sum.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, seed: of the fit, by Adam: the temperature takes no gradient, so a line search would be misled.
    """
    return PreferenceModel(
        mlp_head(1, tuple(hidden)) if hidden else linear_head(),
        adaptive(rho=rho, tau_min=tau_min, tau_max=tau_max, quadratic=quadratic),
        fitting=descent(optimizer="adam", ridge=ridge, lr=lr, epochs=epochs, seed=seed),
        scale=scale,
    )
