"""A model's layers with fewer passes over memory: norms, rotations, gates, tied embeddings; and its matrix products.

On a CPU these are bound by memory, and autograd's way through them is long: transformers' RMSNorm writes five tensors
of the residual stream's size to make one. Here each is one autograd function that keeps its inputs and computes the
rest again. What a model computes stays what it was: a layer is exchanged only where it is recognised and where it gives
what the original gives on random numbers, values and gradients; its class, its parameters and its state dict stay.
Linear layers multiply as `engine.products` says.

Shapes: N positions, H hidden width, I width inside the MLP, A heads, D head width, V vocabulary. (…) are batches of any
shape.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unipref.engine.products import linear_forward, summed_by_id

__all__ = ["fuse"]

TOLERANCE, HALF_TOLERANCE = 2e-6, 1e-2  # of the probe, relative to the largest number: a few units in the last place
ROTATION = "apply_rotary_pos_emb"  # what transformers calls it in every module of a model that has one


def fuse(model: nn.Module) -> dict[str, int]:
    """Exchange what is recognised in `model`, in place, and return how many layers of each kind that were.

    Layers on another device than a CPU keep computing as before, also where the model moves there later. So do layers
    whose `forward` somebody else has replaced. Calling this again changes nothing.
    """
    found = {"norms": 0, "rotations": 0, "gates": 0, "linears": 0, "embeddings": 0}
    for module in _own(model):
        if type(module) is nn.Linear:
            found["linears"] += _exchange(module, linear_forward)
        elif _rms_norm(module):
            found["norms"] += 1
        elif _gated(module):
            found["gates"] += 1
        elif _rotating(module):
            found["rotations"] += 1
    found["embeddings"] += _tied(model)
    return found


def _own(model: nn.Module) -> Iterator[nn.Module]:
    """Modules whose `forward` is their class's, and whose own numbers are on a CPU."""
    for module in list(model.modules()):
        if "forward" not in vars(module) and all(p.is_cpu for p in module.parameters()):
            yield module


def _exchange(module: nn.Module, forward: Callable) -> bool:
    forward.__name__ = "forward"  # a pickle keeps a method by its name, and finds the class's own there
    module.forward = MethodType(forward, module)  # bound, so that a deep copy of the module binds it to the copy
    return True


def _alike(
    ours: Callable[..., Any], original: Callable[..., Any], inputs: tuple[Tensor, ...], *, equal: float = 0.0
) -> bool:
    """Whether both give the same values and gradients on `inputs`, up to the last digits.

    Args:
        equal: the share of half-precision values that must be the same to the last bit: a function that rounds at
            another place than the original is within the tolerance, but not the original.
    """
    outcomes = []
    for function in (original, ours):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        try:
            with torch.enable_grad():
                out = function(*leaves)
                outs = out if isinstance(out, tuple) else (out,)
                draw = torch.Generator().manual_seed(1)
                total = sum((o.double() * torch.randn(o.shape, generator=draw).double()).sum() for o in outs)
                outcomes.append([x.detach() for x in (*outs, *torch.autograd.grad(total, leaves))])
        except Exception:  # whatever a foreign layer raises, it says that ours does not fit it
            return False
    if len(outcomes[0]) != len(outcomes[1]):
        return False
    half = any(x.dtype.itemsize == 2 for x in inputs)
    for i, (a, b) in enumerate(zip(*outcomes, strict=True)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if not float((a - b).abs().max()) <= (HALF_TOLERANCE if half else TOLERANCE) * float(a.abs().max()):
            return False
        if half and i < len(outcomes[0]) - len(inputs) and float((a == b).double().mean()) < equal:
            return False
    return True


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


# ---- RMSNorm ----


@dataclass(frozen=True)
class _Form:
    """Which of the published forms a norm has; they differ in where they round and in what their weight is.

    Attributes:
        plus_one: the weight is an offset from 1 (Gemma).
        rounds_first: the normalised input returns to its own dtype before the weight is met (Llama).
    """

    plus_one: bool
    rounds_first: bool


_FORMS = (_Form(False, True), _Form(True, False), _Form(False, False))


class _RmsNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps), in float32 inside, or in `inside` where that is given.

    With r = 1 / sqrt(mean(x^2) + eps) and g the gradient times the weight, the gradient of x is
    r * (g - x * r^2 * mean(g * x)).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, form: _Form, inside: torch.dtype = torch.float32
    ) -> Tensor:
        wide = x.to(inside)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        r = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        ctx.form = form
        out = wide * r
        if form.rounds_first:
            out = out.to(x.dtype)
            return out.mul_(weight) if torch.result_type(out, weight) == out.dtype else out * weight
        scale = 1.0 + weight.to(inside) if form.plus_one else weight
        out = out.mul_(scale) if torch.result_type(out, scale) == out.dtype else out * scale
        return out.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _RmsNorm._gradients(ctx, grad)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        dtype = torch.promote_types(x.dtype, r.dtype)  # sums of a model in float64 stay there
        wide, grad, scale, r = x.to(dtype), grad.to(dtype), weight.to(dtype), r.to(dtype)
        if ctx.form.plus_one:
            scale = 1.0 + scale
        product = (grad * wide).reshape(-1, x.shape[-1])
        grad_weight = (product.T @ r.reshape(-1)).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None, None, None
        pull = (product @ scale).view(r.shape).mul_(r.pow(3)).div_(-x.shape[-1])
        grad_x = (grad * scale).mul_(r).addcmul_(wide, pull)
        return grad_x.to(x.dtype), grad_weight, None, None, None


