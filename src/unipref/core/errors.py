"""Errors a user meets. Each message names the thing, what was expected, what arrived, and the next step."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = ["ConfigError", "DataError", "MissingExtraError", "ShapeError", "UniprefError", "import_extra", "nearest"]


class UniprefError(Exception):
    """Base of every error that is the user's to mend; the command line prints its message without a traceback."""


class ConfigError(UniprefError, ValueError):
    """A recipe, an option or an argument does not fit."""


class DataError(UniprefError, ValueError):
    """A data file cannot be read as what it claims to be."""


class ShapeError(UniprefError, ValueError):
    """Tensors or arrays disagree on a shape."""


class MissingExtraError(UniprefError, ImportError):
    """An optional dependency is not installed."""


def import_extra(module: str, *, extra: str, use: str) -> ModuleType:
    """The optional module `module`, imported now.

    Args:
        module: dotted name, e.g. "datasets".
        extra: the extra of this package that installs it.
        use: what it is needed for, as the end of "... is needed to ...".

    Raises:
        MissingExtraError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingExtraError(
            f"the package {module.split('.')[0]!r} is needed to {use}; install it with: pip install 'unipref[{extra}]'"
        ) from err


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: " (did you mean 'dpo'?)", or the list of what is known where nothing is near.

    Example:
        >>> nearest("dop", ["dpo", "ipo"])
        " (did you mean 'dpo'?)"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"
