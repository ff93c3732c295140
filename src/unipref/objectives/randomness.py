"""Random numbers by counter: what is drawn depends on a seed, the step and whose number it is, and on nothing else.

No generator has a state, so neither the order of the rows nor how a step was cut into batches changes a draw.
"""

import torch
from torch import Tensor

__all__ = ["uniform"]

_BITS = 53


def uniform(seed: int, step: int, *counters: Tensor) -> Tensor:
    """Numbers in (0, 1), float64, one for each entry of the integer `counters`, which broadcast.

    Counters are taken in turn, so (1, 2) and (2, 1) draw different numbers.
    """
    state = _mixed(torch.tensor(seed, dtype=torch.int64) * 0x632BE5AB + step)
    for counter in counters:
        state = _mixed(state.to(counter.device) ^ _mixed(counter.long()))
    return (_shifted(state, 64 - _BITS).double() + 0.5) / 2**_BITS


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by of the bits, without the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 64 bits that spreads each over all (splitmix64, Steele et al. 2014); int64 wraps around."""
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shifted(x, 31)
