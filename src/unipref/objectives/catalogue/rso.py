"""Statistical rejection sampling optimization: its loss."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import hinge, logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise

_LINKS = {"hinge": hinge(at=1.0), "sigmoid": logistic()}


@method(
    "rso",
    source="arXiv:2309.06657, hinge-norm and sigmoid-norm as in TRL 1.16",
    formula="max(0, 1 - gamma * dh), or -log sigmoid(gamma * dh)",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Statistical Rejection Sampling Improves Preference Optimization",
        (
            "Tianqi Liu",
            "Yao Zhao",
            "Rishabh Joshi",
            "Misha Khalman",
            "Mohammad Saleh",
            "Peter J. Liu",
            "Jialu Liu",
        ),
        2023,
        "2309.06657",
    ),
    exceptions={"G1": "the hinge is 1 at the reference; with loss='sigmoid' it is log 2"},
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -11.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -1.0},
            0.5,
        ),  # 1 - 0.05 * 10
        (
            {"loss": "sigmoid"},
            {"logp_chosen": -1.0, "logp_rejected": -41.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -1.0},
            0.1269280,
        ),  # ln(1 + e^-2)
    ],
    limits=[Limit({"loss": "sigmoid", "gamma": 0.1}, "dpo")],
)
def rso(*, gamma: float = 0.05, loss: str = "hinge") -> Term:
    """Hinge or logistic loss on the difference of log-ratios, for pairs drawn from an estimate of the optimal policy.

    The method is the pair of this loss and its sampler, which accepts a candidate y with probability
    e^((r(y) - max r) / beta); the loss alone is SLiC's hinge against a reference, or DPO.

    Args:
        gamma: scale of the log-ratios, 0.05 as in TRL.
        loss: "hinge" (hinge-norm, the one that TRL has) or "sigmoid" (sigmoid-norm, of the paper's main table).
    """
    if loss not in _LINKS:
        raise ConfigError(f"rso(loss={loss!r}){nearest(str(loss), _LINKS)}")
    return pairwise("rso", score=log_ratio(gamma), link=_LINKS[loss])
