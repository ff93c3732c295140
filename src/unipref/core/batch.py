"""What an objective sees: numbers per item, per pair and per scored token. No model, tokenizer or process group.

Shapes: I items, P pairs, T scored tokens (item after item).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.records import ROLES

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
        items: (I,) columns by name, or (I, d) where a column is a vector per item. "logp" is the policy's
            log-probability of the response (sum, nats, with gradient), "ref_logp" the reference's (further references:
            "ref_logp.NAME"), "len" scored tokens, "label" 1, 0 or NaN (nobody said), "weight" example weight, "reward"
            and other external scores (NaN: missing), "value" and other heads' output, "group" the record the item
            belongs to, "role" an index into ROLES (absent: all are responses), "uid" a number that is the same in every
            batch the item comes in.
        pairs: (P,) columns by name. "chosen" and "rejected" index items; "preference" is P(chosen preferred),
            "weight" the example weight, "margin" a margin in the data's units (NaN: missing).
        tokens: (T,) columns by name: "logp" (with gradient), "ref_logp", "item" (int64, into items), and what the data
            or the model says of single tokens. Empty where the caller has only sums.
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
            shapes = {key: tuple(value.shape) for key, value in columns.items()}
            dimensions = (1, 2) if name == "items" else (1,)
            if len({shape[:1] for shape in shapes.values()}) > 1 or any(
                len(shape) not in dimensions for shape in shapes.values()
            ):
                raise ShapeError(f"columns of {name} must have one length: {shapes}")

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

    def token(self, name: str) -> Tensor:
        """(T,) the token column `name`.

        Raises:
            ConfigError: it is not in the batch.
        """
        try:
            return self.tokens[name]
        except KeyError:
            present = ", ".join(sorted(self.tokens)) or "sums of responses only"
            raise ConfigError(f"the objective needs the column {name!r} per token; the batch has {present}") from None

    def side(self, name: str, which: str) -> Tensor:
        """(P,) the item column `name` on the `which` side of each pair: "chosen" or "rejected"."""
        if which not in self.pairs:
            raise ConfigError("the objective compares two responses; the batch has no pairs")
        return self.item(name)[self.pairs[which]]

    def with_statistics(self, **values: Tensor) -> "Batch":
        """The same batch with further statistics."""
        return replace(self, statistics={**self.statistics, **values})

    @classmethod
    def cat(cls, batches: Sequence["Batch"]) -> "Batch":
        """The batches as one, with the statistics and the clock of the first.

        Raises:
            ConfigError: one has a column that another lacks.
        """
        first = batches[0]
        start = [0]
        for batch in batches:
            start.append(start[-1] + len(next(iter(batch.items.values()))))

        def joined(columns: Sequence[Mapping[str, Tensor]], pointers: tuple[str, ...]) -> dict[str, Tensor]:
            some = [(part, at) for part, at in zip(columns, start, strict=False) if part]  # no pairs in it: no columns
            names = {name for part, _ in some for name in part}
            lacking = sorted(name for name in names for part, _ in some if name not in part)
            if lacking:
                raise ConfigError(f"a part of the step lacks the columns {', '.join(dict.fromkeys(lacking))}")
            # records number their group from 0 in every batch, and there are no more of them than items
            return {
                name: torch.cat([part[name] + at if name in pointers else part[name] for part, at in some])
                for name in sorted(names)
            }

        return cls(
            items=joined([batch.items for batch in batches], ("group",)),
            pairs=joined([batch.pairs for batch in batches], ("chosen", "rejected")),
            tokens=joined([batch.tokens for batch in batches], ("item",)),
            statistics=first.statistics,
            clock=first.clock,
        )

    @classmethod
    def from_fields(cls, *, clock: Clock | None = None, **fields: Tensor) -> "Batch":
        """A batch from flat fields, the form a user's own loop has.

        Pairs: NAME_chosen and NAME_rejected, each (P,), for NAME in logp, ref_logp, len, reward, value, ...; plus
        `preference`, `weight`, `margin`, each (P,). A further text of each pair: NAME_gold, NAME_base, ... for the
        roles of ROLES, each (P,). Single responses and lists: NAME and `label`, `weight`, `group`, each (I,). Tokens:
        token_NAME, each (T,), item after item (chosen, then rejected, then further roles), with `len` saying whose they
        are; `logp` and `ref_logp` are then their sums where they are not given. Fields of 0 dimensions are statistics
        (`kl_baseline`).

        Raises:
            ConfigError: pair fields and single fields are mixed, or a side is missing.
        """
        tensors = {name: torch.as_tensor(value) for name, value in fields.items()}
        statistics = {name: value for name, value in tensors.items() if value.ndim == 0}
        tokens = {name.removeprefix("token_"): v for name, v in tensors.items() if name.startswith("token_")}
        columns = {n: v for n, v in tensors.items() if v.ndim > 0 and not n.startswith("token_")}
        pairs: dict[str, Tensor] = {}
        if any(name.endswith(("_chosen", "_rejected")) for name in columns):
            items, pairs = _sides(columns)
        else:
            items = columns
        if tokens:
            tokens, sums = _of_tokens(tokens, items)
            items = {**sums, **items}
        return cls(items=items, pairs=pairs, tokens=tokens, statistics=statistics, clock=clock or Clock())


def _sides(columns: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Item and pair columns of pair fields: chosen responses first, then rejected ones, then further roles."""
    roles = ("chosen", "rejected", *ROLES[1:])
    found: dict[str, dict[str, Tensor]] = {role: {} for role in roles}
    extra = {}
    for name, value in columns.items():
        role = next((role for role in roles if name.endswith(f"_{role}")), None)
        if role is None:
            extra[name] = value
        else:
            found[role][name.removesuffix(f"_{role}")] = value
    names = {**found["chosen"], **found["rejected"]}
    missing = sorted(f"{n}_{s}" for n in names for s in ("chosen", "rejected") if n not in found[s])
    if missing:
        raise ConfigError(f"each pair field needs both sides; missing: {', '.join(missing)}")
    unknown = sorted(set(extra) - {"preference", "weight", "margin"})
    if unknown:
        raise ConfigError(f"fields of single responses among pair fields: {', '.join(unknown)}; give both sides")
    strangers = sorted(f"{n}_{r}" for r in ROLES[1:] for n in found[r] if n not in names)
    if strangers:
        raise ConfigError(f"{', '.join(strangers)} stand alone; the pair's own sides need these fields too")
    present = [role for role in roles if found[role]]
    some = next(iter(found["chosen"].values()))
    n_pairs, device = len(some), some.device
    row = torch.arange(n_pairs, device=device)

    def column(name: str) -> Tensor:
        like = found["chosen"][name]
        empty = like.new_full(like.shape, float("nan")) if like.is_floating_point() else torch.zeros_like(like)
        return torch.cat([found[role].get(name, empty) for role in present])

    items = {name: column(name) for name in sorted(names)}
    label = {"chosen": 1.0, "rejected": 0.0}
    items["label"] = torch.cat([torch.full((n_pairs,), label.get(r, float("nan")), device=device) for r in present])
    items["group"] = row.repeat(len(present))
    if len(present) > 2:
        code = {role: i for i, role in enumerate(ROLES)}
        items["role"] = torch.cat([torch.full((n_pairs,), code.get(r, 0), device=device) for r in present])
    if "weight" in extra:
        items["weight"] = extra["weight"].repeat(len(present))
    return items, {"chosen": row, "rejected": row + n_pairs, **extra}


def _of_tokens(
    tokens: Mapping[str, Tensor], items: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Token columns with the item each belongs to, and the sums of log-probabilities per item."""
    if "len" not in items:
        raise ConfigError("token fields need `len`, the tokens of each response, to say whose they are")
    n_items = len(items["len"])
    item = torch.repeat_interleave(torch.arange(n_items, device=items["len"].device), items["len"].long())
    wrong = {name: len(value) for name, value in tokens.items() if len(value) != len(item)}
    if wrong:
        raise ShapeError(f"the responses have {len(item)} tokens by their `len`, but the token fields have {wrong}")
    sums = {
        name: value.new_zeros(n_items).index_add(0, item, value)
        for name, value in tokens.items()
        if name in ("logp", "kl") or name.startswith("ref_logp")
    }
    return {**tokens, "item": item}, sums
