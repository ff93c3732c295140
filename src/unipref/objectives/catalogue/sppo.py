"""Self-play preference optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import expectile
from unipref.objectives.scores import affine, column, log_ratio
from unipref.objectives.targets import reach
from unipref.objectives.terms import Term, pointwise


@method(
    "sppo",
    source="arXiv:2405.00675 Eq. 4.7, as in github.com/uclaml/SPPO",
    formula="(h - (P - 1/2) / beta)^2, P = probability that y beats the iterate's own answers",
    needs=("ref_logp", "win_rate"),
    citation=Citation(
        "Self-Play Preference Optimization for Language Model Alignment",
        ("Yue Wu", "Zhiqing Sun", "Huizhuo Yuan", "Kaixuan Ji", "Yiming Yang", "Quanquan Gu"),
        2024,
        "2405.00675",
    ),
    exceptions={
        "L2": "responses are fitted one by one; the log-partition is taken to be 1 / (2 beta), whatever the prompt",
        "G1": "the loss at the reference is the mean square of the targets",
        "G4": "responses are fitted one by one",
    },
    golden=[
        (
            {"beta": 1.0},
            {"logp": [-1.0, -3.0], "ref_logp": [-2.0, -2.0], "win_rate": [1.0, 0.0]},
            0.25,
        )  # ((1 - 0.5)^2 + (-1 + 0.5)^2) / 2
    ],
)
def sppo(*, beta: float = 1e-3) -> Term:
    """Log-ratio to the last iterate regressed on how often a response beats that iterate, centred and over beta.

    The reference must be the iterate that wrote the responses. `win_rate` is in [0, 1], 1/2 for a response as good as
    the iterate's own; a response without one does not count. The mean is over responses; TRL's `sppo_hard` (P = 1 and
    0) adds the two of a pair and is twice this.

    Args:
        beta: 1 / eta; 1e-3 in the authors' runs, so that a sure win asks for 500 nats.
    """
    target = reach(affine(column("win_rate"), 1 / beta, -0.5))
    return 2.0 * pointwise("sppo", score=log_ratio(), target=target, link=expectile(0.5))  # 2 * u^2 / 2
