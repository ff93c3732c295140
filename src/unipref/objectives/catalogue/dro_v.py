"""Direct reward optimisation with a value function."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import expectile
from unipref.objectives.scores import column, log_ratio, plus, value_head
from unipref.objectives.targets import reach
from unipref.objectives.terms import Term, pointwise


@method(
    "dro_v",
    source="arXiv:2405.19107",
    status="reconstructed",
    formula="(reward - V(x) - tau * h)^2 / 2",
    needs=("ref_logp", "reward", "value"),
    citation=Citation(
        "Offline Regularised Reinforcement Learning for Large Language Models Alignment",
        (
            "Pierre Harvey Richemond",
            "Yunhao Tang",
            "Daniel Guo",
            "Daniele Calandriello",
            "Mohammad Gheshlaghi Azar",
            "Rafael Rafailov",
            "Bernardo Avila Pires",
            "Eugene Tarassov",
            "Lucas Spangher",
            "Will Ellsworth",
            "Aliaksei Severyn",
            "Jonathan Mallinson",
            "Lior Shani",
            "Gil Shamir",
            "Rishabh Joshi",
            "Tianqi Liu",
            "Remi Munos",
            "Bilal Piot",
        ),
        2024,
        "2405.19107",
    ),
    exceptions={
        "L2": "responses are fitted one by one; a function of the prompt is what V takes up",
        "L9": "policy and value are fitted by one term, so that V carries that term's gradient",
        "G1": "the loss at the reference is the value's own error",
        "G4": "responses are fitted one by one; a common shift is what V takes up",
    },
    golden=[
        (
            {},
            {"logp": [-1.0, -3.0], "ref_logp": [-2.0, -2.0], "reward": [2.0, 0.0], "value": [0.5, 0.5]},
            0.125,
        )  # (2 - 0.5 - 1)^2 / 2 and (0 - 0.5 + 1)^2 / 2
    ],
)
def dro_v(*, tau: float = 1.0) -> Term:
    """Reward of a single response regressed on a value of its prompt plus tau times its log-ratio, both learned.

    No pairs are needed. At the optimum the policy is ref * e^(reward / tau), normalised by V(x). One square trains
    both: the policy's gradient is -tau * residual per log-probability and the value's is -residual. The logged implicit
    reward is V + tau * h; differences within a prompt are free of V.

    Reconstructed: the square is read in a digest, not in the paper; there the policy's gradient may be divided by tau,
    which is another learning rate for the policy.

    Args:
        tau: strength of the regulariser, in rewards per nat; 1 is chosen by us.
    """
    score = plus(log_ratio(tau), value_head())
    return pointwise("dro_v", score=score, target=reach(column("reward")), link=expectile(0.5))
