"""What a trained policy is worth: held-out preferences, designer objectives, distance from the reference, alarms."""

from unipref.evaluate._alarms import DEFAULT_BOUNDS, alarms
from unipref.evaluate._calibration import calibration, temperature_of
from unipref.evaluate._comparison import SELECTIONS, against_baseline, selection_scores, unpaired
from unipref.evaluate._dynamics import dynamics, log_gradient_ratio
from unipref.evaluate._fronts import fronts, hypervolume, non_dominated
from unipref.evaluate._rows import generation_rows, pair_rows
from unipref.evaluate._summary import differences, metrics_of, summarise, summarise_reference

__all__ = [
    "DEFAULT_BOUNDS",
    "SELECTIONS",
    "against_baseline",
    "alarms",
    "calibration",
    "differences",
    "dynamics",
    "fronts",
    "generation_rows",
    "hypervolume",
    "log_gradient_ratio",
    "metrics_of",
    "non_dominated",
    "pair_rows",
    "selection_scores",
    "summarise",
    "summarise_reference",
    "temperature_of",
    "unpaired",
]
