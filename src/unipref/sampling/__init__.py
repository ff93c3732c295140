"""Text drawn from a model."""

from unipref.sampling._generate import Sample, generate

__all__ = ["Sample", "generate"]
