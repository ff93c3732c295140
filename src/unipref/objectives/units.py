"""Units: what a term compares.

Shapes: I items, P pairs, G groups, K places of the longest group, N rows of the term (items, pairs or groups).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import ROLES
from unipref.objectives.parts import Part, wide

__all__ = ["SIDES", "Lists", "Unit", "group", "pair", "point"]

SIDES = ("all", "demonstrations", "desirable", "labelled", "preferred", "undesirable", *ROLES[1:])
PER = ("response", "token")
_CLASSES = {"undesirable": 0, "desirable": 1}


class Lists(NamedTuple):
    """A number per member of every group.

    Attributes:
        values: (G, K); what stands in empty places does not count.
        mask: (G, K) True where a member stands.
    """

    values: Tensor
    mask: Tensor

    def __add__(self, other: "Lists | float") -> "Lists":
        return Lists(self.values + (other.values if isinstance(other, Lists) else other), self.mask)

    __radd__ = __add__  # type: ignore[assignment]  # sum() starts at 0

    def __mul__(self, factor: float) -> "Lists":  # type: ignore[override]
        return Lists(self.values * factor, self.mask)

    __rmul__ = __mul__  # type: ignore[assignment]

    def nan_to_num(self) -> "Lists":
        """The same with 0 for what nobody measured."""
        return Lists(self.values.nan_to_num(), self.mask)


class Unit(Part):
    """Base of the units.

    A unit gives the contrast of a number per item, its rows' example weights, and where a mask holds on a whole row.
    One whose swapped contrast is not minus the contrast is `asymmetric` and gives `reverse` too.
    """

    asymmetric = False
    compares = False  # needs the batch's pairs

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles besides "response" that the unit counts."""
        return ()

    def size(self, batch: Batch) -> Tensor | float:
        """What a row counts in the denominator, before its weight."""
        return 1.0


def responses(batch: Batch) -> Tensor | None:
    """(I,) True for items that are responses; None where all are."""
    return batch.items["role"] == 0 if "role" in batch.items else None


def _weight(columns, size: int, device: torch.device) -> Tensor:
    weight = columns.get("weight")
    return torch.ones(size, device=device) if weight is None else wide(weight.detach())


