"""Which arithmetic a run uses."""

import contextlib

import torch

from unipref.core.errors import ConfigError, nearest

__all__ = ["autocast", "resolve_precision"]


def resolve_precision(name: str, device: torch.device | str) -> str:
    """ "float32" or "bfloat16" for the recipe's word `name`.

    "auto" is bfloat16 on a GPU that computes it natively and on a CPU with AMX, and float32 elsewhere: emulated
    bfloat16 is slower than float32 and no more exact. With AVX-512's bfloat16 alone the gain is below two
    (docs/speed.md), and whoever wants that for its rounding asks for it.

    Raises:
        ConfigError: `name` is not auto, float32 or bfloat16.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"no precision named {name!r}{nearest(name, ['auto', 'float32', 'bfloat16'])}")
    if name != "auto":
        return name
    kind = torch.device(device).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if kind == "cpu":
        has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        return "bfloat16" if has_amx() else "float32"
    return "float32"


def autocast(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager:
    """A context in which matrix products run in `precision`; nothing changes for "float32"."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
