"""Log-probabilities of given tokens from hidden states, without the logits of all of them at once.

Shapes: U hidden states, T tokens asked for (several may be read from one hidden state), H hidden width, V vocabulary,
W vocabulary ids of one tile.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unipref.core.errors import ConfigError

__all__ = ["LogitHead", "divergences", "token_logp"]

KEEP_BYTES = 256 * 2**20  # logits kept for the backward pass up to this size (3 matrix products); above, recomputed (4)
TILE_BYTES = 8 * 2**20  # one tile of float32 logits, measured fastest of 1 to 32 MiB on two cores
DIVERGENCE_BYTES = 8 * 2**20  # float32 logits of one of two models in a slice, measured fastest of 1 to 64 MiB there
DIVERGENCE_ROWS = 128  # a slice has so many hidden states at least, or a large vocabulary is read too often


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class _Shape:
    """What happens to a logit after the head: multiplied by `scale`, then capped to (-softcap, softcap)."""

    scale: float = 1.0
    softcap: float | None = None

    def apply_(self, logits: Tensor) -> Tensor:
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def slope(self, logits: Tensor) -> Tensor | float:
        """d shaped / d raw at the shaped `logits`: a number where it is the same everywhere."""
        if self.softcap is None:
            return self.scale
        return (logits / self.softcap).square_().neg_().add_(1).mul_(self.scale)


class _TokenLogp(torch.autograd.Function):
    """Tiles of the vocabulary: once for the sum of exponentials, once for the gradients.

    A tile is U by W, so each row of the weight gradient is written once and only (U, H) is accumulated. `bounds` says
    which of the tokens, sorted by id, lie in each tile.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        row: Tensor,
        token: Tensor,
        width: int,
        bounds: list[int],
        shape: _Shape,
        entropy: bool,
        train: bool,
    ) -> tuple[Tensor, Tensor | None]:
        n_rows, n_vocab = len(hidden), len(weight)
        dtype = _accumulation_dtype(hidden.dtype)
        needs_hidden, *needs_head = (train and needed for needed in ctx.needs_input_grad[:3])
        # With a frozen head the hidden gradients are made of W[token] and softmax @ W alone: no second pass.
        expect = needs_hidden and not any(needs_head) and not entropy
        keep = (
            any((needs_hidden, *needs_head))
            and not (expect or entropy or shape.softcap)
            and n_rows * n_vocab * hidden.element_size() <= KEEP_BYTES
        )
        top = hidden.new_full((n_rows,), -math.inf, dtype=dtype)
        total = hidden.new_zeros(n_rows, dtype=dtype)
        weighted = hidden.new_zeros(n_rows, dtype=dtype) if entropy else None
        expected = hidden.new_zeros(n_rows, hidden.shape[1], dtype=dtype) if expect else None
        target = hidden.new_empty(len(token), dtype=dtype)
        tiles, tops = [], []
        for i, low in enumerate(range(0, n_vocab, width)):
            logits = shape.apply_(_raw_logits(hidden, weight, bias, low, low + width).to(dtype))
            here = slice(bounds[i], bounds[i + 1])
            target[here] = logits[row[here], token[here] - low]
            new_top = torch.maximum(top, logits.amax(1))
            decay = torch.exp(top - new_top)
            top = new_top
            if expect:
                slope = shape.slope(logits)
            if entropy:
                mass = torch.exp(logits - top[:, None])
                weighted = weighted * decay + (mass * logits).sum(1)
            else:
                mass = logits.sub_(top[:, None]).exp_()
            total = total * decay + mass.sum(1)
            if keep:
                tiles.append(mass.to(hidden.dtype))
                tops.append(top)
            if expect:
                mass.mul_(slope)
                expected.mul_(decay[:, None])
                _add_product(expected, mass.to(hidden.dtype), weight[low : low + width].to(hidden.dtype))
        log_total = top + total.log()
        logp = target - log_total[row]
        entropies = log_total - weighted / total if entropy else None
        if expect:
            expected.div_(total[:, None])
        ctx.shape, ctx.width, ctx.bounds, ctx.n_tiles, ctx.expect = shape, width, bounds, len(tiles), expect
        saved = (hidden, weight, bias, row, token, log_total, entropies, expected, target) if train else ()
        ctx.save_for_backward(*saved, *tiles, *tops)
        return logp, entropies

    @staticmethod
    def backward(ctx: Any, grad_logp: Tensor, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, row, token, log_total, entropies, expected, target, *kept = ctx.saved_tensors
        nothing = (None,) * 7
        grad_row = log_total.new_zeros(len(hidden)).index_add_(0, row, grad_logp)
        if ctx.expect:
            direct = grad_logp * ctx.shape.slope(target)
            grad_hidden = expected * -grad_row[:, None]
            grad_hidden.index_add_(0, row, weight[token].to(grad_hidden.dtype) * direct[:, None])
            return grad_hidden.to(hidden.dtype), None, None, *nothing
        at_target = grad_logp - grad_row[row] * torch.exp(target - log_total[row])
        if grad_entropy is not None:
            surprise = target - log_total[row] + entropies[row]
            at_target -= grad_entropy[row] * torch.exp(target - log_total[row]) * surprise
        grad_hidden = torch.zeros_like(hidden, dtype=log_total.dtype) if ctx.needs_input_grad[0] else None
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.empty_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for i, low in enumerate(range(0, len(weight), ctx.width)):
            high, here = low + ctx.width, slice(ctx.bounds[i], ctx.bounds[i + 1])
            if ctx.n_tiles:
                slope = ctx.shape.scale  # capped logits are not kept
                mass, top = kept[i], kept[ctx.n_tiles + i]
                grad = mass.mul_((-grad_row * torch.exp(top - log_total))[:, None])  # so backward runs once per graph
            else:
                logits = ctx.shape.apply_(_raw_logits(hidden, weight, bias, low, high).to(log_total.dtype))
                slope = ctx.shape.slope(logits)
                log_p = logits.sub_(log_total[:, None])
                if grad_entropy is not None:
                    pull = grad_row[:, None] + grad_entropy[:, None] * (log_p + entropies[:, None])
                    grad = log_p.exp_().mul_(pull.neg_())
                else:
                    grad = log_p.exp_().mul_(-grad_row[:, None])
            # Written, not added: 1 - p of a confident token would cancel in half precision.
            grad[row[here], token[here] - low] = at_target[here].to(grad.dtype)
            if not isinstance(slope, float) or slope != 1.0:
                grad.mul_(slope)
            if grad_bias is not None:
                grad_bias[low:high] = grad.sum(0)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                _add_product(grad_hidden, grad, weight[low:high].to(hidden.dtype))
            if grad_weight is not None:
                part = grad_weight[low:high]
                if part.dtype == grad.dtype:
                    torch.mm(grad.T, hidden, out=part)
                else:
                    part.copy_(grad.T @ hidden)
        grad_hidden = grad_hidden.to(hidden.dtype) if grad_hidden is not None else None
        return grad_hidden, grad_weight, grad_bias, *nothing


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, without a copy where the dtypes agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _raw_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, low: int, high: int) -> Tensor:
    part = weight[low:high].to(hidden.dtype)
    return nn.functional.linear(hidden, part, None if bias is None else bias[low:high].to(hidden.dtype))


