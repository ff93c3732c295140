"""Tree preference optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.lists import ndcg_gap, pair_logistic
from unipref.objectives.scores import column
from unipref.objectives.steps import step_score
from unipref.objectives.targets import reach
from unipref.objectives.terms import Term, groupwise


@method(
    "tpo_tree",
    source="arXiv:2410.12854; step weights as in the authors' loss.py",
    status="reconstructed",
    formula="-sum over r_i > r_j of lambda_ij log sigmoid(s_i - s_j), s = beta * sum_k w_k mean_k(h) / sum_k w_k",
    needs=("group", "reward", "segment", "step_weight", "ref_logp"),
    citation=Citation(
        "TPO: Aligning Large Language Models with Multi-branch & Multi-step Preference Trees",
        ("Weibin Liao", "Xu Chu", "Yasha Wang"),
        2024,
        "2410.12854",
    ),
    exceptions={
        "L2": "a step's score is a mean over tokens, so a shift of sums differs with length",
        "G1": "pairs are weighted by what their swap changes in DCG",
        "G4": "a step's score is a mean over tokens, so a shift of sums differs with length",
    },
    # first response: steps of means 1 and 3, weights 2 and 1: s = (2 + 3) / 3; second: one token, s = 0;
    # the second has one step, so the first one's are one: weights (2, 2, 1), mean (1 + 1 + 3) / 3 = 5/3;
    # lambda = (2 - 1) (1/log 2 - 1/log 3) = .5324558: .5324558 log(1 + e^(-5/6))
    golden=[
        (
            {},
            {
                "token_logp": [-1.0, -1.0, -1.0, -2.0],
                "token_ref_logp": [-2.0, -2.0, -4.0, -2.0],
                "token_segment": [0.0, 0.0, 1.0, 0.0],
                "token_step_weight": [2.0, 2.0, 1.0, 2.0],
                "len": [3, 1],
                "reward": [1.0, 0.0],
                "group": [0, 0],
            },
            0.1921552,
        )
    ],
)
def tpo_tree(*, beta: float = 0.5, scale: float = 1.0) -> Term:
    """A lambda-weighted list loss on responses that are paths of a tree, scored step by step.

    Each step counts by its mean log-ratio and its weight, 1 + the cosine of its hidden state with that of the best
    response's same step: shared steps weigh 2, opposite ones 0. Steps beyond the record's shortest response are one
    with its last. A record with a missing reward does not count, and equal rewards give 0.

    Reconstructed: the step weights are the authors' code's; the list loss is LiPO's, since the released one is no
    ranking loss: it reads labels without the next-token shift, has no lambda weights, adds log 2 for every tie and
    every response against itself, and wraps the sum in -log sigmoid, so that it falls as the ranking gets worse. None
    of this is here. The paper weighs pairs of steps; the code, and this, single ones.

    Args:
        beta: the authors' value.
        scale: of the rewards before 2^reward: judges' scores of -100 to 100 need 0.01.
    """
    return groupwise(
        "tpo_tree", score=step_score(beta), link=pair_logistic(ndcg_gap()), target=reach(column("reward"), scale)
    )
