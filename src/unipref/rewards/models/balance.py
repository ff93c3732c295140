"""Fits that see several sources of comparisons at once: weighed against each other, or made alike.

Shapes: T sources, P parameters of the last layer.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError, nearest
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, Trainer, descent
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Rows

__all__ = ["NORMALISATIONS", "balanced", "last_layer", "min_norm", "min_norm_weights"]

NORMALISATIONS = ("none", "l2", "loss", "loss+")
_TINY = 1e-12
_STILL = 1e-9  # squared length of a step's direction at which a fit ends


def balanced(data: Data) -> Data:
    """The same comparisons, weighed so that every domain counts alike; those that name none are one more domain."""
    names, number = np.unique(data.domain.numpy(), return_inverse=True)
    totals = np.bincount(number, weights=data.weight.double().numpy(), minlength=len(names))
    share = data.weight.double().sum().item() / np.maximum(totals, _TINY) / max((totals > 0).sum(), 1)
    same = copy(data)
    same.weight = data.weight * torch.from_numpy(share[number]).to(data.weight.dtype)
    return same


def last_layer(head: nn.Module) -> nn.Linear:
    """The linear layer that a head ends with."""
    return head if isinstance(head, nn.Linear) else head[-1]


def min_norm_weights(gradients: Tensor, tolerance: float = 1e-12, most: int = 1000) -> Tensor:
    """(T,) shares that add up to 1 for which the weighed sum of `gradients`, (T, P), is shortest.

    Two have a closed form. More are solved by pairwise Frank-Wolfe steps, each exact along its line: from the source
    that the sum agrees with most to the one it agrees with least.
    """
    gram = (gradients @ gradients.T).double()
    t = len(gram)
    if t == 1:
        return torch.ones(1, dtype=gram.dtype)
    if t == 2:
        apart = gram[0, 0] - 2 * gram[0, 1] + gram[1, 1]
        if apart <= _TINY * (gram[0, 0] + gram[1, 1]):
            return torch.full((2,), 0.5, dtype=gram.dtype)
        first = ((gram[1, 1] - gram[0, 1]) / apart).clamp(0.0, 1.0)
        return torch.stack([first, 1 - first])
    share = torch.full((t,), 1 / t, dtype=gram.dtype)
    scale = gram.diagonal().max().clamp(min=_TINY)
    for _ in range(most):
        slope = gram @ share
        to = int(slope.argmin())
        away = int(torch.where(share > 0, slope, -torch.inf).argmax())
        gain = slope[away] - slope[to]
        if gain <= tolerance * scale:
            break
        bend = gram[to, to] - 2 * gram[to, away] + gram[away, away]
        step = torch.minimum(gain / bend.clamp(min=_TINY * scale), share[away])
        share[to] += step
        share[away] = (share[away] - step).clamp(min=0.0)
    return share / share.sum()


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([each.reshape(-1) for each in tensors])


@dataclass(frozen=True, eq=False)
class _Worst(Problem):
    """A fit to several domains is stopped by the worst of them: their mean would favour those that outnumber it."""

    def judged(self, net: Net, data: Data, index: np.ndarray) -> float:
        domain = data.domain.numpy()[index]
        return max(super(_Worst, self).judged(net, data, index[domain == name]) for name in np.unique(domain))


@dataclass(frozen=True, repr=False)
class min_norm(descent):
    """Steps along the shortest weighed sum of the domains' gradients, which lowers all their losses or is 0.

    Where all comparisons fit into memory, gradients are of all of them and a step is as long as every domain gains by
    it; the fit ends where no step helps all. Otherwise Adam takes the steps, and a batch has its share of every domain.
    With one domain it is `descent`.

    Attributes:
        normalise: what a domain's gradient is divided by before it is weighed: 1 ("none"), its length ("l2"), its loss
            ("loss"), or both ("loss+").
        alpha: share of the newest gradient in the running mean that is weighed; 1 has no memory.
        steps: at most, where all comparisons fit into memory.
        ridge: None: the one that `descent` takes.
    """

    normalise: str = "none"
    alpha: float = 1.0
    steps: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalise not in NORMALISATIONS:
            raise ConfigError(f"normalise={self.normalise!r}{nearest(str(self.normalise), NORMALISATIONS)}")
        if not 0 < self.alpha <= 1 or self.steps < 1:
            raise ConfigError(f"alpha={self.alpha!r}, steps={self.steps!r}: above 0 and at most 1; at least 1")

    def _chosen(self, problem: Problem, data: Data) -> tuple[float, list[dict[str, float]], int]:
        if not problem.convex:
            return super()._chosen(problem, data)
        # with one loss for all domains, which has an optimum that is found at once
        return descent(seed=self.seed)._chosen(problem, data)

    def _run(self, problem: Problem, data: Data, index: np.ndarray, ridge: float, seed: int, **more: Any) -> Any:
        if len(data.domain.unique()) == 1:
            return super()._run(problem, data, index, ridge, seed, **more)
        net = problem.build(seed)
        if super()._whole(replace(problem, convex=True), data, len(index)):
            return self._together(problem, net, data, index, ridge)
        return self._adam(_Worst(**vars(problem)), net, data, index, ridge, seed)

    def _together(self, problem: Problem, net: Net, data: Data, index: np.ndarray, ridge: float) -> Any:
        """Steepest common descent: each domain gains a tenth of what its slope promises, or the step is halved."""
        every = data.rows(index)
        parts = [every.take(every.domain == number) for number in every.domain.unique()]
        parameters = [each for each in net.parameters() if each.requires_grad]
        weigher = _Weigher(self, data.table.domains)
        here = nn.utils.parameters_to_vector(parameters).detach()
        length, taken = 1.0, 0
        while taken < self.steps:
            losses = [problem.loss(net, part, ridge) for part in parts]
            shares = weigher.shares(net, parts, losses)
            slopes = torch.stack([_flat(torch.autograd.grad(loss, parameters)) for loss in losses])
            way = shares @ slopes
            if way @ way < _STILL:
                break
            now, gains, length = torch.stack(losses).detach(), slopes @ way, 2 * length
            while length > _TINY:
                nn.utils.vector_to_parameters(here - length * way, parameters)
                with torch.no_grad():
                    then = torch.stack([problem.loss(net, part, ridge) for part in parts])
                # with another normalisation a domain may be set to lose; it then has no say in the length
                if (then <= now - 0.1 * length * gains)[gains > 0].all():
                    break
                length /= 2
            else:
                nn.utils.vector_to_parameters(here, parameters)
                break
            here, taken = here - length * way, taken + 1
        with torch.no_grad():
            return net, float(problem.loss(net, every, ridge)), {"steps": taken, **weigher.told()}

    def batches(self, data: Data, inside: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """The comparisons `inside`, each once; every batch has its share of every domain."""
        n = max(1, round(len(inside) / self.batch_size))
        order = generator.permutation(inside)
        domain = data.domain.numpy()[order]
        parts = [np.array_split(order[domain == name], n) for name in np.unique(domain)]
        for k in range(n):
            yield np.concatenate([part[k] for part in parts])

    def trainer(self, problem: Problem, net: Net, ridge: float, data: Data) -> Trainer:
        return _MinNorm(self, problem, net, ridge, data)


class _Weigher:
    """The domains' shares at each step, from the gradients of the last layer."""

    def __init__(self, fitting: min_norm, names: tuple[str, ...]) -> None:
        self.fitting, self.names = fitting, names
        self.memory: dict[int, Tensor] = {}
        self.last: dict[int, float] = {}

    def shares(self, net: Net, parts: list[Rows], losses: list[Tensor]) -> Tensor:
        """(T,) of the domains of `parts`, whose losses are `losses`."""
        weight, gradients = last_layer(net.head).weight, []
        numbers = [int(part.domain[0]) for part in parts]
        for number, loss in zip(numbers, losses, strict=True):
            newest = torch.autograd.grad(loss, weight, retain_graph=True)[0].reshape(-1)
            before = self.memory.get(number, torch.zeros_like(newest))
            self.memory[number] = (1 - self.fitting.alpha) * before + self.fitting.alpha * newest
            gradients.append(self.memory[number] / self._size(self.memory[number], loss.detach()))
        shares = min_norm_weights(torch.stack(gradients)).to(weight.dtype)
        self.last = dict(zip(numbers, shares.tolist(), strict=True))
        return shares

    def _size(self, gradient: Tensor, loss: Tensor) -> Tensor:
        length, loss = gradient.norm().clamp(min=_TINY), loss.clamp(min=_TINY)
        sizes = {"none": torch.ones_like(loss), "l2": length, "loss": loss, "loss+": length * loss}
        return sizes[self.fitting.normalise]

    def told(self) -> dict[str, Any]:
        named = {self.names[k] if k >= 0 else "(none named)": round(share, 6) for k, share in self.last.items()}
        return {"shares": named}


class _MinNorm(Trainer):
    def __init__(self, fitting: min_norm, problem: Problem, net: Net, ridge: float, data: Data) -> None:
        super().__init__(fitting, problem, net, ridge)
        self.weigher = _Weigher(fitting, data.table.domains)

    def backward(self, rows: Rows, clock: Clock) -> None:
        parts = [rows.take(rows.domain == number) for number in rows.domain.unique()]
        losses = [self.problem.loss(self.net, part, clock=clock) for part in parts]
        shares = self.weigher.shares(self.net, parts, losses)
        total = len(parts) * sum(share * loss for share, loss in zip(shares, losses, strict=True))
        if self.ridge:
            total = total + self.ridge / 2 * self.problem.distance(self.net)
        total.backward()

    def told(self) -> dict[str, Any]:
        return self.weigher.told()
