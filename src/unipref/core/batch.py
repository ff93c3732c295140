"""What an objective sees: numbers per item, per pair and per scored token. No model, tokenizer or process group.

Shapes: I items, P pairs, T scored tokens (item after item).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unipref.core.errors import ConfigError, ShapeError

__all__ = ["Batch", "Clock"]


@dataclass(frozen=True)
class Clock:
    """Where a run stands: `step` optimiser steps are done of `total`."""

    step: int = 0
    total: int = 1

    @property
    def share(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return self.step / max(self.total, 1)


@dataclass(frozen=True, eq=False)
class Batch:
    """Columns of one loss computation.

    Attributes:
        items: (I,) columns by name. "logp" is the policy's log-probability of the response (sum, nats, with gradient),
            "ref_logp" the reference's (further references: "ref_logp.NAME"), "len" scored tokens, "label" 1, 0 or NaN
            (nobody said), "weight" example weight, "reward" and other external scores (NaN: missing), "value" the
            value head's output, "group" the record the item belongs to.
        pairs: (P,) columns by name. "chosen" and "rejected" index items; "preference" is P(chosen preferred),
            "weight" the example weight, "margin" a margin in the data's units (NaN: missing).
        tokens: (T,) columns by name: "logp" (with gradient), "ref_logp", "item" (int64, into items). Empty where the
            caller has only sums.
        statistics: global 0-d numbers taken without gradient before the loss (KTO's "kl_baseline", ...).
        clock: for coefficients that change over the run.
    """

    items: Mapping[str, Tensor]
    pairs: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    clock: Clock = Clock()

    def __post_init__(self) -> None:
        for name, columns in (("items", self.items), ("pairs", self.pairs), ("tokens", self.tokens)):
            sizes = {key: tuple(value.shape) for key, value in columns.items()}
            if len({*sizes.values()}) > 1 or any(len(shape) != 1 for shape in sizes.values()):
                raise ShapeError(f"columns of {name} must be vectors of one length: {sizes}")

    def item(self, name: str) -> Tensor:
        """(I,) the item column `name`.

        Raises:
            ConfigError: it is not in the batch.
        """
        try:
            return self.items[name]
        except KeyError:
            present = ", ".join(sorted(self.items))
            raise ConfigError(
                f"the objective needs the column {name!r} per response; the batch has {present}"
            ) from None

    def side(self, name: str, which: str) -> Tensor:
        """(P,) the item column `name` on the `which` side of each pair: "chosen" or "rejected"."""
        if which not in self.pairs:
            raise ConfigError("the objective compares two responses; the batch has no pairs")
        return self.item(name)[self.pairs[which]]

    def with_statistics(self, **values: Tensor) -> "Batch":
        """The same batch with further statistics."""
        return replace(self, statistics={**self.statistics, **values})

    @classmethod
    def from_fields(cls, *, clock: Clock | None = None, **fields: Tensor) -> "Batch":
        """A batch from flat fields, the form a user's own loop has.

        Pairs: NAME_chosen and NAME_rejected, each (P,), for NAME in logp, ref_logp, len, reward, value, ...; plus
        `preference`, `weight`, `margin`, each (P,). Single responses: NAME and `label`, `weight`, each (I,). Fields of
        0 dimensions are statistics (`kl_baseline`).

        Raises:
            ConfigError: pair fields and single fields are mixed, or a side is missing.
        """
        tensors = {name: torch.as_tensor(value) for name, value in fields.items()}
        statistics = {name: value for name, value in tensors.items() if value.ndim == 0}
        columns = {name: value for name, value in tensors.items() if value.ndim > 0}
        sides = {name for name in columns if name.endswith(("_chosen", "_rejected"))}
        if not sides:
            return cls(items=columns, statistics=statistics, clock=clock or Clock())
        names = {name.rsplit("_", 1)[0] for name in sides}
        missing = sorted(f"{n}_{s}" for n in names for s in ("chosen", "rejected") if f"{n}_{s}" not in columns)
        if missing:
            raise ConfigError(f"each pair field needs both sides; missing: {', '.join(missing)}")
        extra = {name: columns[name] for name in columns if name not in sides}
        unknown = sorted(set(extra) - {"preference", "weight", "margin"})
        if unknown:
            raise ConfigError(f"fields of single responses among pair fields: {', '.join(unknown)}; give both sides")
        items = {n: torch.cat([columns[f"{n}_chosen"], columns[f"{n}_rejected"]]) for n in sorted(names)}
        n_pairs = len(columns[next(iter(sides))])
        device = columns[next(iter(sides))].device
        row = torch.arange(n_pairs, device=device)
        items["label"] = torch.cat([torch.ones(n_pairs, device=device), torch.zeros(n_pairs, device=device)])
        items["group"] = torch.cat([row, row])
        if "weight" in extra:
            items["weight"] = torch.cat([extra["weight"], extra["weight"]])
        pairs = {"chosen": row, "rejected": row + n_pairs, **extra}
        return cls(items=items, pairs=pairs, statistics=statistics, clock=clock or Clock())
