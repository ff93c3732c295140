"""Relative preference optimization."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.coupled import contrast_matrix
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Objective, Term

_VARIANTS = ("paired", "unpaired", "diagonal")


@method(
    "rpo_relative",
    source="arXiv:2402.10958, as in github.com/yinyueqin/relative-preference-optimization",
    formula="mean_ij of -log sigmoid(beta * w_ij * (h_c,i - h_r,j)), w_ij = softmax_j((cos(x_i, x_j) - 1) / tau)",
    needs=("chosen", "rejected", "ref_logp", "embedding"),
    coupling="full",
    citation=Citation(
        "Relative Preference Optimization: Enhancing LLM Alignment through Contrasting Responses across Identical and "
        "Diverse Prompts",
        ("Yueqin Yin", "Zhendong Wang", "Yi Gu", "Hai Huang", "Weizhu Chen", "Mingyuan Zhou"),
        2024,
        "2402.10958",
    ),
    exceptions={
        "L2": "responses of different prompts are compared",
        "G5": "every response meets those of the whole step",
    },
    limits=[
        Limit({"variant": "diagonal", "kappa": 1.0}, "dpo"),
    ],
    # two prompts at right angles: w = 1 / (1 + e^-2) = 0.8807971 on the diagonal, 0.1192029 off it;
    # h_c = (1, 3), h_r = (-1, 0): z = 0.1 * (0.8807971 * 2, 0.1192029 * 1; 0.1192029 * 4, 0.8807971 * 3)
    golden=[
        (
            {},
            {
                "logp_chosen": [-1.0, -1.0],
                "ref_logp_chosen": [-2.0, -4.0],
                "logp_rejected": [-3.0, -2.0],
                "ref_logp_rejected": [-2.0, -2.0],
                "embedding_chosen": [[1.0, 0.0], [0.0, 2.0]],
                "embedding_rejected": [[1.0, 0.0], [0.0, 2.0]],
            },
            0.6338668,
        )
    ],
)
def rpo_relative(
    *, beta: float = 0.1, tau: float = 0.5, variant: str = "paired", kappa: float = 0.8
) -> Term | Objective:
    """Every preferred response of a step against every rejected one, more so where their prompts are alike.

    The weight stands inside the sigmoid, and the mean runs over all n^2 contrasts: from the reference the gradient is
    about 1 / n of DPO's, so the learning rate has to grow with the step. `embedding` is of the prompt, the same for all
    responses to it. The released code compares within a device's batch only.

    Args:
        tau: temperature of the similarity, in cosines.
        variant: "paired"; "unpaired" for single responses with labels, 0 in a step that lacks either kind; "diagonal"
            without embeddings: `kappa` on a response's own pair and the rest, outside the sigmoid and alike, on the
            other prompts.
        kappa: of the diagonal variant.
    """
    if variant not in _VARIANTS:
        raise ConfigError(f"rpo_relative(variant={variant!r}){nearest(str(variant), _VARIANTS)}")
    score = log_ratio(beta)
    if variant == "diagonal":
        if not 0 <= kappa <= 1:
            raise ConfigError(f"kappa is a share, in [0, 1]: {kappa}")
        others = contrast_matrix("across", score=score, link=logistic(), own=False)
        return kappa * dpo(beta=beta) + (1 - kappa) * others
    of = "labelled" if variant == "unpaired" else "pairs"
    return contrast_matrix("rpo_relative", score=score, link=logistic(), of=of, similarity=tau)
