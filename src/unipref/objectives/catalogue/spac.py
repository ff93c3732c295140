"""Self-play with an adversarial critic."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import linear, logistic
from unipref.objectives.scores import clipped, log_ratio
from unipref.objectives.terms import Objective, Term, pointwise

_BOUNDS = ("clip", "log-sigmoid", "none")


@method(
    "spac",
    source="arXiv:2406.04274 Algorithm 2, as reported",
    status="reconstructed",
    formula="-log sigmoid(dh / eta) - lam * mean log sigmoid(-h) of policy samples, h = logp - ref_logp",
    needs=("chosen", "rejected", "ref_logp", "policy_sample"),
    citation=Citation(
        "Self-Play with Adversarial Critic: Provable and Scalable Offline Alignment for Language Models",
        ("Xiang Ji", "Sanjeev Kulkarni", "Mengdi Wang", "Tengyang Xie"),
        2024,
        "2406.04274",
    ),
    exceptions={
        "L2": "samples' log-ratios stand alone",
        "G1": "samples' log-ratios count too; where they stand at their reference the loss is (1 + lam) log 2",
        "G4": "samples' log-ratios stand alone",
    },
    limits=[Limit({"lam": 0.0}, "dpo")],
    golden=[
        # ln(1 + e^-2) + 0.1 ln(1 + e^2)
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "logp_policy_sample": -1.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp_policy_sample": -3.0,
            },
            0.3396208,
        ),
        # ln(1 + e^-2) + 0.1 (2 + 1)
        (
            {"bound": "none", "baseline": True},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "logp_policy_sample": -1.0,
                "logp_baseline_sample": -4.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp_policy_sample": -3.0,
                "ref_logp_baseline_sample": -3.0,
            },
            0.4269280,
        ),
    ],
)
def spac(
    *, eta: float = 10.0, lam: float = 0.1, bound: str = "log-sigmoid", clip: float = 10.0, baseline: bool = False
) -> Objective:
    """DPO against the last iterate, whose implicit critic is pushed down on that iterate's own answers.

    The reference is the iterate that the stage starts from, and it wrote the samples in the role `policy_sample`.
    Algorithm 2 adds lam times the mean log-ratio of these, which is `bound="none"` and has no lower bound: samples can
    be pushed down without end. The log-sigmoid holds it at 0, with half of the slope at the iterate and less the
    further a sample has fallen. On average over the iterate's samples the gradient is 0 at the iterate: the term adds
    to a move that the preferences begin.

    Reconstructed: Algorithm 2 was not read but reported, and so was a smoothing by a log-sigmoid; that it is this one,
    and the sizes of eta and lam, are our reading. The clip and the samples of a baseline are ours.

    Args:
        eta: step size; 1 / eta is DPO's beta.
        lam: weight of the pessimism beside the preferences; at 0 it is DPO.
        bound: what holds a sample's log-ratio h: "log-sigmoid", -log sigmoid(-h) in its place; "clip", no gradient
            beyond `clip` nats from 0; "none".
        clip: see `bound`.
        baseline: the same of samples in the role `baseline_sample`, from the data or the first reference, with the sign
            turned.
    """
    if eta <= 0:
        raise ConfigError(f"eta is a step size, above 0: {eta}")
    if bound not in _BOUNDS:
        raise ConfigError(f"spac(bound={bound!r}){nearest(str(bound), _BOUNDS)}")

    def pushed(role: str, sign: float) -> Term:
        score = clipped(log_ratio(sign), clip) if bound == "clip" else log_ratio(sign)
        link = logistic() if bound == "log-sigmoid" else linear()
        return pointwise(role, score=score, of=role, link=link, role="anchor")

    found = dpo(beta=1 / eta) + lam * pushed("policy_sample", -1.0)
    return found + lam * pushed("baseline_sample", 1.0) if baseline else found
