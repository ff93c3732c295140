"""Distributionally robustified DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.coupled import robust
from unipref.objectives.terms import Term


@method(
    "dr_dpo",
    source="arXiv:2407.07880, as in github.com/junkangwu/Dr_DPO",
    formula="-beta_prime * log mean e^(log sigmoid(beta * dh) / beta_prime)",
    needs=("chosen", "rejected", "ref_logp"),
    coupling="full",
    citation=Citation(
        "Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference Optimization",
        (
            "Junkang Wu",
            "Yuexiang Xie",
            "Zhengyi Yang",
            "Jiancan Wu",
            "Jiawei Chen",
            "Jinyang Gao",
            "Bolin Ding",
            "Xiang Wang",
            "Xiangnan He",
        ),
        2024,
        "2407.07880",
    ),
    exceptions={"G5": "a pair's weight depends on the losses of the whole step"},
    limits=[Limit({"beta_prime": 1e7}, "dpo", tolerance=1e-6, note="as beta_prime grows")],
    # beta_prime = 1: -ln mean sigmoid(z), z = 2 and -2: the mean is 1/2
    golden=[
        (
            {},
            {
                "logp_chosen": [-1.0, -21.0],
                "logp_rejected": [-21.0, -1.0],
                "ref_logp_chosen": [-1.0, -1.0],
                "ref_logp_rejected": [-1.0, -1.0],
            },
            0.6931472,
        )
    ],
)
def dr_dpo(*, beta: float = 0.1, beta_prime: float = 1.0) -> Term:
    """DPO in which pairs of high loss, more likely mislabelled, count less: a soft minimum over a step's pairs.

    Its gradient is DPO's with weights proportional to sigmoid(beta * dh)^(1 / beta_prime). The mean is that of the
    whole step; the authors' code takes it over the pairs of one device's micro-batch.

    Args:
        beta_prime: large values are DPO; small ones follow the pairs that fit best. 1 in the authors' code.
    """
    return robust(dpo(beta=beta), beta_prime)
