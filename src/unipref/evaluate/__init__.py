"""What a trained policy is worth: held-out preferences, designer objectives, distance from the reference, alarms.

And what a preference model is worth on pairs that it was not fitted to.
"""

from unipref.evaluate._alarms import DEFAULT_BOUNDS, alarms
from unipref.evaluate._best_of import best_of_n
from unipref.evaluate._calibration import calibration, temperature_of
from unipref.evaluate._comparison import SELECTIONS, against_baseline, selection_scores, unpaired
from unipref.evaluate._dynamics import dynamics, log_gradient_ratio
from unipref.evaluate._fronts import fronts, hypervolume, non_dominated
from unipref.evaluate._preferences import HeldOutPairs, Judgement, evaluate_preferences
from unipref.evaluate._rows import generation_rows, pair_rows
from unipref.evaluate._sections import REWARD_BENCH
from unipref.evaluate._shares import personalisation_bias
from unipref.evaluate._summary import differences, metrics_of, summarise, summarise_reference

__all__ = [
    "DEFAULT_BOUNDS",
    "REWARD_BENCH",
    "SELECTIONS",
    "HeldOutPairs",
    "Judgement",
    "against_baseline",
    "alarms",
    "best_of_n",
    "calibration",
    "differences",
    "dynamics",
    "evaluate_preferences",
    "fronts",
    "generation_rows",
    "hypervolume",
    "log_gradient_ratio",
    "metrics_of",
    "non_dominated",
    "pair_rows",
    "personalisation_bias",
    "selection_scores",
    "summarise",
    "summarise_reference",
    "temperature_of",
    "unpaired",
]
