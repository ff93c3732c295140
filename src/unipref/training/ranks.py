"""Being one of several processes."""

import gc

import torch

__all__ = ["leave_group"]


def leave_group() -> None:
    """End this process' part in the process group, if it is in one. Call it last, when no trainer is in use.

    Wrapped models hold connections; one that is freed after the group has ended, or at interpreter exit, can hang.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
