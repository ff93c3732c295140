"""What every part of an objective shares: its repr is its formula, and it says which columns it reads."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Part", "exact", "wide"]


def wide(values: Tensor) -> Tensor:
    """`values` in at least float32: half precision and integers become float32, float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def exact(values: Tensor) -> Tensor:
    """`values` in float64, for sums over a whole step; float32 on a device that has no float64 (Apple's MPS)."""
    return values.float() if values.device.type == "mps" else values.double()


class Part:
    """Base of the frozen dataclasses that terms are made of.

    Their classes have lower-case names, since they are read as a formula. `repr` shows what differs from the defaults
    and evaluates to an equal part.
    """

    couples = False  # the rows of a step enter together, so that all of them must be in one batch

    @property
    def reads(self) -> tuple[str, ...]:
        """Item columns that this part itself needs, besides "logp"."""
        return ()

    @property
    def token_reads(self) -> tuple[str, ...]:
        """Token columns that this part itself needs, "logp" among them."""
        return ()

    @property
    def reads_logp(self) -> bool:
        """Whether this part itself needs the policy's log-probabilities, of responses or of tokens."""
        return "logp" in self.token_reads

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles besides "response" that some text of the data must have for this part itself."""
        return ()

    @property
    def observed(self) -> tuple[str, ...]:
        """Columns among `reads` where NaN means that nobody measured; such rows do not count in the term."""
        return ()

    def walk(self) -> Iterator["Part"]:
        """This part and all parts inside it."""
        yield self
        for name in (f.name for f in fields(self)):  # type: ignore[arg-type]
            value = getattr(self, name)
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Part):
                    yield from inner.walk()

    def changed(self, change: Any) -> "Part":
        """The same part with `change` applied to every part inside it, innermost first, and then to itself."""
        inner = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Part):
                inner[f.name] = value.changed(change)
            elif isinstance(value, tuple) and any(isinstance(v, Part) for v in value):
                inner[f.name] = tuple(v.changed(change) if isinstance(v, Part) else v for v in value)
        return change(replace(self, **inner))  # type: ignore[type-var]

    def __repr__(self) -> str:
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}  # type: ignore[arg-type]
        shown = [f"{name}={value!r}" for name, (value, default) in values.items() if value != default]
        return f"{type(self).__name__}({', '.join(shown)})"