def _rms_norm_forward(self: nn.Module, x: Tensor) -> Tensor:
    if not x.is_cpu:
        return type(self).forward(self, x)
    return _RmsNorm.apply(x, self.weight, _eps(self), _FORM_OF[type(self)])


_FORM_OF: dict[type, _Form] = {}  # of the classes met so far


def _eps(norm: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        if isinstance(getattr(norm, name, None), float):
            return getattr(norm, name)
    return None


def _rms_norm(module: nn.Module) -> bool:
    if not type(module).__name__.endswith("RMSNorm") or _eps(module) is None:
        return False
    parameters = dict(module.named_parameters())
    if set(parameters) != {"weight"} or parameters["weight"].ndim != 1 or list(module.children()):
        return False
    if len(inspect.signature(type(module).forward).parameters) != 2:  # a gated norm takes the gate, too
        return False
    known = _FORM_OF.get(type(module))
    for form in (known,) if known is not None else _FORMS:
        if _norm_has(module, form):
            _FORM_OF[type(module)] = form
            return _exchange(module, _rms_norm_forward)
    return False


def _norm_has(module: nn.Module, form: _Form) -> bool:
    """Whether `module` is the norm of this form, with inputs of its weight's precision and under autocast."""

    def ours(x: Tensor) -> Tensor:
        return _RmsNorm.apply(x, module.weight, _eps(module), form)

    width = len(module.weight)
    # Small rows, where eps counts, and large ones.
    x = _random(6, width) * torch.tensor([1e-4, 1e-3, 0.1, 1.0, 10.0, 100.0])[:, None]
    original = type(module).forward
    return all(
        _alike(ours, lambda x: original(module, x), (x.to(dtype),), equal=0.9)
        for dtype in dict.fromkeys((module.weight.dtype, torch.float32, torch.bfloat16))
    )


# ---- rotations ----


class _Rotate(torch.autograd.Function):
    """x * cos + (-x2, x1) * sin, with x1 and x2 the halves of x; backwards the same with the angle's sign changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, narrow: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        half = x.shape[-1] // 2
        x = x.to(torch.result_type(x, cos))
        out = x * cos
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return out.to(ctx.dtype) if narrow else out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        grad = grad.to(torch.result_type(grad, cos))
        half = grad.shape[-1] // 2
        out = grad * cos
        out[..., :half].addcmul_(grad[..., half:], sin[..., half:])
        out[..., half:].addcmul_(grad[..., :half], sin[..., :half], value=-1)
        return out.to(ctx.dtype), None, None, None


def _rotation(original: Callable, narrow: bool) -> Callable:
    """`original` with the same arguments, by `_Rotate` where that computes it.

    Args:
        narrow: what is rotated comes back in its own precision, not in that of the angles.
    """

    def rotate(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, unsqueeze_dim: int = 1, **options: Any
    ) -> tuple[Tensor, Tensor]:
        plain = q.is_cpu and cos.shape == sin.shape and cos.shape[-1] == q.shape[-1] == k.shape[-1]
        if rest or options or not plain or cos.requires_grad or sin.requires_grad or cos.dtype != sin.dtype:
            return original(q, k, cos, sin, *rest, unsqueeze_dim=unsqueeze_dim, **options)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return _Rotate.apply(q, cos, sin, narrow), _Rotate.apply(k, cos, sin, narrow)

    return rotate


_ROTATION_OF: dict[Callable, Callable | None] = {}  # ours, of the functions met so far; None where it is another one


def _rotating(module: nn.Module) -> bool:
    """Give one attention layer the rotation above; the function that its whole class calls stays what it was."""
    forward = type(module).forward
    if not isinstance(forward, FunctionType) or forward.__closure__ or ROTATION not in forward.__code__.co_names:
        return False
    original = forward.__globals__.get(ROTATION)
    if not callable(original):
        return False
    if original not in _ROTATION_OF:
        candidates = [_rotation(original, narrow) for narrow in (False, True)]
        _ROTATION_OF[original] = next((ours for ours in candidates if _rotates(original, ours)), None)
    ours = _ROTATION_OF[original]
    if ours is None:
        return False
    copy = FunctionType(
        forward.__code__, {**forward.__globals__, ROTATION: ours}, forward.__name__, forward.__defaults__
    )
    copy.__kwdefaults__, copy.__annotations__ = forward.__kwdefaults__, forward.__annotations__
    copy.__module__, copy.__qualname__, copy.__doc__ = forward.__module__, forward.__qualname__, forward.__doc__
    return _exchange(module, copy)


def _rotates(original: Callable, ours: Callable) -> bool:
    """Whether `original` is the rotation of halves, whatever the angles, and returns the same precision."""
    q, k, cos, sin = _random(2, 4, 5, 8), _random(2, 2, 5, 8), _random(2, 5, 8), _random(2, 5, 8) + 1.0
    wide, half = torch.float32, torch.bfloat16
    for rotated, angles in ((wide, wide), (half, wide), (half, half)):
        given = {"cos": cos.to(angles), "sin": sin.to(angles)}
        if not _alike(partial(ours, **given), partial(original, **given), (q.to(rotated), k.to(rotated))):
            return False
    return True


# ---- gated MLPs ----


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward(grad, x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _gelu_tanh_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(grad, x, approximate="tanh")


def _gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(grad, x)


_ACTIVATIONS = (
    (functional.silu, _silu_backward),
    (_gelu_tanh, _gelu_tanh_backward),
    (functional.gelu, _gelu_backward),
)


class _Gate(torch.autograd.Function):
    """act(gate) * up. The activated gate is not kept: of four tensors of width I that an MLP keeps, three remain."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, which: int) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.which = which
        return _ACTIVATIONS[which][0](gate).mul_(up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        activate, backward = _ACTIVATIONS[ctx.which]
        return backward(grad * up, gate), activate(gate).mul_(grad), None


def _gated_forward(self: nn.Module, x: Tensor) -> Tensor:
    which = _activation(self.act_fn)
    gate, up = self.gate_proj(x), self.up_proj(x)
    if which is None or not gate.is_cpu or gate.dtype != up.dtype:
        return self.down_proj(self.act_fn(gate) * up)
    return self.down_proj(_Gate.apply(gate, up, which))


_ACTIVATION_OF: dict[Any, int | None] = {}  # of the activations met so far, by class and settings


_GATED: dict[type, bool] = {}  # whether the gate above is what a class of MLPs computes


def _activation(act: Any) -> int | None:
    """The place of `act` in the table; None where it is none of them."""
    key = repr(act) if isinstance(act, nn.Module) else act
    if key not in _ACTIVATION_OF:
        x = _random(64) * 3
        places = range(len(_ACTIVATIONS))
        pairs = ((i, lambda x, i=i: _Gate.apply(x, torch.ones_like(x), i)) for i in places)
        _ACTIVATION_OF[key] = next((i for i, ours in pairs if _alike(ours, act, (x,))), None)
    return _ACTIVATION_OF[key]


def _gated(module: nn.Module) -> bool:
    names = ("gate_proj", "up_proj", "down_proj", "act_fn")
    if not type(module).__name__.endswith("MLP") or any(not callable(getattr(module, n, None)) for n in names):
        return False
    if {name for name, _ in module.named_children()} - set(names) or next(module.parameters(recurse=False), None):
        return False
    if len(inspect.signature(type(module).forward).parameters) != 2 or _activation(module.act_fn) is None:
        return False
    width = getattr(module.gate_proj, "in_features", None)
    weight = next(module.gate_proj.parameters(), None)
    if width is None or weight is None or not weight.is_floating_point():  # quantised: who knows what it computes with
        return False
    kind = type(module)
    if kind not in _GATED:  # once for a class: the weights are most of the model, and need not be read for each layer
        x = _random(3, width, dtype=weight.dtype)
        _GATED[kind] = _alike(lambda x: _gated_forward(module, x), lambda x: kind.forward(module, x), (x,))
    return _GATED[kind] and _exchange(module, _gated_forward)


# ---- embeddings that are tied to the head ----


class _Lookup(torch.autograd.Function):
    """Rows of `weight`, whose gradient is sparse.

    The head's gradient of a tied weight is (V, H) and dense, and autograd adds the sparse one to it. The embedding's
    own dense gradient would be as large, zero almost everywhere, and made and added at every step.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, token: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(token)
        ctx.padding, ctx.shape = padding, weight.shape
        return functional.embedding(token, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (token,) = ctx.saved_tensors
        token, grad = token.reshape(-1), grad.reshape(-1, grad.shape[-1])
        row, total = summed_by_id(token, grad)
        if ctx.padding is not None:
            total[row == ctx.padding] = 0.0
        total = torch.sparse_coo_tensor(
            row[None], total.to(grad.dtype), ctx.shape, is_coalesced=True, check_invariants=False
        )
        return total, None, None


def _dense(weight: Tensor) -> None:
    """Hook of a tied weight: where no head has given a dense gradient, the embedding's alone must not stay sparse."""
    if weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()


def _lookup_forward(self: nn.Module, token: Tensor) -> Tensor:
    weight = self.weight
    if not (torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf and weight.is_cpu):
        return type(self).forward(self, token)
    if _dense not in (weight._post_accumulate_grad_hooks or {}).values():  # a copy comes without the weight's hooks
        weight.register_post_accumulate_grad_hook(_dense)
    rows = _Lookup.apply(weight, token, self.padding_idx)
    scale = getattr(self, "embed_scale", None)
    return rows if scale is None else rows * torch.as_tensor(scale).to(weight.dtype)


def _tied(model: nn.Module) -> int:
    """1 where the embeddings of `model` are its head and are looked up as above from now on, else 0."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        embeddings, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return 0
    weight = getattr(embeddings, "weight", None)
    if not isinstance(embeddings, nn.Embedding) or type(head) is not nn.Linear or head.weight is not weight:
        return 0
    options = embeddings.max_norm is not None or embeddings.scale_grad_by_freq or embeddings.sparse
    if "forward" in vars(embeddings) or options or not (weight.requires_grad and weight.is_leaf and weight.is_cpu):
        return 0
    token = torch.arange(min(4, len(weight)))[None]
    try:
        with torch.enable_grad():
            same = torch.equal(_lookup_forward(embeddings, token), type(embeddings).forward(embeddings, token))
    except Exception:  # a foreign embedding takes or needs something else
        same = False
    return int(same and _exchange(embeddings, _lookup_forward))
