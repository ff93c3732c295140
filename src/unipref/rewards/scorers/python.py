"""Anyone's own score: a Python function, by import path."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Text, as_written, plain_text
from unipref.rewards.scorers._common import UNIPREF

__all__ = ["PythonFunction"]


@method("python", kind="scorer", source="unipref", formula="function(contexts, responses)", citation=UNIPREF)
@dataclass(frozen=True)
class PythonFunction:
    """A Python function of contexts and responses.

    The function takes two lists of the same length and returns as many numbers (a list, an array or a tensor), with
    None or NaN where it has no opinion. A response is a string; a context is a string, or a list of
    {"role": ..., "content": ...} where the data are conversations.

    Args:
        function: "package.module:function"; modules in the working directory are found, too.
        version: change it whenever the function's scores change. The function's own attribute `version` where not
            given; with neither its scores are not stored, and computed anew in every run.
    """

    function: str
    version: str | None = None

    def __post_init__(self) -> None:
        module, colon, attribute = self.function.partition(":") if isinstance(self.function, str) else ("", "", "")
        if not (colon and module and attribute):
            raise ConfigError(f"python: function is an import path like 'my_rewards:politeness', not {self.function!r}")
        own = getattr(self.loaded, "version", None) if self.version is None else self.version
        object.__setattr__(self, "version", None if own is None else str(own))

    @property
    def name(self) -> str:
        return f"python {self.function}"

    @cached_property
    def loaded(self) -> Callable[..., Any]:
        """The function itself."""
        name, _, path = self.function.partition(":")
        here = str(Path.cwd())
        sys.path.insert(0, here)
        try:
            found: Any = importlib.import_module(name)
        except Exception as err:  # whatever the module's own code raises
            raise ConfigError(
                f"python: {self.function!r} cannot be imported ({type(err).__name__}: {err}); modules are looked "
                f"for in {here} and among the installed packages"
            ) from err
        finally:
            sys.path.remove(here)
        for attribute in path.split("."):
            if not hasattr(found, attribute):
                raise ConfigError(f"python: {name!r} has no {path!r}{nearest(attribute, _functions(found))}")
            found = getattr(found, attribute)
        if not callable(found):
            raise ConfigError(f"python: {self.function!r} is a {type(found).__name__}, not a function")
        return found

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) float64, NaN for None.

        Raises:
            ConfigError: what the function returns is not one finite or missing number per response.
        """
        returned = self.loaded([as_written(context) for context in contexts], [plain_text(text) for text in responses])
        if hasattr(returned, "detach"):  # a tensor, perhaps on another device or in bfloat16
            returned = returned.detach().cpu().double().numpy()
        try:
            values = np.array([np.nan if value is None else value for value in returned], dtype=np.float64)
        except (TypeError, ValueError) as err:
            raise ConfigError(
                f"python: {self.function!r} must return one number per response, as a list or array of "
                f"{len(responses)}; it returned a {type(returned).__name__} ({err})"
            ) from err
        if values.shape != (len(responses),):
            raise ConfigError(
                f"python: {self.function!r} returned values of shape {values.shape} for {len(responses)} responses"
            )
        if np.isinf(values).any():
            raise ConfigError(f"python: {self.function!r} returned an infinite score; return None where there is none")
        return values


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
