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
from unipref.engine.products import add_product, by_transpose, product, rounded, summed_by_id

__all__ = ["LogitHead", "divergences", "token_logp"]

# Logits kept for the backward pass up to this size (3 matrix products); above, they are recomputed (4). A fixed size: a
# share of what is free would make the last bits of a run depend on what else the machine is doing.
KEEP_BYTES = 512 * 2**20
TILE_BYTES = 8 * 2**20  # one tile of float32 logits, measured fastest of 1 to 32 MiB on two cores


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

    A tile is U by W, so each row of the weight gradient is written once and only (U, H) is accumulated. What is kept of
    a tile is its own softmax; what each of its rows is multiplied by goes to the (U, H) side of the products, which is
    smaller. `bounds` says which of the tokens, sorted by id, lie in each tile.
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
        log_total = hidden.new_full((n_rows,), -math.inf, dtype=dtype)  # of the tiles so far
        mean = hidden.new_zeros(n_rows, dtype=dtype) if entropy else None
        expected = hidden.new_zeros(n_rows, hidden.shape[1], dtype=dtype) if expect else None
        target = hidden.new_empty(len(token), dtype=dtype)
        tiles, log_totals = [], []
        for i, low in enumerate(range(0, n_vocab, width)):
            logits = shape.apply_(_raw_logits(hidden, weight, bias, low, low + width).to(dtype))
            here = slice(bounds[i], bounds[i + 1])
            target[here] = logits[row[here], token[here] - low]
            slope = shape.slope(logits) if expect else None
            mass, here_total = _softmax(logits, in_place=not entropy)
            before, log_total = log_total, torch.logaddexp(log_total, here_total)
            share, decay = torch.exp(here_total - log_total), torch.exp(before - log_total)
            if entropy:
                mean = mean * decay + share * mass.mul_(logits).sum(1)
            if keep:
                tiles.append(mass.to(hidden.dtype))
                log_totals.append(here_total)
            if expect:
                mass.mul_(slope * share[:, None])
                expected.mul_(decay[:, None])
                add_product(expected, mass.to(hidden.dtype), weight[low : low + width].to(hidden.dtype))
        logp = target - log_total[row]
        entropies = log_total - mean if entropy else None
        ctx.shape, ctx.width, ctx.n_tiles, ctx.expect, ctx.bounds = shape, width, len(tiles), expect, bounds
        saved = (hidden, weight, bias, row, token, log_total, entropies, expected, target) if train else ()
        ctx.save_for_backward(*saved, *tiles, *log_totals)
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
        gradients = _Gradients(ctx.needs_input_grad, hidden, weight, bias)
        for i, low in enumerate(range(0, len(weight), ctx.width)):
            high, here = low + ctx.width, slice(ctx.bounds[i], ctx.bounds[i + 1])
            if ctx.n_tiles:
                slope = ctx.shape.scale  # capped logits are not kept
                grad = kept[i]  # changed below, so backward runs once per graph
                factor = torch.exp(kept[ctx.n_tiles + i] - log_total).mul_(grad_row).neg_()
            else:
                logits = ctx.shape.apply_(_raw_logits(hidden, weight, bias, low, high).to(log_total.dtype))
                slope, factor = ctx.shape.slope(logits), None
                log_p = logits.sub_(log_total[:, None])
                if grad_entropy is not None:
                    pull = grad_row[:, None] + grad_entropy[:, None] * (log_p + entropies[:, None])
                    grad = log_p.exp_().mul_(pull.neg_())
                else:
                    grad = log_p.exp_().mul_(-grad_row[:, None])
            grad[row[here], token[here] - low] = 0.0
            gradients.add(low, grad, slope, factor)
        # By themselves: 1 - p of a confident token would cancel in half precision.
        gradients.add_at(row, token, at_target * ctx.shape.slope(target))
        return *gradients.found(), *nothing


