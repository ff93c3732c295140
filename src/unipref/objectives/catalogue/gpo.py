"""General preference optimization."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import expectile
from unipref.objectives.scores import affine, column, log_ratio
from unipref.objectives.targets import reach
from unipref.objectives.terms import Term, pointwise


@method(
    "gpo",
    source="arXiv:2410.02197, scores as in the authors' scripts",
    status="reconstructed",
    formula="(h - s / beta)^2, s = mean preference score against the iterate's own answers",
    needs=("ref_logp", "score"),
    citation=Citation(
        "Beyond Bradley-Terry Models: A General Preference Model for Language Model Alignment",
        ("Yifan Zhang", "Ge Zhang", "Yue Wu", "Kangping Xu", "Quanquan Gu"),
        2024,
        "2410.02197",
    ),
    exceptions={
        "L2": "responses are fitted one by one; scores of a group add up to 0, so its log-partition is near 0",
        "G1": "the loss at the reference is the mean square of the targets",
        "G4": "responses are fitted one by one",
    },
    golden=[
        (
            {"beta": 1.0},
            {"logp": [-1.0, -3.0], "ref_logp": [-2.0, -2.0], "score": [0.7, -0.7]},
            0.09,
        )  # (1 - 0.7)^2
    ],
    limits=[
        Limit(
            {}, "sppo", where={"score": 0.2, "win_rate": 0.7}, note="a score of P - 1/2 is SPPO; P itself would be off"
        )
    ],
)
def gpo(*, beta: float = 1e-3) -> Term:
    """Log-ratio to the last iterate regressed on a response's mean preference score against that iterate, over beta.

    The reference must be the iterate that wrote the responses. `score` is skew-symmetric (0 for a tie, negative for a
    loser), so nothing is subtracted; only probabilities would need 1/2 taken off, and that is `sppo`.

    Reconstructed: the numbers and the mean score are read in the authors' scripts; that the loss is this regression
    is inferred from the SPPO trainer that they call. They train on the best and the worst of 5 samples.

    Args:
        beta: 1e-3 in the authors' runs.
    """
    target = reach(affine(column("score"), 1 / beta))
    return 2.0 * pointwise("gpo", score=log_ratio(), target=target, link=expectile(0.5))  # 2 * u^2 / 2
