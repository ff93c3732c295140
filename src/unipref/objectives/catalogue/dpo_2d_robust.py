"""Robust two-dimensional DPO: the judge's numbers are noisy."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.catalogue.dpo_2d import SEGMENT_EXCEPTIONS, SEGMENT_FIELDS, matched_segments
from unipref.objectives.segments import denoised_segments, flipped_segments, worst_segments
from unipref.objectives.terms import Term

_ESTIMATORS = {
    "gaussian": lambda noise: denoised_segments(noise=noise),
    "conservative": lambda noise: denoised_segments(noise=noise, conservative=True),
    "flip": lambda noise: flipped_segments(flip=noise),
    "worst_case": lambda noise: worst_segments(radius=noise),
}


@method(
    "dpo_2d_robust",
    source="arXiv:2505.01706",
    status="reconstructed",
    formula="sum_i f(u_i) - 1/2 sigmoid'(u_i) noise^2 beta^2 (h_c,i^2 + h_r,i^2), f = -log sigmoid, u of dpo_2d",
    needs=("chosen", "rejected", "ref_logp", "segment", "segment_score"),
    citation=Citation(
        "Inducing Robustness in a 2 Dimensional Direct Preference Optimization Paradigm",
        ("Sarvesh Shashidhar", "Ritik", "Nachiketa Patil", "Suraj Racha", "Ganesh Ramakrishnan"),
        2025,
        "2505.01706",
    ),
    exceptions=SEGMENT_EXCEPTIONS,
    limits=[
        Limit({"estimator": name, "noise": 0.0}, "dpo_2d", note="without noise")
        for name in ("gaussian", "conservative", "flip", "worst_case")
    ],
    # as dpo_2d's: u = .4 and .01 with (h_c, h_r) = (1, -.2) and (.3, .4), each times .1; noise .5:
    # 1.2011749 - .5 * .25 * .01 * (.2402607 * 1.04 + .2499938 * .25)
    golden=[({"beta": 0.1, "noise": 0.5}, SEGMENT_FIELDS, 1.2007845)],
)
def dpo_2d_robust(*, beta: float = 0.1, estimator: str = "gaussian", noise: float = 0.25) -> Term:
    """2D-DPO for noisy numbers: by default its loss is, on average over the noise, nearly that of clean ones.

    Reconstructed: the paper's equation was found nowhere, and its repository holds the plain loss. Three estimators of
    our own stand for it: "gaussian" takes the second-order effect of Gaussian noise away ("conservative" adds it),
    "flip" is unbiased where matched segments are swapped at a known rate, "worst_case" is the largest loss that numbers
    off by a bounded amount can make. Which segments are matched is decided by the numbers as they are, in all three.
    The Gaussian effect is held where noise * beta * |h| is above 1, since the expansion fails there.

    Args:
        beta: as for dpo_2d.
        estimator: "gaussian", "conservative", "flip" or "worst_case".
        noise: the numbers' standard deviation, the rate of swaps (below 1/2), or the largest error, by `estimator`;
            0.25 is chosen by us.
    """
    if estimator not in _ESTIMATORS:
        raise ConfigError(f"dpo_2d_robust(estimator={estimator!r}){nearest(str(estimator), _ESTIMATORS)}")
    return matched_segments("dpo_2d_robust", beta, _ESTIMATORS[estimator](noise))
