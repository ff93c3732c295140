"""Numbers that a text gives by itself, without a model."""

from unipref.features.readability import reading_grade, sentences, syllables, words

__all__ = ["reading_grade", "sentences", "syllables", "words"]
