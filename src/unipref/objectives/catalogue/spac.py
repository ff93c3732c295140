"""Self-play with an adversarial critic."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import linear
from unipref.objectives.scores import clipped, log_ratio
from unipref.objectives.terms import Objective, pointwise


@method(
    "spac",
    source="arXiv:2406.04274, from the abstract",
    status="reconstructed",
    formula="-lam * log sigmoid(dh / eta) + (mean clip(h) of policy samples - mean clip(h) of baseline samples) / eta",
    needs=("chosen", "rejected", "ref_logp", "policy_sample", "baseline_sample"),
    citation=Citation(
        "Self-Play with Adversarial Critic: Provable and Scalable Offline Alignment for Language Models",
        ("Xiang Ji", "Sanjeev Kulkarni", "Mengdi Wang", "Tengyang Xie"),
        2024,
        "2406.04274",
    ),
    exceptions={
        "L2": "a sample's log-ratio does not count beyond its clip",
        "G1": "samples' log-ratios are added; where they too stand at their reference the loss is lam * log 2",
        "G4": "a sample's log-ratio does not count beyond its clip",
    },
    golden=[
        (
            {},
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
        )
    ],  # ln(1 + e^-2) + 0.1 (2 + 1)
)
def spac(*, eta: float = 10.0, lam: float = 1.0, clip: float | None = 10.0) -> Objective:
    """DPO against the last iterate, whose implicit critic is pushed down on that iterate's own answers.

    The reference is the iterate that the stage starts from, and it wrote the samples in the role `policy_sample`; those
    in the role `baseline_sample` come from the data or from the first reference. Where both come from one place the
    linear part has, on average, no gradient at the iterate.

    Reconstructed: the two players and the pessimism are read in the abstract; the single loss is what follows when the
    critic is written as the log-ratio of the next iterate, and the clipping is ours: the linear part has no lower
    bound.

    Args:
        eta: step size; 1 / eta is DPO's beta.
        lam: weight of the preferences beside the pessimism; the larger, the nearer to iterated DPO.
        clip: a sample's log-ratio counts within this many nats of 0 and has no gradient beyond; None lets it go on.
    """
    if eta <= 0:
        raise ConfigError(f"eta is a step size, above 0: {eta}")

    def held(sign: float):
        return log_ratio(sign) if clip is None else clipped(log_ratio(sign), clip)

    down = pointwise("policy_sample", score=held(-1.0), of="policy_sample", link=linear(), role="anchor")
    up = pointwise("baseline_sample", score=held(1.0), of="baseline_sample", link=linear(), role="anchor")
    return lam * dpo(beta=1 / eta) + (1 / eta) * down + (1 / eta) * up
