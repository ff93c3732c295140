"""Being one of several processes."""

import gc

import torch
from accelerate import PartialState

__all__ = ["leave_group", "processes"]


def processes() -> PartialState:
    """Who this process is among those that were launched together; alone where it was not launched so.

    The trainer uses the CPU where there is no CUDA device, and so must whoever asks first: the answer is kept.
    """
    return PartialState(cpu=not torch.cuda.is_available())


def leave_group() -> None:
    """End this process' part in the process group, if it is in one. Call it last, when no trainer is in use.

    Wrapped models hold connections; one that is freed after the group has ended, or at interpreter exit, can hang.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
