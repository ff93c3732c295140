"""Texts as vectors: sentence models, hashed words and letters, countable properties.

An `Embedder` reads texts alone, so that prompts and responses have vectors of one kind; `OfResponses` reads a response
beside its prompt. Any object with these attributes is one: a user's own model needs no base class.
"""

from unipref.features.embedding._encoder import Encoder, minilm, minilm_installed
from unipref.features.embedding._hashed import Hashed, bag_of_words
from unipref.features.embedding._port import Embedder, OfResponses, embeds_texts
from unipref.features.embedding._registry import EMBEDDERS, default_embedder, make_embedder
from unipref.features.embedding._surface import SurfaceVector

__all__ = [
    "EMBEDDERS",
    "Embedder",
    "Encoder",
    "Hashed",
    "OfResponses",
    "SurfaceVector",
    "bag_of_words",
    "default_embedder",
    "embeds_texts",
    "make_embedder",
    "minilm",
    "minilm_installed",
]
