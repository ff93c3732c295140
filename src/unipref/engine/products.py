"""Matrix products of linear layers on a CPU, by the library that is fastest at them there.

torch multiplies float32 matrices by the BLAS it was built with. Its x86 builds bring MKL, which takes slower kernels on
processors of other makers than Intel; oneDNN, which is in the same builds and multiplies half-precision matrices
anyway, compiles kernels of its own. On an AVX-512 processor of AMD it was 1.1 to 1.5 times as fast, but for gradients
of weights (docs/log.md).

Which library is taken depends on the processor and on the shapes alone, never on a measurement: the last bits of a run
must not depend on what else the machine is doing. oneDNN compiles a kernel for every number of rows, which takes a
millisecond and memory that the process keeps (docs/log.md); so rows are `rounded` up to a grid where that can be done,
and float32 products of other numbers of rows stay with the BLAS.

Shapes: M rows, K inputs, N outputs. (…) are batches of any shape.
"""

import platform
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Linear",
    "add_product",
    "by_transpose",
    "linear_forward",
    "product",
    "rounded",
    "summed_by_id",
    "uses_onednn",
]


def _grid(n: int) -> int:
    step = 16 if n <= 512 else 64 if n <= 4096 else 256
    return -(-n // step) * step


def rounded(n: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows to compute in the place of `n`: more, by an eighth at most from 128 on, where kernels are compiled for each
    number of rows; `n` elsewhere."""
    compiled = dtype.itemsize == 2 or (dtype == torch.float32 and uses_onednn())
    return _grid(n) if compiled and device.type == "cpu" else n


@cache
def uses_onednn() -> bool:
    """Whether products of float32 matrices go through oneDNN on this machine."""
    operators = getattr(torch.ops, "mkldnn", None)
    if not torch.backends.mkldnn.is_available() or not hasattr(operators, "_linear_pointwise"):
        return False
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and not _by_intel()


def _by_intel() -> bool:
    info = Path("/proc/cpuinfo")
    maker = info.read_text(errors="replace") if info.exists() else platform.processor()
    return "GenuineIntel" in maker


def _compiled(x: Tensor, weight: Tensor) -> bool:
    """Whether a product of `x` with `weight` is oneDNN's."""
    wide = x.dtype == weight.dtype == torch.float32 and x.is_cpu
    return wide and _grid(len(x)) == len(x) and uses_onednn()


def by_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (M, N) of (M, K) and (N, K). No gradient flows."""
    if _compiled(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight: (M, N) of (M, K) and (K, N). No gradient flows."""
    if _compiled(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight.T, None, "none", [], "")
    return x @ weight


def add_product(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """total += x @ weight, in the dtype of `total`; without a copy where the BLAS adds to it by itself."""
    if total.dtype == x.dtype and not _compiled(x, weight):
        total.addmm_(x, weight)
    else:
        total.add_(product(x, weight))


def summed_by_id(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ones of (n,) `ids` in order, and what the (n, …) `values` of each come to.

    Sums are in float32 or wider: a frequent token in half precision would swallow its own small parts.
    """
    distinct, place = torch.unique(ids, return_inverse=True)
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return distinct, values.new_zeros(len(distinct), *values.shape[1:]).index_add_(0, place, values)


class _Narrowed:
    """The last tensor that was cast, and what it became: several layers read one input, and autocast would cast it for
    each of them."""

    def __init__(self) -> None:
        self._held: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def of(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """`x` in `dtype`, without a gradient."""
        if x.dtype == dtype:
            return x.detach()
        held = self._held  # read and written at once: another thread may cast, too
        if held is not None and held[0]() is x and held[1] == x._version and held[2].dtype == dtype:
            return held[2]
        cast = x.detach().to(dtype)
        self._held = weakref.ref(x, self._forget), x._version, cast
        return cast

    def _forget(self, dead: "weakref.ref[Tensor]") -> None:
        held = self._held
        if held is not None and held[0] is dead:
            self._held = None


_narrowed = _Narrowed()


class Linear(torch.autograd.Function):
    """x @ weight.T + bias in `dtype`, with gradients of x and weight in their own.

    Under autocast in bfloat16 an input that several layers read is cast and kept for the backward pass once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtypes = x.shape, [None if t is None else t.dtype for t in (x, weight, bias)]
        x = _narrowed.of(x, dtype).reshape(-1, x.shape[-1])
        narrow = weight.to(dtype)
        kept = x if ctx.needs_input_grad[1] else None, narrow if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(*kept)
        out = by_transpose(x, narrow, None if bias is None else bias.to(dtype))
        return out.view(*ctx.shape[:-1], len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = product(grad, weight).view(ctx.shape).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            of_weight = torch.mm(grad.T, x).to(ctx.dtypes[1])  # the BLAS's: oneDNN is no faster at it
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum(0).to(ctx.dtypes[2])
        return of_x, of_weight, of_bias, None


def linear_forward(self: nn.Linear, x: Tensor) -> Tensor:
    """In the place of `nn.Linear.forward`: the same numbers, up to the last digits of another library's sums."""
    weight, bias = self.weight, self.bias
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    faster = autocast if dtype != weight.dtype else dtype == torch.float32 and uses_onednn()
    if not (faster and x.is_cpu and weight.is_cpu) or torch.float64 in (x.dtype, weight.dtype):
        return nn.functional.linear(x, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return Linear.apply(x, weight, bias, dtype)
