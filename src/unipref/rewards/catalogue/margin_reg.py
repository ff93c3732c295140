"""A margin from how far voters agree."""

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import agreement_margin, head, logistic, majority, pairwise
from unipref.rewards.models import PreferenceModel, descent, linear_head, mlp_head, preference_model


@preference_model(
    "margin_reg",
    source="arXiv:2412.03822, its abstract",
    status="reconstructed",
    formula="-log sigmoid(r(winner) - r(loser) - kappa |2 p - 1|), p the share of votes",
    needs=("chosen", "rejected", "preference"),
    citation=Citation(
        "Beyond the Binary: Capturing Diverse Preferences With Reward Regularization",
        ("Vishakh Padmakumar", "Chuanyang Jin", "Hannah Rose Kirk", "He He"),
        2024,
        "2412.03822",
    ),
)
def margin_reg(
    *,
    kappa: float = 0.5,
    hidden: tuple[int, ...] = (),
    ridge: float | None = None,
    scale: str = "each",
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """The majority's winner has to lead by more, the more of the voters agree; contested pairs are not pushed apart.

    p of a comparison is read as the share of votes (`votes_chosen` and `votes_rejected`, or `preference`). Hard labels
    are unanimous: all pairs then have the margin kappa. An even split counts as a tie.

    Reconstructed: that a margin is made from the disagreement of synthetic judges is read in the abstract; that it is
    kappa |2 p - 1|, and is asked of the majority's side, is inferred. Where votes are known, `bt` fitted to their
    shares as soft labels comes nearer to what people prefer in our planted world than any such margin.

    Args:
        kappa: the lead, in log odds, that a unanimous pair asks for; 0: Bradley-Terry's model of the majority.
        hidden: widths of a perceptron's layers; none: a weighted sum.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        epochs: at most, where the fit runs batch by batch.
        seed: of beginnings and batches.
    """
    if not kappa >= 0:
        raise ConfigError(f"margin_reg(kappa={kappa!r}): below 0 it would ask agreed pairs to differ less")
    loss = pairwise(
        "margin_reg",
        score=head("reward_head"),
        link=logistic(),
        offset=(agreement_margin(float(kappa)),) if kappa else (),
        target=majority(),
    )
    return PreferenceModel(
        mlp_head(1, tuple(hidden)) if hidden else linear_head(),
        loss,
        fitting=descent(ridge=ridge, epochs=epochs, seed=seed),
        scale=scale,
    )
