"""Memory that a step frees stays with the process until training ends, so that the next step finds it mapped."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

__all__ = ["SWITCH", "keeping_freed_memory"]

SWITCH = "UNIPREF_KEEP_MEMORY"  # set to 0, memory goes back to the system at once
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # M_... of glibc's malloc.h
# What glibc's own rule comes to after a few large tensors; touching either of them has switched that rule off.
_AFTERWARDS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


@contextlib.contextmanager
def keeping_freed_memory() -> Iterator[bool]:
    """Let glibc keep what is freed inside the block; what is free at its end goes back to the system.

    glibc maps every large tensor anew and gives it back when it is freed, so that each step of training has the system
    fill its activations and gradients with zeros, page by page. The gain is on Linux with glibc and tensors on the
    CPU. Elsewhere, where `SWITCH` is 0, and where the user has set malloc's own variables, nothing is changed.

    Yields:
        Whether memory is kept.
    """
    library = _glibc()
    if library is None or os.environ.get(SWITCH) == "0" or any(name in os.environ for name in _VARIABLES):
        yield False
        return
    try:
        kept = [library.mallopt(_MMAP_MAX, 0), library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)]
        yield all(kept)
    finally:
        for option, value in _AFTERWARDS.items():
            library.mallopt(option, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    needed = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in needed) else None
