"""The Bradley-Terry reward model."""

from unipref.core.cards import get_method
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, descent, difference, linear_head, mlp_head, preference_model


@preference_model(
    "bt",
    source="Bradley and Terry 1952",
    formula="P(a > b) = sigmoid(r(a) - r(b)), r(y) = w . phi(y)",
    needs=("chosen", "rejected"),
    citation=get_method("bt", "objective").citation,
)
def bt(
    *,
    hidden: tuple[int, ...] = (),
    margin: float = 0.0,
    strength: str = "ignore",
    strength_factor: float = 1.0,
    centring: float = 0.0,
    smoothing: float = 0.0,
    temperature: float = 1.0,
    ridge: float | None = None,
    scale: str = "each",
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """One reward per response, for everybody and everywhere.

    Args:
        hidden: widths of a perceptron's layers; none: a weighted sum, whose fit has one optimum.
        margin, strength, strength_factor, centring, smoothing, temperature: of the loss; see the objective `bt`.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        epochs: at most, where the fit runs batch by batch.
        seed: of beginnings and batches.
    """
    return PreferenceModel(
        mlp_head(1, tuple(hidden)) if hidden else linear_head(),
        bradley_terry(
            margin=margin,
            strength=strength,
            strength_factor=strength_factor,
            centring=centring,
            smoothing=smoothing,
            temperature=temperature,
        ),
        mixing=difference(temperature),
        fitting=descent(ridge=ridge, epochs=epochs, seed=seed),
        scale=scale,
    )
