"""Heads: features of a response to numbers, and how several numbers are put together.

Shapes: n rows, D features, K outputs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.rewards.models.parts import Head, Mixing, Output, Rows, Sizes

__all__ = ["difference", "linear_head", "mlp_head"]


@dataclass(frozen=True, repr=False)
class linear_head(Head):
    """K weighted sums of the features, all 0 before the fit; no bias, which no comparison would see."""

    outputs: int = 1
    spread: float = 0.0  # of the weights before the fit: more than one output must not start equal

    convex = True

    def build(self, sizes: Sizes) -> nn.Module:
        """(n, D) to (n, K)"""
        layer = nn.Linear(sizes.features, self.outputs, bias=False)
        nn.init.normal_(layer.weight, std=self.spread) if self.spread else nn.init.zeros_(layer.weight)
        return layer


@dataclass(frozen=True, repr=False)
class mlp_head(Head):
    """K outputs of a small perceptron; `hidden` are its layers' widths, the last layer has no bias."""

    outputs: int = 1
    hidden: tuple[int, ...] = (64,)
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.activation not in _ACTIVATIONS:
            raise ConfigError(f"mlp_head(activation={self.activation!r}); known are {', '.join(_ACTIVATIONS)}")
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"mlp_head(hidden={list(self.hidden)}): widths are at least 1")

    def build(self, sizes: Sizes) -> nn.Module:
        """(n, D) to (n, K)"""
        layers: list[nn.Module] = []
        width = sizes.features
        for size in self.hidden:
            layers += [nn.Linear(width, size), _ACTIVATIONS[self.activation]()]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, self.outputs, bias=False))


_ACTIVATIONS: dict[str, Any] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@dataclass(frozen=True, repr=False)
class difference(Mixing):
    """The one output of a response is its reward, and a comparison the difference of two.

    Attributes:
        temperature: divides the difference to make it log odds; the objective has to divide by it too.
        bounded: a response alone gets sigmoid(reward), in (0, 1), as a policy's reward; comparisons stay as they are.
    """

    temperature: float = 1.0
    bounded: bool = False

    convex = True

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        if outputs != 1:
            raise ConfigError(f"a difference of rewards has one number per response; the head gives {outputs}")
        return _Difference(self.temperature, self.bounded)


class _Difference(nn.Module):
    def __init__(self, temperature: float = 1.0, bounded: bool = False) -> None:
        super().__init__()
        self.temperature, self.bounded = temperature, bounded

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        rewards = torch.stack([first[:, 0], second[:, 0]])
        return Output((rewards[0] - rewards[1]) / self.temperature, rewards)

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return torch.sigmoid(values[:, 0]) if self.bounded else values[:, 0]
