"""What training frees is found again by its next step, and goes back to the system at the end."""

import ctypes
import platform
import resource
import sys

import pytest
import torch

from unipref.training.allocation import SWITCH, keeping_freed_memory

PAGES = 64 * 2**20 // resource.getpagesize()
GLIBC = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"


def faults_of_a_later_tensor() -> int:
    """Pages that the system had to give for 64 MiB, where as much was freed more than once before."""
    for _ in range(3):  # aligned blocks take turns in two places
        torch.ones(16 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_tensor_as_large_as_those_freed_before_costs_the_system_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with keeping_freed_memory() as kept:
        faults = faults_of_a_later_tensor()
    assert kept == GLIBC
    assert not kept or faults < PAGES / 8


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
