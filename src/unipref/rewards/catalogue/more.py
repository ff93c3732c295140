"""Multi-objective reward modelling."""

from unipref.core.cards import Citation
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, linear_head, mlp_head, preference_model
from unipref.rewards.models.balance import min_norm


@preference_model(
    "more",
    source="arXiv:2312.07401, as in github.com/dunzeng/MORE",
    formula="P(a > b) = sigmoid(r(a) - r(b)); steps along T sum_t l_t grad L_t, l = argmin |sum_t l_t g_t|",
    needs=("chosen", "rejected", "domain"),
    citation=Citation(
        "On Diversified Preferences of Large Language Model Alignment",
        (
            "Dun Zeng",
            "Yong Dai",
            "Pengyu Cheng",
            "Longyue Wang",
            "Tianhao Hu",
            "Wanshun Chen",
            "Nan Du",
            "Zenglin Xu",
        ),
        2023,
        "2312.07401",
    ),
)
def more(
    *,
    hidden: tuple[int, ...] = (),
    normalise: str = "none",
    alpha: float = 1.0,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.01,
    batch_size: int = 1024,
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """One reward for all domains; where they disagree, a step is taken only where it helps each of them.

    The domains' losses are weighed anew at every step, by the shares that make the sum of their gradients shortest.
    Sources that contradict each other thus end near even verdicts, well calibrated everywhere, where Bradley-Terry's
    model is sure and wrong about the smaller camp; the larger camp's accuracy falls for it. With one domain it is
    Bradley-Terry's model.

    As in the authors' code the gradients that are weighed are those of the last layer. The code holds the shares of
    two domains between 0.001 and 0.999; here they are exact. The code takes small steps on batches; here, where all
    comparisons fit into memory, a step is on all of them and as long as it helps every domain. Comparisons that name no
    domain are one more.

    Args:
        hidden: widths of a perceptron's layers; none: a weighted sum.
        normalise: what a domain's gradient is divided by before it is weighed: "none", "l2" (its length), "loss" or
            "loss+" (both).
        alpha: share of the newest gradient in the mean over steps that is weighed; 1 has no memory, 0.99 (as the
            authors ran it) hardly one.
        ridge: pull of the weights to 0; None: the one that Bradley-Terry's model would take.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, batch_size, epochs: of the fit, where the comparisons do not fit into memory.
        seed: of the fit.
    """
    return PreferenceModel(
        mlp_head(1, tuple(hidden)) if hidden else linear_head(),
        bradley_terry(),
        fitting=min_norm(
            ridge=ridge, lr=lr, batch_size=batch_size, epochs=epochs, seed=seed, normalise=normalise, alpha=alpha
        ),
        scale=scale,
        needs=("domain",),
    )
