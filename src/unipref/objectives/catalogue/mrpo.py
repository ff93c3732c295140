"""Multi-reference preference optimization."""

from collections.abc import Sequence

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.bounds import harmonic_mixture
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise


@method(
    "mrpo",
    source="arXiv:2405.16388, as in github.com/thaihungle/MRPO",
    formula="-log sigmoid(beta * d(logp - log mix)), 1 / mix = alpha / ref + (1 - alpha) / clip(ref.1 near ref)",
    needs=("chosen", "rejected", "ref_logp", "ref_logp.1"),
    citation=Citation(
        "Multi-Reference Preference Optimization for Large Language Models",
        ("Hung Le", "Quan Tran", "Dung Nguyen", "Kien Do", "Saloni Mittal", "Kelechi Ogueji", "Svetha Venkatesh"),
        2024,
        "2405.16388",
    ),
    exceptions={"G1": "at the base the mixture is another policy"},
    limits=[
        Limit({"epsilon": 0.0}, "dpo"),
        Limit({}, "dpo", where={"ref_logp": -5.0, "ref_logp.1": -5.0}, note="equal references are one"),
        Limit({"alpha": 1.0, "epsilon": None}, "dpo", note="with weight_on='other', 1 is the base alone"),
        Limit({"alpha": 0.0, "weight_on": "own"}, "dpo"),
    ],
    # nothing held, alpha = 1/2: chosen e^-1 and e^-2, 1 / mix = (e + e^2) / 2, log mix = -1.6201145;
    # rejected -3 and -3. z = 0.1 * ((-1 + 1.6201145) - (-3 + 3)) = 0.06201145
    golden=[
        (
            {"alpha": 0.5, "epsilon": None},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -3.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -3.0,
                "ref_logp.1_chosen": -2.0,
                "ref_logp.1_rejected": -3.0,
            },
            0.6626221,
        )
    ],
)
def mrpo(
    *,
    beta: float = 0.1,
    extra: Sequence[str] = ("ref_logp.1",),
    alpha: float | None = None,
    epsilon: float | None = 0.1,
    weight_on: str = "other",
) -> Term:
    """DPO against the harmonic mixture of several references, the further ones held near the base.

    Probabilities mix as 1 / mix = sum_k w_k / ref_k, so the least sure reference rules a response. Logged implicit
    rewards are against the base. The released trainer also exchanges the base for the policy whenever validation
    improves; here it stays. Its baseline "Multi-DPO" with a fixed alpha is
    `alpha * mrpo(alpha=1.0, weight_on="own") + (1 - alpha) * dpo()`.

    Args:
        extra: columns of the further references; "ref_logp" is the base. The released code has one.
        alpha: confidence of the further references together, in [0, 1]; None, the default, takes it pair by pair from
            how far each reference parts the pair.
        epsilon: how far a further log-probability may be from the base's, relative to it, over both sides of a pair
            together; negative: |epsilon| on either side; None holds nothing.
        weight_on: whose 1 / ref_k a confidence weighs: "other" as in the released code, where the two are crossed, so
            that a sure reference counts less; "own" is what the text asks for, as far as we know, and all there is for
            more than two. The code is the default since only it could be read.
    """
    mixture = harmonic_mixture(beta, tuple(extra), epsilon, alpha, weight_on)
    return pairwise("mrpo", score=log_ratio(beta), offset=(mixture,), link=logistic())
