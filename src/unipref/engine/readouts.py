"""Modules that are trained with a policy and read hidden states: numbers per item, and weights per token.

Shapes: I items, H hidden width, C classes, M positions that scored tokens are predicted from, K decoder blocks.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError, ShapeError, nearest

__all__ = [
    "READOUTS",
    "Head",
    "TokenMask",
    "class_head",
    "make_head",
    "reward_head",
    "step_value_head",
    "value_head",
]


class Head(nn.Module):
    """One or several numbers per item, read from the last hidden state of its context or of its response.

    Args:
        module: (..., H) to (..., 1) or (..., C).
        at: "context", the last context token, or "last", the last response token.
        detach: the module's input carries no gradient, so that training the head leaves the model alone.
    """

    def __init__(self, module: nn.Module, at: Literal["context", "last"] = "context", detach: bool = True) -> None:
        super().__init__()
        if at not in ("context", "last"):
            raise ConfigError(f"a head reads at 'context' or at 'last', not at {at!r}")
        self.module, self.at, self.detach = module, at, detach

    def forward(self, hidden: Tensor) -> Tensor:
        """(I,) or (I, C) from (I, H); the arithmetic is in the head's own dtype, autocast or not."""
        hidden = (hidden.detach() if self.detach else hidden).to(next(self.module.parameters()).dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.module(hidden).squeeze(-1)


def _linear_from_zero(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A float32 linear layer that gives 0 before it is trained."""
    layer = nn.Linear(inputs, outputs, bias=bias).float()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def value_head(hidden_size: int, *, width: int | None = None, at: Literal["context", "last"] = "context") -> Head:
    """V(x): a three-layer ReLU perceptron in float32 behind a stop-gradient, which gives 0 before it is trained.

    Source: the head that arXiv:2405.17956 takes from the HALOs code (hidden, hidden, hidden, 1). We depart from it in
    two ways: no dropout, and a last layer that starts at 0, so that the first advantages are the rewards themselves.
    """
    width = width or hidden_size
    layers = nn.Sequential(
        nn.Linear(hidden_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )
    nn.init.zeros_(layers[-1].weight)
    nn.init.zeros_(layers[-1].bias)
    return Head(layers.float(), at=at)


def step_value_head(hidden_size: int) -> Head:
    """V(s) in (-1, 1): one linear unit and tanh on the token that ends a step; 0 before it is trained.

    Its gradient reaches the model: policy and value share the network.

    Source: the head of SVPO (arXiv:2406.10858) as its authors' AlphaMath code has it. We depart from the code: no
    dropout, and the unit starts at 0.
    """
    return Head(nn.Sequential(_linear_from_zero(hidden_size, 1), nn.Tanh()), at="last", detach=False)


def reward_head(hidden_size: int) -> Head:
    """r(x, y): one linear unit on the last response token, trained together with the model; 0 before it is trained.

    It has no bias, which no comparison would see, so that it is the `score` of transformers' sequence classifiers.
    """
    return Head(_linear_from_zero(hidden_size, 1, bias=False), at="last", detach=False)


def class_head(hidden_size: int, n_classes: int) -> Head:
    """(I, C) logits of C classes from the last response token; all 0, so every class 1 / C, before it is trained.

    Raises:
        ConfigError: fewer than two classes.
    """
    if n_classes < 2:
        raise ConfigError(f"a class head tells at least 2 classes apart, not {n_classes}")
    return Head(_linear_from_zero(hidden_size, n_classes), at="last", detach=False)


class TokenMask(nn.Module):
    """A learned weight per scored token, at least 0, read from a reference's hidden states of all blocks.

    ``relu(sum_k c_k relu(a_k . layer_norm(h_k) + b_k))`` with h_k the output of block k at the position that predicts
    the token. Weights have no upper bound; the outer ReLU makes exact zeros. The arithmetic is in float32.

    Before training every weight is 1: a_k = 0, b_k = 1, c_k = 1 / K. So a method that weighs tokens with it starts at
    its unweighted twin, and no unit starts dead: with the authors' start (that of any linear layer) a mask whose
    pre-activations all are negative has neither output nor gradient, for good.

    Source: arXiv:2410.05102, `simple_all` in the authors' code (huawei-noah/HEBO, SparsePO/src/masks/mask_models.py).
    Their dropout is left out: their base trainer switches it off.
    """

    def __init__(self, n_layers: int, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.weight = nn.Parameter(torch.zeros(n_layers, hidden_size))
        self.bias = nn.Parameter(torch.ones(n_layers))
        self.mixer = nn.Linear(n_layers, 1, bias=False)
        nn.init.constant_(self.mixer.weight, 1 / n_layers)

    def forward(self, layers: Tensor) -> Tensor:
        """(M,) from (M, K, H); no gradient goes to `layers`.

        Raises:
            ShapeError: K or H is another than the mask was made for.
        """
        if layers.shape[1:] != self.weight.shape:
            expected, arrived = tuple(self.weight.shape), tuple(layers.shape[1:])
            raise ShapeError(
                f"the token mask reads (blocks, width) = {expected} and the reference has {arrived}; make the mask for "
                "the reference's num_hidden_layers and hidden_size"
            )
        with torch.autocast(layers.device.type, enabled=False):
            normed = self.norm(layers.detach().to(self.weight.dtype))
            units = torch.relu(torch.einsum("mkh,kh->mk", normed, self.weight) + self.bias)
            return torch.relu(self.mixer(units)).squeeze(-1)


READOUTS = ("value", "step_value", "reward_head", "degree_head", "reward_mask", "kl_mask")


def make_head(
    name: str, hidden_size: int, *, n_layers: int | None = None, n_classes: int | None = None
) -> Head | TokenMask:
    """The readout that gives the column `name`: one of `READOUTS`.

    Args:
        n_layers: blocks of the reference whose hidden states "reward_mask" and "kl_mask" read.
        n_classes: of "degree_head".

    Raises:
        ConfigError: the name is unknown, or what its readout needs is not given.
    """
    if name == "value":
        return value_head(hidden_size)
    if name == "step_value":
        return step_value_head(hidden_size)
    if name == "reward_head":
        return reward_head(hidden_size)
    if name == "degree_head":
        if n_classes is None:
            raise ConfigError("the readout 'degree_head' classifies; give n_classes")
        return class_head(hidden_size, n_classes)
    if name in ("reward_mask", "kl_mask"):
        if n_layers is None:
            raise ConfigError(f"the readout {name!r} reads every block of the reference; give n_layers")
        return TokenMask(n_layers, hidden_size)
    raise ConfigError(f"no readout gives a column {name!r}{nearest(name, READOUTS)}")
