"""Being one of several processes."""

import contextlib
import gc
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

__all__ = ["alone", "anywhere", "leave_group", "n_processes", "processes"]

# One process reads, samples or judges what the others wait for, and that may take hours; NCCL's own limit is ten
# minutes. A process that dies is found by the launcher at once, so the limit is only for one that hangs.
PATIENCE = timedelta(hours=12)

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def processes() -> PartialState:
    """Who this process is among those that were launched together; alone where it was not launched so.

    The trainer uses the CPU where there is no CUDA device, and so must whoever asks first: the answer is kept.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def n_processes() -> int:
    """How many processes work together now: 1 also inside `alone` and after `leave_group`."""
    if _alone.get():
        return 1
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if group else 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works for itself, as if it had been started so: for what one rank does while others wait."""
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


def leave_group() -> None:
    """End this process' part in the process group, if it is in one. Call it last, when no trainer is in use.

    Wrapped models hold connections; one that is freed after the group has ended, or at interpreter exit, can hang.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def anywhere(flags: Sequence[bool]) -> list[bool]:
    """Of flags that every rank has, whether each is set on some rank. All ranks call it, with equally many.

    Ranks that read a store which others write see different states of it; what to compute must be one answer.
    """
    if n_processes() == 1:
        return list(flags)
    found = np.zeros(len(flags), dtype=bool)
    for other in gather_object([np.packbits(np.asarray(flags, dtype=bool)).tobytes()]):
        found |= np.unpackbits(np.frombuffer(other, dtype=np.uint8), count=len(flags)).astype(bool)
    return found.tolist()
