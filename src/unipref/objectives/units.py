"""Units: what a term compares. Shapes: I items, P pairs, N rows of the term (items for points, pairs for pairs)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.parts import Part, wide

__all__ = ["SIDES", "pair", "point"]

SIDES = ("all", "demonstrations", "labelled", "preferred")
PER = ("response", "token")


def _weight(columns, size: int, device: torch.device) -> Tensor:
    weight = columns.get("weight")
    return torch.ones(size, device=device) if weight is None else wide(weight.detach())


@dataclass(frozen=True, repr=False)
class pair(Part):
    """The chosen response's number minus the rejected one's; a row is a pair, its weight the pair's."""

    def contrast(self, values: Tensor, batch: Batch) -> Tensor:
        """(P,) differences of (I,) `values`."""
        chosen, rejected = self._sides(batch)
        return values[chosen] - values[rejected]

    def holds(self, mask: Tensor, batch: Batch) -> Tensor:
        """(P,) where the (I,) `mask` holds on both sides."""
        chosen, rejected = self._sides(batch)
        return mask[chosen] & mask[rejected]

    def weight(self, batch: Batch) -> Tensor:
        """(P,) example weights."""
        chosen, _ = self._sides(batch)
        return _weight(batch.pairs, len(chosen), chosen.device)

    def size(self, batch: Batch) -> Tensor | float:
        """What a row counts in the denominator, before its weight."""
        return 1.0

    def preferred(self, batch: Batch) -> Tensor | None:
        """(P,) P(chosen preferred), or None where every label is hard."""
        preference = batch.pairs.get("preference")
        return None if preference is None else wide(preference.detach())

    def _sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        try:
            return batch.pairs["chosen"], batch.pairs["rejected"]
        except KeyError:
            raise ConfigError(
                "the objective compares two responses, and the batch has no pairs; give NAME_chosen and NAME_rejected"
            ) from None


@dataclass(frozen=True, repr=False)
class point(Part):
    """Responses one by one.

    Attributes:
        of: which responses count. "all"; "demonstrations": all but those with label 0; "labelled": those with a label;
            "preferred": the chosen side of every pair, with the pair's weight (the mean of both sides, by their
            probability of being preferred, where the pair has a soft label).
        per: what counts in the denominator, "response" or "token".
    """

    of: str = "all"
    per: str = "response"

    def __post_init__(self) -> None:
        for slot, value, known in (("of", self.of, SIDES), ("per", self.per, PER)):
            if value not in known:
                raise ConfigError(f"point({slot}={value!r}){nearest(str(value), known)}")

    @property
    def reads(self) -> tuple[str, ...]:
        label = ("label",) if self.of == "labelled" else ()
        return label + (("len",) if self.per == "token" else ())

    def contrast(self, values: Tensor, batch: Batch) -> Tensor:
        """(N,) the values themselves."""
        if self.of != "preferred":
            return values
        p = pair().preferred(batch)
        lead = pair().contrast(values, batch)
        chosen = values[batch.pairs["chosen"]]
        return chosen if p is None else chosen - (1 - p) * lead

    def holds(self, mask: Tensor, batch: Batch) -> Tensor:
        """(N,) the mask itself; in pairs, where it holds on both sides."""
        return pair().holds(mask, batch) if self.of == "preferred" else mask

    def weight(self, batch: Batch) -> Tensor:
        """(N,) example weights, 0 for responses that do not count."""
        if self.of == "preferred":
            return pair().weight(batch)
        some = next(iter(batch.items.values()))
        weight = _weight(batch.items, len(some), some.device)
        if self.of == "labelled":
            return weight * ~batch.item("label").isnan()
        if self.of == "demonstrations" and "label" in batch.items:
            return weight * (batch.item("label") != 0)  # NaN, nobody said, is a demonstration
        return weight

    def size(self, batch: Batch) -> Tensor | float:
        """What a row counts in the denominator, before its weight: 1, or its tokens."""
        return self.contrast(wide(batch.item("len").detach()), batch) if self.per == "token" else 1.0

    def preferred(self, batch: Batch) -> Tensor | None:
        """(N,) labels, 1 desirable and 0 undesirable; responses without one, which do not count, get 0."""
        return wide(batch.item("label").detach()).nan_to_num() if self.of == "labelled" else None
