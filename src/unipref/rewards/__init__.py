"""Declared models of what is good: scorers, and the designer's objectives made of them."""

from unipref.rewards.designer import DesignerObjectives, DesignerReport, Part, PartReport, Scale
from unipref.rewards.scorers import make_scorer

__all__ = ["DesignerObjectives", "DesignerReport", "Part", "PartReport", "Scale", "make_scorer"]
