"""How many threads a small fit takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread(*, where: bool = True) -> Iterator[None]:
    """One thread inside: small vectors take longer to share out than to add up, on a busy machine ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if where else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
