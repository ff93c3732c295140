"""Preference likelihood with the policy itself as the preference's strength, held at a reference."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.compose import reference_kl
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, pairwise


@method(
    "typo",
    source="arXiv:2407.09072, as in its successor's code, github.com/lmkong020/explicit-preference-optimization",
    status="reconstructed",
    formula="-log sigmoid(logp_c - logp_r) + lam * KL(ref(.|x) || policy(.|x))",
    needs=("chosen", "rejected", "base"),
    citation=Citation(
        "New Desiderata for Direct Preference Optimization",
        ("Xiangkun Hu", "Tong He", "David Wipf"),
        2024,
        "2407.09072",
    ),
    exceptions={
        "L2": "its divergence from the reference raises the likelihood of the reference's own answers",
        "G1": "the reference is not in the contrast, and a divergence is added",
        "G4": "its divergence from the reference raises the likelihood of the reference's own answers",
    },
    golden=[
        ({}, {"logp_chosen": -1.0, "logp_rejected": -3.0, "logp_base": -2.0}, 2.1269280),  # ln(1 + e^-2) + 2
        (
            {"kl": "responses", "lam": 2.0},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -3.0,
                "len_chosen": 1,
                "len_rejected": 2,
                "token_kl": [0.1, 0.3, 0.2],
            },
            0.7269280,
        ),  # ln(1 + e^-2) + 2 (0.1 + 0.5) / 2
    ],
    limits=[Limit({"lam": 0.0}, "cpo", {"beta": 1.0, "alpha": 0.0})],
)
def typo(*, lam: float = 1.0, kl: str = "samples") -> Objective:
    """Bradley-Terry likelihood with the policy's own probabilities as strengths, plus the divergence from a reference.

    There is no beta and no reference in the contrast: as lam goes from 0 up, the optimum moves from the policy that
    explains the preferences to the reference, and stays at the reference where that explains them already. Sums of
    log-probabilities differ by many nats, so the logistic is saturated for long responses and nothing protects from
    length.

    Reconstructed: the formula is read in the successor's code; that this paper's is the same is inferred from its
    description as a supervised and an unsupervised part.

    Args:
        lam: coefficient of the divergence; the paper's is not known, 1 is chosen by us.
        kl: how KL(reference || policy) is estimated: "samples", from the likelihood of the reference's own answers (up
            to a constant); "base", exactly along these answers; "responses", exactly along the data's responses, which
            needs no such answers and holds only if the reference wrote them.
    """
    return pairwise("typo", score=logp(), link=logistic()) + lam * reference_kl(kl)
