"""Embedders by the names that a recipe gives them."""

from collections.abc import Callable, Mapping
from typing import Any

from unipref.core.errors import ConfigError, nearest
from unipref.features.embedding._encoder import Encoder, minilm, minilm_installed
from unipref.features.embedding._hashed import Hashed, bag_of_words
from unipref.features.embedding._port import Embedder, OfResponses
from unipref.features.embedding._surface import SurfaceVector

__all__ = ["EMBEDDERS", "default_embedder", "make_embedder"]

# name -> what makes it of its options
EMBEDDERS: dict[str, Callable[..., Embedder | OfResponses]] = {
    "minilm": minilm,
    "hashed": Hashed,
    "bag_of_words": bag_of_words,
    "model": Encoder,
    "surface": SurfaceVector,
}


def default_embedder() -> str:
    """The name of the embedder that is taken where none is named: the sentence model where it is installed."""
    return "minilm" if minilm_installed() else "hashed"


def make_embedder(choice: str | Mapping[str, Any]) -> Embedder | OfResponses:
    """The embedder that `choice` names: a name, or a name with options; "default" is `default_embedder()`.

    Raises:
        ConfigError: no such embedder, or an option that it has not.
        MissingExtraError: what it needs is not installed.

    Example:
        >>> make_embedder({"hashed": {"dimension": 256}}).dimension
        256
    """
    if isinstance(choice, Mapping):
        if len(choice) != 1:
            raise ConfigError(f"features are given as NAME or as one NAME: OPTIONS, not {dict(choice)!r}")
        ((name, options),) = choice.items()
        options = {} if options is None else options
    else:
        name, options = choice, {}
    name = default_embedder() if name == "default" else name
    if name not in EMBEDDERS:
        raise ConfigError(f"no features named {name!r}{nearest(str(name), EMBEDDERS)}")
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"the options of the features {name} are a mapping from names to values, not {options!r}")
    try:
        return EMBEDDERS[name](**options)
    except TypeError as err:
        raise ConfigError(f"the features {name} cannot be made of {dict(options)!r}: {err}") from err
