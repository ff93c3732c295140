"""Random rows of tries and the plainest attention over them."""

import numpy as np
import torch
from torch import Tensor

from unipref.core.tries import TrieBatch, build_trie, pack


def bushy_row(seed: int, longest: int = 40) -> TrieBatch:
    """Up to four trees whose items leave each other anywhere: in the prompt, in a response, at its end."""
    draw = np.random.default_rng(seed)

    def ids(n: int) -> list[int]:
        return draw.integers(0, 50_000, n).tolist()

    tries = []
    for _ in range(draw.integers(1, 5)):
        items = [(ids(draw.integers(1, 2 * longest)), ids(draw.integers(1, longest)))]
        for _ in range(draw.integers(0, 8)):
            context, response = items[draw.integers(len(items))]
            whole = context + response
            items.append((whole[: draw.integers(1, len(whole) + 1)], ids(draw.integers(1, longest))))
        tries.append(build_trie(items))
    return pack(tries)


def seen(batch: TrieBatch, window: int | None = None) -> Tensor:
    """(N, N) bool, by the parents alone: row q sees column k where k is q or one of the nodes above it."""
    n = len(batch.parent)
    up = np.full((n, n), np.inf)  # how far a row goes up to a column
    for q, parent in enumerate(batch.parent.tolist()):
        if parent >= 0:
            up[q] = up[parent] + 1
        up[q, q] = 0
    return torch.from_numpy(up < (np.inf if window is None else window))


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None = None
) -> Tensor:
    """(N, A, Dv) of (N, A, D), (N, G, D), (N, G, Dv) and (N, N) bool, head by head."""
    repeats = q.shape[1] // k.shape[1]
    heads = []
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // repeats].T * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        heads.append(scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v[:, head // repeats])
    return torch.stack(heads, 1)


def some_heads(
    n: int, heads: tuple[int, int], widths: tuple[int, int], dtype: torch.dtype, seed: int = 0
) -> list[Tensor]:
    """Leaves q (N, A, D), k (N, G, D) and v (N, G, Dv), and a gradient (N, A, Dv) of what they give."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n_heads: int, width: int) -> Tensor:
        return torch.randn(n, n_heads, width, generator=generator, dtype=torch.float64).to(dtype)

    shapes = (heads[0], widths[0]), (heads[1], widths[0]), (heads[1], widths[1])
    return [*(draw(*shape).requires_grad_() for shape in shapes), draw(heads[0], widths[1])]
