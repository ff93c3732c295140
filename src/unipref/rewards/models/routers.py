"""Routers: what is asked about decides how a head's numbers are weighed.

Shapes: n rows, E numbers of a prompt, K weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.rewards.models.parts import Encoder, Rows, Sizes

__all__ = ["prompt_router"]


@dataclass(frozen=True, repr=False)
class prompt_router(Encoder):
    """Shares of K that the prompt's vector decides: softmax of a linear map or of a small perceptron.

    Even before the fit. Without vectors of prompts the shares are the same for all comparisons, and learned.

    Attributes:
        hidden: widths of the perceptron's layers; none: linear.
        outputs: K; 0 for the head's own.
        total: what the shares add up to; "outputs" for K, so that they are 1 on average.
        scaled: that sum is learned, from `total` on.
        fixed: without prompts the shares stay even.
    """

    hidden: tuple[int, ...] = ()
    outputs: int = 0
    total: float | str = 1.0
    scaled: bool = False
    fixed: bool = False

    reads_prompts = True

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"prompt_router(hidden={list(self.hidden)}): widths are at least 1")

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, K)."""
        k = self.outputs or outputs
        total = float(k) if self.total == "outputs" else float(self.total)
        return _Router(sizes.contexts, self.hidden, k, total, self.scaled, self.fixed)


class _Router(nn.Module):
    def __init__(self, width: int, hidden: tuple[int, ...], k: int, total: float, scaled: bool, fixed: bool) -> None:
        super().__init__()
        self.k, self.total, self.scale = k, total, nn.Parameter(torch.zeros(())) if scaled else None
        self.layers = None
        if width:
            layers: list[nn.Module] = []
            for size in hidden:
                layers += [nn.Linear(width, size), nn.ReLU()]
                width = size
            last = nn.Linear(width, k)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.layers = nn.Sequential(*layers, last)
        self.bias = nn.Parameter(torch.zeros(k)) if not width and not fixed else None

    def forward(self, rows: Rows) -> Tensor:
        if self.layers is not None:
            logits = self.layers(rows.context)
        else:
            like = rows.first.new_zeros(len(rows), self.k)
            logits = like if self.bias is None else like + self.bias
        shares = self.total * torch.softmax(logits, dim=1)
        return shares if self.scale is None else self.scale.exp() * shares
