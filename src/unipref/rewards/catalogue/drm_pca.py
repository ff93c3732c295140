"""Decomposed reward models: principal axes of preferences as heads, weighed by how well each fits a user."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.objectives import logistic
from unipref.rewards.models import (
    Adaptation,
    Encoder,
    Fitting,
    Head,
    PreferenceModel,
    Rows,
    Sizes,
    newcomers,
    preference_model,
    weighted,
)
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem
from unipref.rewards.models.net import Net
from unipref.rewards.table import PreferenceTable

_CHUNK = 16_384


@dataclass(frozen=True, repr=False)
class axes_head(Head):
    """K weighted sums of the features with unit weights, which are not trained: at most as many as features.

    The first is the mean difference where `keep_mean` says so.
    """

    components: int = 50
    keep_mean: bool = False

    def width(self, sizes: Sizes) -> int:
        """K"""
        return min(self.components, sizes.features) + self.keep_mean

    def build(self, sizes: Sizes) -> nn.Module:
        """(n, D) to (n, K)"""
        layer = nn.Linear(sizes.features, self.width(sizes), bias=False)
        nn.init.zeros_(layer.weight)
        layer.weight.requires_grad_(False)
        return layer


@dataclass(frozen=True, repr=False)
class axis_weights(Encoder):
    """K numbers per user, of either sign; somebody unknown has those that fit everybody's choices."""

    reads_users = True
    fallback = "the weights that fit all training comparisons as if one person had made them"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, K)."""
        return _Weights(sizes.users, outputs)


class _Weights(nn.Module):
    def __init__(self, users: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(users, outputs))
        self.register_buffer("pooled", torch.zeros(1, outputs))

    def forward(self, rows: Rows) -> Tensor:
        return torch.cat([self.codes, self.pooled])[rows.user]  # UNSEEN = -1 reads the last


def weights_of_fit(head: nn.Module, data: Data, index: np.ndarray, temperature: float) -> Tensor | None:
    """(K,) weights a_+k - a_-k over the spread of head k, a = softmax(-loss / temperature) over all 2K heads.

    Head +k and head -k say the opposite of each other. The loss of one is the logistic loss of its scores, divided by
    their spread over both sides of these comparisons, and summed over the comparisons; ties do not count. So the
    spread belongs to these comparisons, and no other one changes it. None where all are ties.
    """
    index = index[(data.p[index] != 0.5).numpy() & (data.weight[index] > 0).numpy()]
    if not len(index):
        return None
    total = square = count = 0.0
    for rows in _parts(data, index):
        both = torch.cat([head(rows.first), head(rows.second)])
        total, square, count = total + both.sum(dim=0), square + (both**2).sum(dim=0), count + len(both)
    spread = (square / count - (total / count) ** 2).clamp(min=0).sqrt()
    spread = torch.where(spread > 1e-9, spread, 1.0)
    losses = 0.0
    for rows in _parts(data, index):
        z = (head(rows.first) - head(rows.second)) / spread
        both = torch.cat([z, -z], dim=1)
        each = logistic().between(both, rows.p[:, None], 0.0, (1.0, 1.0))
        losses = losses + (rows.weight[:, None] * each).sum(dim=0)
    positive, negative = torch.softmax(-losses / temperature, dim=0).chunk(2)
    return (positive - negative) / spread


def _parts(data: Data, index: np.ndarray) -> list[Rows]:
    return (data.rows(index[start : start + _CHUNK]) for start in range(0, len(index), _CHUNK))


def principal_axes(data: Data, components: int, keep_mean: bool) -> tuple[Tensor, Tensor]:
    """(K, D) unit axes of the differences chosen - rejected about their mean, widest first, and (K,) their variances.

    A comparison counts by its weight times how far its label is from a tie. With `keep_mean` the direction of the mean
    stands before them, with its squared length.
    """
    width = data.table.width
    total, square, mass = torch.zeros(width).double(), torch.zeros(width, width).double(), 0.0
    for rows in _parts(data, np.arange(len(data))):
        sign, weight = torch.sign(rows.p - 0.5).double(), (rows.weight * (2 * rows.p - 1).abs()).double()
        delta = sign[:, None] * (rows.first - rows.second).double()
        total += weight @ delta
        square += delta.T @ (weight[:, None] * delta)
        mass += float(weight.sum())
    mean = total / mass
    variances, axes = torch.linalg.eigh(square / mass - torch.outer(mean, mean))
    found = axes.T.flip(0)[:components]
    largest = found.gather(1, found.abs().argmax(dim=1, keepdim=True))
    found = found * torch.sign(largest)  # either sign is an axis; one is chosen
    variances = variances.flip(0)[:components].clamp(min=0)
    if not keep_mean:
        return found, variances
    norm = mean.norm()
    first = mean / norm if norm > 0 else torch.zeros_like(mean)
    return torch.cat([first[None], found]), torch.cat([norm[None] ** 2, variances])


@dataclass(frozen=True, repr=False)
class axes_and_weights(Fitting):
    """Principal axes of all comparisons, then each user's weights from the user's own; no gradient is taken."""

    components: int = 50
    keep_mean: bool = False
    temperature: float = 1.0

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """The net, and "variances" of the axes."""
        net = problem.build(0)
        axes, variances = principal_axes(data, self.components, self.keep_mean)
        with torch.no_grad():
            net.head.weight.copy_(axes)
            everybody = np.arange(len(data))
            net.encoder.pooled.copy_(weights_of_fit(net.head, data, everybody, self.temperature)[None])
            net.encoder.codes.copy_(_weights_of_users(net, data, len(net.encoder.codes), self.temperature))
        return net, {"variances": [float(value) for value in variances]}


def _weights_of_users(net: Net, data: Data, n: int, temperature: float, first: int = 0) -> Tensor:
    """(n, K) of the users from number `first` on; somebody whose choices are all ties gets everybody's."""
    codes = net.encoder.pooled.repeat(n, 1)
    order = np.argsort(data.user.numpy(), kind="stable")
    bounds = np.searchsorted(data.user.numpy()[order], np.arange(first, first + n + 1))
    for k in range(n):
        own = weights_of_fit(net.head, data, order[bounds[k] : bounds[k + 1]], temperature)
        if own is not None:
            codes[k] = own
    return codes


