"""The general preference model: who beats whom, circles included."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import Head, Mixing, Output, PreferenceModel, Rows, Sizes, descent, preference_model
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem
from unipref.rewards.models.net import Net
from unipref.rewards.models.routers import prompt_router

_CHUNK = 16_384
_HANDFUL = 2**10  # numbers of features


@dataclass(frozen=True, repr=False)
class skew_head(Head):
    """A vector of `blocks` planes per response, linear in the features or behind a perceptron's layers.

    It has a constant, which a ridge pulls to (0, 1) in every plane: with (r, 1) the score of two responses is the
    difference of their rewards r, so that Bradley-Terry's models are among these, at the same ridge.
    """

    blocks: int = 3
    hidden: tuple[int, ...] = ()
    spread: float = 0.1

    def width(self, sizes: Sizes) -> int:
        return 2 * self.blocks

    def build(self, sizes: Sizes) -> nn.Module:
        return _Skew(sizes.features, self.hidden, self.blocks, self.spread)


class _Skew(nn.Module):
    def __init__(self, width: int, hidden: tuple[int, ...], blocks: int, spread: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.GELU()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.weight = nn.Parameter(spread / (width + 1) ** 0.5 * torch.randn(2 * blocks, width))
        self.register_buffer("base", torch.tensor([0.0, 1.0]).repeat(blocks))
        self.departure = nn.Parameter(torch.zeros(2 * blocks))  # from it, which the ridge keeps small

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(self.layers(features), self.weight, self.base + self.departure)


@dataclass(frozen=True, repr=False)
class skew(Mixing):
    """s(a, b) = sum_l w_l (a_l1 b_l2 - a_l2 b_l1) / tau: exactly the negative of s(b, a).

    A response alone has its mean score against the training responses. As s is linear in either response, that is its
    score against their mean vector, which the module keeps.
    """

    temperature: float = 0.1
    normalised: bool = False

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _SkewForm(outputs, self.temperature, self.normalised)


class _SkewForm(nn.Module):
    def __init__(self, outputs: int, temperature: float, normalised: bool) -> None:
        super().__init__()
        self.temperature, self.normalised = temperature, normalised
        self.register_buffer("typical", torch.zeros(outputs))

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        return Output(self._score(self.vectors(first), self.vectors(second), code))

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return self._score(self.vectors(values), self.typical.expand_as(values), code)

    def vectors(self, values: Tensor) -> Tensor:
        return F.normalize(values, dim=1) if self.normalised else values

    def _score(self, a: Tensor, b: Tensor, code: Tensor | None) -> Tensor:
        blocks = a[:, 0::2] * b[:, 1::2] - a[:, 1::2] * b[:, 0::2]
        return (blocks if code is None else code * blocks).sum(dim=1) / self.temperature


@dataclass(frozen=True, repr=False)
class remembering(descent):
    """Descent, and then the mean vector of the responses that were trained on, for those that stand alone.

    A handful of comparisons, such as a tournament's, is fitted as a whole: L-BFGS ends at a loss of 0 where Adam nears.
    """

    def _whole(self, problem: Problem, data: Data, n: int) -> bool:
        return super()._whole(problem, data, n) or (self.optimizer == "auto" and 2 * n * data.table.width <= _HANDFUL)

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        net, told = super().fit(problem, data)
        used = np.unique(np.concatenate([data.table.first, data.table.second]))
        total = torch.zeros_like(net.mixing.typical)
        with torch.no_grad():
            for start in range(0, len(used), _CHUNK):
                features = data.scaling(data.table.features[used[start : start + _CHUNK]], data.dtype)
                total += net.mixing.vectors(net.head(features)).sum(dim=0)
        net.mixing.typical.copy_(total / len(used))
        return net, told


@preference_model(
    "gpm",
    source="arXiv:2410.02197, as in github.com/general-preference/general-preference-model",
    formula="P(a > b) = sigmoid(sum_l w_l(x) (v_l1(a) v_l2(b) - v_l2(a) v_l1(b)) / tau), v(y) = W phi(y) + c",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Beyond Bradley-Terry Models: A General Preference Model for Language Model Alignment",
        ("Yifan Zhang", "Ge Zhang", "Yue Wu", "Kangping Xu", "Quanquan Gu"),
        2024,
        "2410.02197",
    ),
)
def gpm(
    *,
    blocks: int = 3,
    temperature: float = 0.1,
    normalised: bool = False,
    hidden: tuple[int, ...] = (),
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.01,
    epochs: int = 200,
    restarts: int = 1,
    seed: int = 0,
) -> PreferenceModel:
    """A score of two responses that no reward need stand behind, so that preferences may run in circles.

    Each response is a point in `blocks` planes, and in a plane one beats what lies behind it. With half as many planes
    as there are responses every table of who beats whom can be said. Where all points have the form (r, 1) it is
    Bradley-Terry's model. A response alone gets its mean score against the training responses: the reward that a
    scorer gives, which orders circles no better than any reward does.

    The paper's head has no constant; here it has one, which begins at (0, 1) in every plane, since features are centred
    and (r, 1) needs it. Where the table has vectors of prompts, they decide how much each plane counts (1 on average).

    Args:
        blocks: planes per response, half the numbers of its vector.
        temperature: divides the score; the authors' 0.1. A low one makes the ridge spare rewards and shrink circles.
        normalised: vectors of length 1, as in the authors' example of use; scores then lie within 1 / temperature.
        hidden: widths of a perceptron's layers before the vector; none: it is linear in the features.
        ridge: pull of W to 0 and of the constant to (0, 1); None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, restarts, seed: of the fit; of several beginnings the one with the least loss stays.
    """
    if blocks < 1 or not temperature > 0:
        raise ConfigError(f"gpm(blocks={blocks!r}, temperature={temperature!r}): at least 1, and above 0")
    return PreferenceModel(
        skew_head(blocks, tuple(hidden)),
        bradley_terry(),
        encoder=prompt_router(outputs=blocks, total="outputs", fixed=True),
        mixing=skew(temperature, normalised),
        fitting=remembering(ridge=ridge, lr=lr, batch_size=256, epochs=epochs, restarts=restarts, seed=seed),
        scale=scale,
    )
