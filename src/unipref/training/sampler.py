"""Which rows make up each optimiser step, and which of them each rank takes."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ["StepSampler"]


class StepSampler(Sampler[list[int]]):
    """This rank's rows of every optimiser step of an epoch.

    The order depends on seed and epoch alone: not on ranks, nor on where a resumed run begins. Rank r takes each W-th
    row of the step, so a short last step is shared too; a rank may get no row.

    Args:
        sizes: (n,) tokens per row, for `by_length`.
        by_length: rows of similar size share a step; the steps themselves stay in random order.
    """

    def __init__(
        self, sizes: Sequence[int], step_size: int, *, seed: int, rank: int, world: int, by_length: bool
    ) -> None:
        self.sizes = np.asarray(sizes)
        self.step_size, self.seed, self.rank, self.world, self.by_length = step_size, seed, rank, world, by_length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.sizes) / self.step_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.sizes))
        if self.by_length:
            order = order[np.argsort(self.sizes[order], kind="stable")]
        steps = [order[i : i + self.step_size] for i in range(0, len(order), self.step_size)]
        if self.by_length:
            steps = [steps[i] for i in rng.permutation(len(steps))]
        for rows in steps:
            yield rows[self.rank :: self.world].tolist()
