"""Binary classifier optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import difference
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.states import moving, reading
from unipref.objectives.terms import Term, pointwise
from unipref.objectives.units import point
from unipref.objectives.weights import density_ratio as by_density
from unipref.objectives.weights import one


@method(
    "bco",
    source="arXiv:2404.04656, as in the BCOTrainer that TRL had",
    status="reconstructed",
    formula="-log sigmoid(beta h - delta) desirable, -log sigmoid(delta - beta h) undesirable, delta = mean of beta h",
    needs=("label", "ref_logp"),
    coupling="statistic",
    citation=Citation(
        "Binary Classifier Optimization for Large Language Model Alignment",
        ("Seungjae Jung", "Gunsoo Han", "Daniel Wontae Nam", "Kyoung-Woon On"),
        2024,
        "2404.04656",
    ),
    exceptions={
        "L2": "responses are judged one by one, against the running mean of rewards",
        "G1": "the running mean is the world's; where it is 0, as at the start, the loss at the reference is log 2",
        "G4": "responses are judged one by one; a common shift is what the running mean answers",
    },
    golden=[
        (
            {},
            {"logp": [-1.0, -21.0], "ref_logp": [-11.0, -11.0], "label": [1, 0], "bco_reward_mean": 0.5},
            0.3377452,
        ),  # (ln(1 + e^-0.5) + ln(1 + e^-1.5)) / 2
        (
            {"density_ratio": True},
            {
                "logp": [-1.0, -21.0],
                "ref_logp": [-11.0, -11.0],
                "label": [1, 0],
                "density_ratio": [3.0, 2.0],
                "bco_reward_mean": 0.5,
            },
            0.4384518,
        ),  # (ln(1 + e^-0.5) + 2 ln(1 + e^-1.5)) / 2
    ],
)
def bco(
    *,
    beta: float = 0.1,
    momentum: float = 0.9,
    density_ratio: bool = False,
    least_ratio: float = 0.5,
    most_ratio: float = 10.0,
) -> Term:
    """Thumbs up and down told apart by a logistic classifier whose logit is the implicit reward over its running mean.

    delta, the mean of beta * h over labelled responses, is renewed before each step's loss and carries no gradient.
    TRL 1.16 has no trainer for it, and its `bco_pair` has no delta and adds the two sides instead of averaging.

    Reconstructed: read in the trainer that TRL had, not in the paper. There delta is a mean over the whole run; here it
    is one over a window of some ten steps, since that of a run lags behind a policy that moves. In both it is over all
    labelled responses, which is the mean of the two classes' means where they are equally many.

    Args:
        beta: scale of the log-ratio.
        momentum: share of the past in delta; 0 is the step's own mean. Chosen by us.
        density_ratio: weigh undesirable responses by the column `density_ratio`, p(prompt | desirable) over
            p(prompt | undesirable), for thumbs whose two classes answer different prompts.
        least_ratio, most_ratio: bounds of that ratio, as in TRL's former trainer.
    """
    reward = log_ratio(beta)
    mean = reading(moving("bco_reward", reward, point("labelled"), momentum))
    weight = by_density(column("density_ratio"), least_ratio, most_ratio) if density_ratio else one()
    return pointwise(
        "bco", score=reward, of="labelled", offset=(difference(mean, -1.0),), link=logistic(), weight=weight
    )
