"""Hierarchical multi-domain regression."""

from unipref.core.cards import Citation, method
from unipref.explain.regression import HierarchicalPairRegressor

__all__ = ["EXPLAINABILITY"]

EXPLAINABILITY = Citation(
    "Multi-Domain Explainability of Preferences",
    ("Nitay Calderon", "Liat Ein-Dor", "Roi Reichart"),
    2025,
    "2505.20088",
)


@method(
    "hmdr",
    kind="explanation",
    source="arXiv:2505.20088 Eq. 1 and footnote 3",
    formula="min sum_d [L_d(b + s_d) + alpha L_d(b)] + lambda_shared |b|_1 + lambda_specific sum_d |s_d|_1",
    needs=("chosen", "rejected"),
    citation=EXPLAINABILITY,
)
def hmdr(
    *, lambda_shared: float = 0.125, lambda_specific: float = 0.0625, alpha: float | None = None
) -> HierarchicalPairRegressor:
    """Sparse weights of concepts that all domains share, and each domain's deviations from them.

    What `unipref explain` fits, with penalties chosen by cross-validation; the defaults here are those of the paper's
    application tests. L_d is the mean over a domain's pairs where the paper prints a sum, as its penalties leave
    weights at zero with the mean alone. The paper minimises with Adam, which reaches no exact zero; here the optimum is
    exact, with a bound on the distance.

    Args:
        lambda_shared, lambda_specific: the larger, the fewer weights.
        alpha: how much the shared weights have to predict by themselves; None: 1 / number of domains. 0 is the
            "dirty model".
    """
    return HierarchicalPairRegressor(lambda_shared=lambda_shared, lambda_specific=lambda_specific, alpha=alpha)
