"""What training frees is found again by its next step, and goes back to the system at the end."""

import ctypes
import os
import platform
import resource
import subprocess
import sys

import pytest

from unipref.training.allocation import SWITCH, keeping_freed_memory

PAGES = 64 * 2**20 // resource.getpagesize()
GLIBC = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"


# In a process of its own: what earlier tests left in the heap decides where a tensor finds room.
FAULTS = """
import resource
import torch
from unipref.training.allocation import keeping_freed_memory
with keeping_freed_memory() as kept:
    for _ in range(3):  # aligned blocks take turns in two places
        torch.ones(16 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_tensor_as_large_as_those_freed_before_costs_the_system_no_page() -> None:
    names = {SWITCH, "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    kept, faults = done.stdout.split()
    assert kept == str(GLIBC)
    assert not GLIBC or int(faults) < PAGES / 8  # of the 64 MiB


@pytest.mark.parametrize("name", [SWITCH, "MALLOC_TRIM_THRESHOLD_"])
def test_a_user_who_says_otherwise_is_heard(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    with keeping_freed_memory() as kept:
        assert not kept


def test_after_an_error_memory_is_not_kept_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    called = []

    class Library:
        gnu_get_libc_version = None

        @staticmethod
        def mallopt(option: int, value: int) -> int:
            called.append((option, value))
            return 1

        @staticmethod
        def malloc_trim(pad: int) -> int:
            called.append(("trim", pad))
            return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    with pytest.raises(RuntimeError, match="broke"), keeping_freed_memory():
        raise RuntimeError("it broke")
    assert called[:2] == [(-4, 0), (-1, 2**31 - 1)]
    assert called[2:] == [(-4, 65536), (-3, 32 * 2**20), (-1, 64 * 2**20), ("trim", 0)]