class _Divergences(torch.autograd.Function):
    """Tiles of the vocabulary, as in `_TokenLogp`, of two models: once for the sums, once for the gradients.

    With logits l and m of policy and reference, and L and M their log-sums of exponentials, the forward divergence is
    E_q[m - l] + L - M and its gradient on l is p - q; the reverse one is E_p[l - m] + M - L with the gradient
    p * (log p - log q - itself).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        other: tuple[Tensor, Tensor, Tensor | None],
        width: int,
        shapes: tuple[_Shape, _Shape],
    ) -> tuple[Tensor, Tensor]:
        dtype = _accumulation_dtype(hidden.dtype)
        ours, theirs = (_Sums(hidden, dtype) for _ in range(2))
        for low in range(0, len(weight), width):
            logits = shapes[0].apply_(_raw_logits(hidden, weight, bias, low, low + width).to(dtype))
            reference = shapes[1].apply_(_raw_logits(*other, low, low + width).to(dtype))
            difference = reference - logits
            theirs.add(reference, difference)
            ours.add(logits, difference.neg_())
        log_total, log_total_other = ours.log_total(), theirs.log_total()
        forward = theirs.mean() + (log_total - log_total_other)
        reverse = ours.mean() + (log_total_other - log_total)
        ctx.width, ctx.shapes = width, shapes
        ctx.save_for_backward(hidden, weight, bias, *other, log_total, log_total_other, reverse)
        return forward, reverse

    @staticmethod
    def backward(ctx: Any, grad_forward: Tensor, grad_reverse: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *other, log_total, log_total_other, reverse = ctx.saved_tensors
        gradients = _Gradients(ctx.needs_input_grad, hidden, weight, bias)
        for low in range(0, len(weight), ctx.width):
            high = low + ctx.width
            logits = ctx.shapes[0].apply_(_raw_logits(hidden, weight, bias, low, high).to(log_total.dtype))
            log_q = ctx.shapes[1].apply_(_raw_logits(*other, low, high).to(log_total.dtype))
            slope = ctx.shapes[0].slope(logits)
            log_p, log_q = logits.sub_(log_total[:, None]), log_q.sub_(log_total_other[:, None])
            surplus = (log_p - log_q).sub_(reverse[:, None]).mul_(grad_reverse[:, None])
            p, q = log_p.exp_(), log_q.exp_()
            gradients.add(low, surplus.mul_(p).add_(p.sub_(q).mul_(grad_forward[:, None])), slope)
        return *gradients.found(), None, None, None


class _Sums:
    """Per hidden state, tile by tile: the sum of exponentials of logits, and the mean of something under them."""

    def __init__(self, hidden: Tensor, dtype: torch.dtype) -> None:
        self.top = hidden.new_full((len(hidden),), -math.inf, dtype=dtype)
        self.total, self.weighted = (hidden.new_zeros(len(hidden), dtype=dtype) for _ in range(2))

    def add(self, logits: Tensor, values: Tensor) -> None:
        """Take a tile in; `logits` are used up."""
        top = torch.maximum(self.top, logits.amax(1))
        decay = torch.exp(self.top - top)
        mass = logits.sub_(top[:, None]).exp_()
        self.top, self.total = top, self.total * decay + mass.sum(1)
        self.weighted = self.weighted * decay + mass.mul_(values).sum(1)

    def log_total(self) -> Tensor:
        return self.top + self.total.log()

    def mean(self) -> Tensor:
        return self.weighted / self.total


class _Gradients:
    """Gradients of hidden states, weight and bias, where they are needed, from those of the logits, tile by tile."""

    def __init__(self, needed: tuple[bool, ...], hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self._dtype = _accumulation_dtype(hidden.dtype)
        self._hidden, self._weight = hidden, weight
        self.hidden = torch.zeros_like(hidden, dtype=self._dtype) if needed[0] else None
        self.weight = torch.empty_like(weight) if needed[1] else None
        self.bias = torch.empty_like(bias) if bias is not None and needed[2] else None

    def add(self, low: int, grad: Tensor, slope: Tensor | float, factor: Tensor | None = None) -> None:
        """Take in the tile that begins at `low`: `grad` on shaped logits, used up, times their `slope`.

        Args:
            factor: (U,) what each row is multiplied by besides; None: 1.
        """
        high = low + grad.shape[1]
        if isinstance(slope, Tensor):
            grad.mul_(slope)
        elif slope != 1.0:
            factor = torch.full_like(self._hidden[:, 0], slope, dtype=self._dtype) if factor is None else factor * slope
        if self.bias is not None:
            wide = grad.to(self._dtype)
            self.bias[low:high] = wide.sum(0) if factor is None else factor @ wide
        grad, hidden = grad.to(self._hidden.dtype), self._hidden
        if self.hidden is not None:
            part = self._weight[low:high].to(grad.dtype)
            if factor is None:
                add_product(self.hidden, grad, part)
            else:
                self.hidden.add_(product(grad, part) * factor[:, None])
        if self.weight is not None:
            hidden = hidden if factor is None else (hidden * factor[:, None]).to(hidden.dtype)
            part = self.weight[low:high]
            if part.dtype == grad.dtype:
                torch.mm(grad.T, hidden, out=part)
            else:
                part.copy_(grad.T @ hidden)

    def add_at(self, row: Tensor, token: Tensor, grad: Tensor) -> None:
        """Take in what single logits have besides, after all tiles: (T,) `grad` on the raw `token` in `row`."""
        if self.hidden is not None:
            self.hidden.index_add_(0, row, self._weight[token].to(self._dtype) * grad[:, None])
        if self.weight is not None:
            ids, total = summed_by_id(token, self._hidden[row] * grad[:, None])
            self.weight.index_add_(0, ids, total.to(self.weight.dtype))
        if self.bias is not None:
            ids, total = summed_by_id(token, grad)
            self.bias.index_add_(0, ids, total.to(self.bias.dtype))

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.hidden.to(self._hidden.dtype) if self.hidden is not None else None, self.weight, self.bias


def _softmax(logits: Tensor, *, in_place: bool) -> tuple[Tensor, Tensor]:
    """(U, W) softmax of one tile, and (U,) log-sum-exp of it: the largest of a row says what it was divided by.

    Args:
        in_place: `logits` may be used up.
    """
    top = logits.amax(1)
    # A CPU goes row by row; what a GPU's kernels do with their own input is nobody's promise.
    mass = torch.softmax(logits, 1, out=logits) if in_place and logits.is_cpu else torch.softmax(logits, 1)
    return mass, top - mass.amax(1).log()


def _raw_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, low: int, high: int) -> Tensor:
    part = weight[low:high].to(hidden.dtype)
    return by_transpose(hidden, part, None if bias is None else bias[low:high].to(hidden.dtype))


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
    n_rows, hidden = len(hidden), _filled_up(hidden)
    width = _tile_width(len(weight), len(hidden))
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
    entropies = entropies[:n_rows] if entropy else None
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
    head: LogitHead, hidden: Tensor, reference: LogitHead, reference_hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Divergences between a head's distribution and a reference's, hidden state by hidden state, over all of V.

    With p = softmax of `head`, q that of `reference`: *forward* is sum_v q (log q - log p), the reference first, and
    *reverse* sum_v p (log p - log q). Neither model's logits are ever whole: plain linear heads are walked in tiles of
    the vocabulary, others called on slices of the hidden states, and both are recomputed in the backward pass.

    Args:
        hidden: (U, H). reference_hidden: (U, H'); the two widths may differ, the vocabularies may not.

    Returns:
        (U,) forward and (U,) reverse, nats, at least 0 up to rounding (2e-6 in float32). Gradients flow to `hidden` and
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
    if type(head.module) is nn.Linear and type(reference.module) is nn.Linear:
        return _tiled(head, hidden, reference, reference_hidden)

    def one_slice(hidden: Tensor, reference_hidden: Tensor) -> tuple[Tensor, Tensor]:
        log_p = head.log_probs(hidden)
        with torch.no_grad():
            log_q = reference.log_probs(reference_hidden)
        difference = log_q - log_p
        return (log_q.exp() * difference).sum(1), -(log_p.exp() * difference).sum(1)

    size = max(1, TILE_BYTES // (4 * sizes[0]))
    parts = [
        checkpoint(one_slice, hidden[low : low + size], reference_hidden[low : low + size], use_reentrant=False)
        for low in range(0, len(hidden), size)
    ]
    forward, reverse = zip(*parts, strict=True)
    return torch.cat(forward), torch.cat(reverse)


def _tiled(head: LogitHead, hidden: Tensor, reference: LogitHead, reference_hidden: Tensor) -> tuple[Tensor, Tensor]:
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, reference_hidden = hidden.to(dtype), reference_hidden.to(dtype)
    n_rows, ours, theirs = len(hidden), head.module, reference.module
    hidden, reference_hidden = _filled_up(hidden), _filled_up(reference_hidden)
    other = tuple(x if x is None else x.detach() for x in (reference_hidden, theirs.weight, theirs.bias))
    shapes = tuple(_Shape(h.scale, h.softcap) for h in (head, reference))
    with torch.autocast(device, enabled=False):
        found = _Divergences.apply(
            hidden, ours.weight, ours.bias, other, _tile_width(len(ours.weight), len(hidden)), shapes
        )
    return found[0][:n_rows], found[1][:n_rows]


def _filled_up(hidden: Tensor) -> Tensor:
    """`hidden` with as many rows as kernels are compiled for. Nothing is read from what is added: its gradient is 0."""
    return nn.functional.pad(hidden, (0, 0, 0, rounded(len(hidden), hidden.dtype, hidden.device) - len(hidden)))


def _tile_width(n_vocabulary: int, n_rows: int) -> int:
    return min(n_vocabulary, max(256, TILE_BYTES // (4 * max(n_rows, 1))))