def token_logp(
    hidden: Tensor,
    weight: Tensor,
    row: Tensor,
    token: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of `token` under softmax(cap(scale * (hidden @ weight.T + bias))), and the entropies.

    The vocabulary is walked in tiles and never whole in float32. Matrix products are in the dtype of `hidden` (under
    autocast: its dtype), everything after them in float32, or float64 where `hidden` is.

    Args:
        hidden: (U, H). weight: (V, H), any float dtype. bias: (V,) or None.
        row: (T,) int64, the hidden state each token is read from. token: (T,) int64 vocabulary ids. No two tokens
            agree in both: siblings in a trie differ.
        softcap: logits become softcap * tanh(logits / softcap), after the scale.

    Returns:
        (T,) nats, at most 0, and (U,) nats if `entropy` else None. Gradients flow to hidden, weight and bias.

    Example:
        >>> logp, _ = token_logp(torch.zeros(1, 3), torch.ones(4, 3), torch.tensor([0]), torch.tensor([2]))
        >>> logp
        tensor([-1.3863])
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    width = min(len(weight), max(256, TILE_BYTES // (4 * max(len(hidden), 1))))
    order = torch.argsort(token)
    edges = torch.arange(0, len(weight) + width, width, device=token.device)
    bounds = torch.searchsorted(token[order], edges).tolist()
    with torch.autocast(device, enabled=False):
        logp, entropies = _TokenLogp.apply(
            hidden,
            weight,
            bias,
            row[order],
            token[order],
            width,
            bounds,
            _Shape(scale, softcap),
            entropy,
            torch.is_grad_enabled(),
        )
    return torch.empty_like(logp).index_copy(0, order, logp), entropies


class LogitHead:
    """How a causal language model turns its last hidden state into logits.

    A plain linear layer is used through its weight, tile by tile. Any other module (an adapter on the head) is called
    on slices of the hidden states, each recomputed in the backward pass.
    """

    def __init__(self, module: nn.Module, *, scale: float = 1.0, softcap: float | None = None) -> None:
        self.module, self.scale, self.softcap = module, scale, softcap

    def __call__(self, hidden: Tensor, row: Tensor, token: Tensor, *, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """(T,) log-probabilities of `token` read from `hidden[row]`, and (U,) entropies if asked for."""
        if type(self.module) is nn.Linear:
            return token_logp(
                hidden,
                self.module.weight,
                row,
                token,
                bias=self.module.bias,
                scale=self.scale,
                softcap=self.softcap,
                entropy=entropy,
            )
        logp, entropies = [], []
        size = max(1, TILE_BYTES // (4 * self.module.out_features))
        order = torch.argsort(row, stable=True)
        bounds = torch.searchsorted(row[order], torch.arange(0, len(hidden) + size, size, device=row.device)).tolist()
        for i, low in enumerate(range(0, len(hidden), size)):
            pick = order[bounds[i] : bounds[i + 1]]
            a, b = checkpoint(
                self._slice, hidden[low : low + size], row[pick] - low, token[pick], entropy, use_reentrant=False
            )
            logp.append(a)
            entropies.append(b)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return torch.cat(logp)[back], torch.cat(entropies) if entropy else None

    def n_vocabulary(self, hidden: Tensor) -> int:
        """V; an identity in the place of the head passes logits on that are there already."""
        return hidden.shape[-1] if isinstance(self.module, nn.Identity) else self.module.out_features

    def log_probs(self, hidden: Tensor) -> Tensor:
        """(n, V) log-probabilities of the whole vocabulary, float32 (float64 where the logits are)."""
        logits = self.module(hidden)
        logits = logits.to(_accumulation_dtype(logits.dtype)) * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits.log_softmax(1)

    def without_adapter(self) -> "LogitHead":
        """The head as it was before an adapter was laid over it; itself where none was."""
        for name in ("base_layer", "original_module"):  # what peft calls it under LoRA, and where the head is copied
            base = getattr(self.module, name, None)
            if base is not None:
                return LogitHead(base, scale=self.scale, softcap=self.softcap)
        return self

    def _slice(self, hidden: Tensor, row: Tensor, token: Tensor, entropy: bool) -> tuple[Tensor, Tensor | None]:
        log_p = self.log_probs(hidden)
        return log_p[row, token], -(log_p.exp() * log_p).sum(1) if entropy else None


def divergences(
    head: LogitHead, hidden: Tensor, reference: LogitHead, reference_hidden: Tensor, *, forward: bool, reverse: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Divergences between a head's distribution and a reference's, hidden state by hidden state, over all of V.

    With p = softmax of `head`, q that of `reference`: *forward* is sum_v q (log q - log p), the reference first, and
    *reverse* sum_v p (log p - log q). Both heads' logits exist for a slice of the hidden states at a time and are
    recomputed in the backward pass.

    Args:
        hidden: (U, H). reference_hidden: (U, H'); the two widths may differ, the vocabularies may not.

    Returns:
        (U,) each where it is asked for, else None; nats, at least 0 up to rounding. Gradients flow to `hidden` and
        `head`, and none to the reference.

    Raises:
        ConfigError: the vocabularies differ in size.
    """
    sizes = head.n_vocabulary(hidden), reference.n_vocabulary(reference_hidden)
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"a divergence needs one vocabulary: the policy's head has {sizes[0]} tokens and the reference's "
            f"{sizes[1]}; take a reference of the same family, or resize its embeddings to the policy's"
        )

    def one_slice(hidden: Tensor, reference_hidden: Tensor) -> tuple[Tensor | None, Tensor | None]:
        log_p = head.log_probs(hidden)
        with torch.no_grad():
            log_q = reference.log_probs(reference_hidden)
        difference = log_q - log_p
        return (
            (log_q.exp() * difference).sum(1) if forward else None,
            -(log_p.exp() * difference).sum(1) if reverse else None,
        )

    size = max(DIVERGENCE_ROWS, DIVERGENCE_BYTES // (4 * sizes[0]))
    parts = [
        checkpoint(one_slice, hidden[low : low + size], reference_hidden[low : low + size], use_reentrant=False)
        for low in range(0, len(hidden), size)
    ]
    ahead, back = zip(*parts, strict=True)
    return torch.cat(ahead) if forward else None, torch.cat(back) if reverse else None
