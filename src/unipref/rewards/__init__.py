"""Declared models of what is good: scorers, and the designer's objectives made of them."""

from unipref.rewards.designer import DesignerObjectives, DesignerReport, Part, PartReport, Scale, scores_of
from unipref.rewards.judges import Judges
from unipref.rewards.scorers import make_scorer

__all__ = ["DesignerObjectives", "DesignerReport", "Judges", "Part", "PartReport", "Scale", "make_scorer", "scores_of"]
