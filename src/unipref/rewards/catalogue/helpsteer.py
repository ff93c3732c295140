"""Strengths of preference, and attributes whose weighted sum is the preference."""

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, descent, linear_head, preference_model
from unipref.rewards.models.steps import attribute_heads, in_steps, weighted_sum


@preference_model(
    "helpsteer",
    source="arXiv:2505.11475, its abstract; strengths as in NVIDIA/NeMo-Aligner",
    formula="-|s| log sigmoid(dr), or -log sigmoid(dr - |s|), s the strength; r = V . phi, or sum_k v_k V_k . phi",
    needs=("chosen", "rejected", "margin"),
    citation=Citation(
        "HelpSteer3-Preference: Open Human-Annotated Preference Data across Diverse Tasks and Languages",
        ("Zhilin Wang", "Jiaqi Zeng", "Olivier Delalleau", "and others"),
        2025,
        "2505.11475",
    ),
)
def helpsteer(
    *,
    strength: str = "scale",
    strength_factor: float = 1.0,
    attributes: bool = False,
    ridge: float | None = None,
    scale: str = "each",
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """How strongly a response was preferred enters the loss, as HelpSteer's scale from slightly to much better.

    The strength is the column `margin`, at least 0. A pair without one counts once (as a weight) or has no margin; one
    of strength 0 counts nothing as a weight. A tie is p = 1/2. With strength 1 throughout and as a weight it is
    Bradley-Terry's model.

    With `attributes`, every rated attribute (helpfulness, correctness, ...) gets a head that is fitted to the ratings,
    and the comparisons then decide their weights alone, which have either sign.

    Args:
        strength: "scale", the weight of a pair; "margin", a lead asked of the winner; or "ignore".
        strength_factor: of either.
        attributes: fit heads to ratings first; the data must have them.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        epochs: at most, where the fit runs batch by batch.
        seed: of beginnings and batches.
    """
    if not strength_factor > 0:
        raise ConfigError(f"helpsteer(strength_factor={strength_factor!r}): above 0")
    loss = bradley_terry(strength=strength, strength_factor=strength_factor)
    fit = descent(ridge=ridge, epochs=epochs, seed=seed)
    if not attributes:
        return PreferenceModel(linear_head(), loss, fitting=fit, scale=scale)
    return PreferenceModel(
        attribute_heads(),
        loss,
        mixing=weighted_sum(),
        fitting=in_steps(first=fit, then=fit, then_convex=True),
        scale=scale,
        needs=("attributes",),
    )