@dataclass(frozen=True, repr=False)
class softmax_of_fit(Adaptation):
    """A newcomer's weights are the softmax of how well every axis, either way round, fits their choices."""

    temperature: float = 1.0

    def adapt(self, model: PreferenceModel, table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with newcomers' weights, and all users and domains by number.

        Raises:
            DataError: the table names nobody that the model does not know already.
        """
        new, own, grown = newcomers(model, table)
        net = deepcopy(model.net_)
        with torch.no_grad():
            codes = _weights_of_users(net, grown._data(own), len(new), self.temperature, first=len(model.users_))
        net.encoder.codes = torch.cat([net.encoder.codes, codes])
        return net, grown.users_, model.domains_


@preference_model(
    "drm_pca",
    source="arXiv:2502.13131, as in github.com/amandaluof/DRMs",
    formula="r_u(y) = sum_k (a_+k - a_-k) e_k . phi(y) / s_k, a = softmax(-loss_u / T), e_k principal axes",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Rethinking Diverse Human Preference Learning through Principal Component Analysis",
        ("Feng Luo", "Rui Yang", "Hao Sun", "and others"),
        2025,
        "2502.13131",
    ),
)
def drm_pca(
    *,
    components: int = 50,
    temperature: float = 1.0,
    keep_mean: bool = False,
    scale: str = "all",
) -> PreferenceModel:
    """Principal axes of chosen minus rejected features are heads, both ways round; a user weighs them by how they fit.

    Nothing is trained: the axes come from all comparisons, whoever made them, and weights from a user's own, known or
    new. Weights are a softmax of minus the summed losses, so that after many choices one axis has nearly all of it.
    The authors' code divides scores by their spread over the batch that is evaluated; here the spread is that of the
    choices that decide the weights, so a prediction does not depend on what else is predicted.

    The mean difference, which is what Bradley-Terry's model is nearest to, is subtracted before the axes are found.

    Args:
        components: axes, at most as many as features.
        temperature: of the softmax: towards 0 the best head alone, towards infinity nothing at all.
        keep_mean: the direction of the mean difference is a head too. The paper has none.
        scale: of the features: "all" by one spread, or "none", with which a rotation of the features changes nothing;
            "each" by its own.
    """
    if components < 1 or not temperature > 0:
        raise ConfigError(
            f"drm_pca(components={components}, temperature={temperature}): the first is at least 1, the second above 0"
        )
    return PreferenceModel(
        axes_head(components, keep_mean),
        bradley_terry(),
        encoder=axis_weights(),
        mixing=weighted(),
        fitting=axes_and_weights(components, keep_mean, temperature),
        adaptation=softmax_of_fit(temperature),
        scale=scale,
    )
