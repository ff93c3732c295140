"""Preference optimization with modelled correlations (BMC)."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.terms import Term, pairwise
from unipref.objectives.tokens import capped_inverse, token_score

_SOURCES = ("policy", "own")


@method(
    "bmc",
    source="arXiv:2408.07471, as in github.com/YJiangcm/BMC (dpo_bmc_trainer.py)",
    status="reconstructed",
    formula="-log sigmoid(beta * dz), z = sum_t w_t (logp_t - ref_logp_t), w_t = 1 + diff_t min(1 / p_t, delta)",
    needs=("chosen", "rejected", "ref_logp", "diff"),
    citation=Citation(
        "Bridging and Modeling Correlations in Pairwise Data for Direct Preference Optimization",
        (
            "Yuxin Jiang",
            "Bo Huang",
            "Yufei Wang",
            "Xingshan Zeng",
            "Liangyou Li",
            "Yasheng Wang",
            "Xin Jiang",
            "Lifeng Shang",
            "Ruiming Tang",
            "Wei Wang",
        ),
        2024,
        "2408.07471",
    ),
    exceptions={
        "L2": "a shift reaches the tokens, which weigh differently",
        "G4": "a shift reaches the tokens, which weigh differently",
    },
    limits=[Limit({"delta": 0.0}, "dpo", {"beta": 0.05})],
    # weights 1 + (min(1/.5, 3), min(1/.1, 3), 0) = (3, 4, 1) and 1 + (min(1/.3, 3), 0) = (4, 1);
    # logit = .1 (3 ln(.5/.4) + 4 ln(.1/.2) + ln(.9/.8) - 4 ln(.3/.5) - ln(.6/.5)) = -0.0124394
    golden=[
        (
            {"beta": 0.1, "delta": 3.0},
            {
                "len_chosen": 3,
                "len_rejected": 2,
                "token_logp": [-0.6931471806, -2.302585093, -0.1053605157, -1.203972804, -0.5108256238],
                "token_ref_logp": [-0.9162907319, -1.609437912, -0.2231435513, -0.6931471806, -0.6931471806],
                "token_diff": [1.0, 1.0, 0.0, 1.0, 0.0],
            },
            0.6993863,
        )
    ],
)
def bmc(*, beta: float = 0.05, delta: float = 2.0, weight_source: str = "policy") -> Term:
    """DPO in which tokens that differ between the responses weigh more, the more the less likely the policy finds them.

    The column "diff" marks tokens that an alignment of the two responses leaves unmatched, stop words excepted. The
    method wants a chosen response that was edited from the rejected one, so that few tokens differ; on unrelated
    responses nearly all do, and the weights mean little. Weights carry no gradient.

    Reconstructed: the released code builds the reference's weights from the reference's own probabilities
    (`weight_source="own"`), so the two sums weigh tokens differently. The default puts the policy's weights on the
    log-ratio, the form in which the loss at the reference is log 2 whatever the weights, as the paper is usually given.

    Args:
        beta: 0.05 for question answering and mathematics in the authors' configurations, 0.01 for instructions.
        delta: largest inverse probability; 2 in the code, 1.5 to 3 in the authors' configurations. 0 is DPO.
        weight_source: whose probabilities weigh the reference's tokens: "policy" or, as in the code, its "own".
    """
    if weight_source not in _SOURCES:
        raise ConfigError(f"bmc(weight_source={weight_source!r}){nearest(str(weight_source), _SOURCES)}")
    own = capped_inverse(delta, of="ref_logp") if weight_source == "own" else None
    return pairwise("bmc", score=token_score(beta, capped_inverse(delta), reference_weights=own))