@dataclass(frozen=True, repr=False)
class pair(Unit):
    """The chosen response's number minus the rejected one's; a row is a pair, its weight the pair's."""

    compares = True

    def contrast(self, values: Tensor, batch: Batch) -> Tensor:
        """(P,) differences of (I,) `values`."""
        return self.across(values, values, batch)

    def across(self, chosen: Tensor, rejected: Tensor, batch: Batch, *, swapped: bool = False) -> Tensor:
        """(P,) `chosen` of the one response minus `rejected` of the other; `swapped`: as if they changed places."""
        first, second = self.sides(batch)
        if swapped:
            first, second = second, first
        return chosen[first] - rejected[second]

    def holds(self, mask: Tensor, batch: Batch) -> Tensor:
        """(P,) where the (I,) `mask` holds on both sides."""
        chosen, rejected = self.sides(batch)
        return mask[chosen] & mask[rejected]

    def weight(self, batch: Batch) -> Tensor:
        """(P,) example weights."""
        chosen, _ = self.sides(batch)
        return _weight(batch.pairs, len(chosen), chosen.device)

    def preferred(self, batch: Batch) -> Tensor | None:
        """(P,) P(chosen preferred), or None where every label is hard."""
        preference = batch.pairs.get("preference")
        return None if preference is None else wide(preference.detach())

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(P,) item indices of the chosen and of the rejected responses.

        Raises:
            ConfigError: the batch has no pairs.
        """
        try:
            return batch.pairs["chosen"], batch.pairs["rejected"]
        except KeyError:
            raise ConfigError(
                "the objective compares two responses, and the batch has no pairs; give NAME_chosen and NAME_rejected"
            ) from None


@dataclass(frozen=True, repr=False)
class point(Unit):
    """Items one by one.

    Attributes:
        of: which items count. "all": every response; "demonstrations": all but those with label 0; "labelled": those
            with a label; "desirable" and "undesirable": those with label 1, and with label 0; "preferred": the chosen
            side of every pair, with the pair's weight (the mean of both sides, by their probability of being preferred,
            where the pair has a soft label); another role of ROLES, such as "gold": the items of that role.
        per: what counts in the denominator, "response" or "token".
    """

    of: str = "all"
    per: str = "response"

    def __post_init__(self) -> None:
        for slot, value, known in (("of", self.of, SIDES), ("per", self.per, PER)):
            if value not in known:
                raise ConfigError(f"point({slot}={value!r}){nearest(str(value), known)}")

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.of == "preferred"

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.of,) if self.of in ROLES[1:] else ()

    @property
    def reads(self) -> tuple[str, ...]:
        label = ("label",) if self.of in ("labelled", *_CLASSES) else ()
        return label + (("len",) if self.per == "token" else ())

    def contrast(self, values: Tensor, batch: Batch) -> Tensor:
        """(N,) the values themselves; (N, d) where each item has d of them."""
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
        """(N,) example weights, 0 for items that do not count."""
        if self.of == "preferred":
            return pair().weight(batch)
        some = next(iter(batch.items.values()))
        weight = _weight(batch.items, len(some), some.device)
        if self.roles:
            if "role" not in batch.items:
                raise ConfigError(
                    f"the objective needs a {self.of!r} text beside the responses, and the batch has none; "
                    f"give the data a column {self.of!r} (in flat fields: NAME_{self.of})"
                )
            return weight * (batch.items["role"] == ROLES.index(self.of))
        own = responses(batch)
        if own is not None:
            weight = weight * own
        if self.of == "labelled":
            return weight * ~batch.item("label").isnan()
        if self.of in _CLASSES:
            return weight * (batch.item("label") == _CLASSES[self.of])
        if self.of == "demonstrations" and "label" in batch.items:
            return weight * (batch.item("label") != 0)  # NaN, nobody said, is a demonstration
        return weight

    def size(self, batch: Batch) -> Tensor | float:
        """What a row counts in the denominator, before its weight: 1, or its tokens."""
        return self.contrast(wide(batch.item("len").detach()), batch) if self.per == "token" else 1.0

    def preferred(self, batch: Batch) -> Tensor | None:
        """(N,) labels, 1 desirable and 0 undesirable; responses without one, which do not count, get 0."""
        return wide(batch.item("label").detach()).nan_to_num() if self.of == "labelled" else None


@dataclass(frozen=True, repr=False)
class group(Unit):
    """All responses of a record; a row is a record. One response alone says nothing, and does not count."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("group",)

    def contrast(self, values: Tensor, batch: Batch) -> Lists:
        """The (I,) `values`, group by group."""
        place, mask = self._layout(batch)
        return Lists(values[place], mask)

    def holds(self, mask: Tensor, batch: Batch) -> Tensor:
        """(G,) where the (I,) `mask` holds for every member."""
        place, member = self._layout(batch)
        return (mask[place] | ~member).all(1)

    def weight(self, batch: Batch) -> Tensor:
        """(G,) example weights, which the members of a record share; 0 for a response alone."""
        place, mask = self._layout(batch)
        weight = _weight(batch.items, len(batch.item("group")), place.device)
        return weight[place[:, 0]] * (mask.sum(1) > 1)

    def preferred(self, batch: Batch) -> Tensor | None:
        """None: what a list should be is for a target to say."""
        return None

    def _layout(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(G, K) item of every place, in the items' order, and where there is one."""
        number = batch.item("group")
        own = responses(batch)
        rows = torch.arange(len(number), device=number.device) if own is None else own.nonzero()[:, 0]
        _, index, count = torch.unique(number[rows], return_inverse=True, return_counts=True)
        order = torch.argsort(index, stable=True)
        start = count.cumsum(0) - count
        at = torch.arange(len(rows), device=rows.device) - start[index[order]]
        shape = (len(count), int(count.max()) if len(count) else 1)
        mask = torch.zeros(shape, dtype=torch.bool, device=rows.device)
        mask[index[order], at] = True
        # an empty place repeats the group's first member, so that nothing foreign is read
        place = rows[order[start]][:, None].expand(shape).clone() if len(count) else rows.new_zeros(shape)
        place[index[order], at] = rows[order]
        return place, mask
