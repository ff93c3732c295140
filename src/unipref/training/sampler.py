"""Which rows make up each optimiser step, and which of them each rank takes."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from unipref.training.balance import deal

__all__ = ["StepSampler"]


class StepSampler(Sampler[list[int]]):
    """This rank's rows of every optimiser step of an epoch.

    The order depends on seed and epoch alone: not on ranks, nor on where a resumed run begins. The rows of a step are
    dealt to the ranks by cost, so that none waits for another, and a short step is shared too; a rank may get no row.

    There are n / step_size steps, rounded up, and each row is in one of them. Without `prompts` all but one hold
    step_size rows. With them the steps end where a prompt's rows do, as near as that comes to n / steps rows each: a
    step is larger or smaller by half a prompt's rows. A prompt with more rows than fit a step is cut into parts.

    Args:
        sizes: (n,) tokens per row, for `by_length`.
        by_length: rows of similar size share a step; the steps themselves stay in random order, and which of them is
            the short one is drawn.
        costs: (n,) what a row costs a rank; its size where nothing else is known.
        prompts: (n,) equal for rows of one prompt, which then share a step and go to one rank, where they are no more
            than its part of the work. Which rows of other prompts they meet is drawn anew each epoch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        step_size: int,
        *,
        seed: int,
        rank: int,
        world: int,
        by_length: bool,
        costs: Sequence[float] | None = None,
        prompts: Sequence[int] | None = None,
    ) -> None:
        self.sizes = np.asarray(sizes)
        self.step_size, self.seed, self.rank, self.world, self.by_length = step_size, seed, rank, world, by_length
        self.costs = self.sizes if costs is None else np.asarray(costs)
        self.prompts = None if prompts is None else _numbered(np.asarray(prompts))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.sizes) / self.step_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order, ends = self._even(rng) if self.prompts is None else self._by_prompt(rng)
        starts = np.concatenate(([0], ends[:-1]))
        steps = rng.permutation(len(ends)) if self.by_length else range(len(ends))
        for step in steps:
            yield self._mine(order[starts[step] : ends[step]])

    def _even(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """All rows in the order they are taken, and where each step ends."""
        n = len(self.sizes)
        order = rng.permutation(n)
        ends = np.minimum(np.arange(1, len(self) + 1) * self.step_size, n)
        if self.by_length:
            order = order[np.argsort(self.sizes[order], kind="stable")]
            # The longest rows would be in the short step each epoch, and count for more there than others.
            missing = len(self) * self.step_size - n
            ends[rng.integers(len(self)) :] -= missing
            ends[-1] = n
        return order, ends

    def _by_prompt(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """As `_even`, with the rows of a prompt side by side and no step ending among them."""
        n, steps = len(self.sizes), len(self)
        order = rng.permutation(n)
        order = order[np.argsort(self.prompts[order], kind="stable")]
        first = np.flatnonzero(np.diff(self.prompts[order], prepend=-1))  # of every prompt
        place = np.arange(n) - np.repeat(first, np.diff(first, append=n))
        part_first = np.flatnonzero(place % max(n // steps, 1) == 0)
        length = np.diff(part_first, append=n)
        parts = rng.permutation(len(part_first))
        if self.by_length:
            mean = np.add.reduceat(self.sizes[order], part_first) / length
            parts = parts[np.argsort(mean[parts], kind="stable")]
        part_ends = np.cumsum(length[parts])
        rows = np.repeat(part_first[parts] - part_ends + length[parts], length[parts]) + np.arange(n)
        # No part is longer than n / steps, so each step's end is another one, and the last is n.
        wished = np.arange(1, steps + 1) * (n / steps)
        after = np.searchsorted(part_ends, wished)
        after = np.minimum(after, len(part_ends) - 1)
        before = np.maximum(after - 1, 0)
        nearer = wished - part_ends[before] < part_ends[after] - wished
        ends = np.where(nearer & (after > 0), part_ends[before], part_ends[after])
        ends[-1] = n
        return order[rows], ends

    def _mine(self, rows: np.ndarray) -> list[int]:
        if self.world == 1:
            return rows.tolist()
        parts = [rows[i : i + 1] for i in range(len(rows))]
        if self.prompts is not None:
            share = self.costs[rows].sum() / self.world
            same = np.split(rows, np.flatnonzero(np.diff(self.prompts[rows])) + 1)
            whole = [self.costs[part].sum() <= share for part in same]
            parts = [
                piece
                for part, fits in zip(same, whole, strict=True)
                for piece in ([part] if fits else np.split(part, len(part)))
            ]
        hands = deal([self.costs[part].sum() for part in parts], self.world)
        return [row for part in hands[self.rank] for row in parts[part].tolist()]


def _numbered(prompts: np.ndarray) -> np.ndarray:
    """The prompts as numbers from 0 in the order they first come, so that only who goes with whom matters."""
    _, first, number = np.unique(prompts, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number]
