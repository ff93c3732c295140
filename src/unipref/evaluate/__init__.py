"""What a trained policy is worth: held-out preferences, designer objectives, distance from the reference, alarms."""

from unipref.evaluate._alarms import DEFAULT_BOUNDS, alarms
from unipref.evaluate._rows import generation_rows, pair_rows
from unipref.evaluate._summary import differences, summarise, summarise_reference

__all__ = [
    "DEFAULT_BOUNDS",
    "alarms",
    "differences",
    "generation_rows",
    "pair_rows",
    "summarise",
    "summarise_reference",
]
