"""A convex fit to more comparisons than fit into memory: a sample shows the way, passes over all take the steps.

The sample's optimum is near that of all comparisons, and its curvature near theirs, so that BFGS that begins with both
and goes on with the gradient of all comparisons is there after a few passes. Memory holds the sample and one chunk.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unipref.rewards.models.data import Data
from unipref.rewards.models.net import Net, batch_of
from unipref.rewards.models.parts import Rows

if TYPE_CHECKING:
    from unipref.rewards.models.descent import Problem

__all__ = ["MOST", "SAMPLE", "streamed"]

MOST = 2048  # parameters, whose curvature is a matrix
SAMPLE = 2**24  # numbers of features in the sample
_BENT = 2**23  # numbers of features in the part of it of which the curvature is taken
_CHUNK = 4096  # comparisons of all that are in memory at a time
_PASSES = 30
_ENOUGH = 1e-3  # a step is worth a pass if it gains this share of what the weights' chance errors cost, P / 2N
_AT_ONCE = 32  # rows of the curvature that are computed at a time


def streamed(
    problem: "Problem",
    net: Net,
    data: Data,
    index: np.ndarray,
    ridge: float,
    *,
    seed: int,
    sampled: Callable[[Net, Rows], Net],
) -> tuple[Net, float, dict[str, Any]]:
    """The net at the least loss over the comparisons `index`, that loss, and {"steps": passes over all of them}.

    Args:
        net: of at most MOST parameters.
        sampled: fits a net to rows in memory.
    """
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    size = max(SAMPLE // (2 * data.table.width), 8 * n_parameters)
    some = np.random.default_rng(seed).choice(index, min(size, len(index)), replace=False)
    rows = data.rows(np.sort(some))
    net = sampled(net, rows)
    part = max(_BENT // (2 * data.table.width), 4 * n_parameters)
    inverse = torch.cholesky_inverse(
        torch.linalg.cholesky(_curvature(problem, net, data.rows(np.sort(some[:part])), ridge))
    )
    del rows
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    least = _ENOUGH * n_parameters / (2 * len(index))
    totals = _denominators(problem, net, data, index)
    here = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    loss, gradient = _pass(problem, net, parameters, data, index, ridge, totals)
    passes, scale = 1, 1.0
    while passes < _PASSES and float(gradient @ inverse @ gradient) / 2 > least:
        step = -scale * (inverse @ gradient)
        torch.nn.utils.vector_to_parameters(here + step.to(here), parameters)
        new_loss, new_gradient = _pass(problem, net, parameters, data, index, ridge, totals)
        passes += 1
        if new_loss > loss:
            scale /= 2
            continue
        inverse = _learned(inverse, step, new_gradient - gradient)
        here, scale = torch.nn.utils.parameters_to_vector(parameters).detach().clone(), 1.0
        loss, gradient = new_loss, new_gradient
    torch.nn.utils.vector_to_parameters(here, parameters)
    return net, loss, {"steps": passes}


def _learned(inverse: Tensor, step: Tensor, bend: Tensor) -> Tensor:
    """The inverse curvature once a step has changed the gradient by `bend`; BFGS, Nocedal and Wright (6.17)."""
    along = float(step @ bend)
    if not along > 0:  # flat or rounded away: nothing to learn
        return inverse
    left = torch.eye(len(step), dtype=inverse.dtype) - torch.outer(step, bend) / along
    return left @ inverse @ left.T + torch.outer(step, step) / along


def _chunks(data: Data, index: np.ndarray) -> Iterator[Rows]:
    for start in range(0, len(index), _CHUNK):
        yield data.rows(index[start : start + _CHUNK])


def _denominators(problem: "Problem", net: Net, data: Data, index: np.ndarray) -> dict[str, Tensor]:
    """What each term of the loss divides by, over all comparisons."""
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for rows in _chunks(data, index):
            for name, value in problem.objective.denominators(batch_of(rows, net(rows))).items():
                totals[name] = totals.get(name, 0.0) + value.double()
    return totals


def _pass(
    problem: "Problem",
    net: Net,
    parameters: list[Tensor],
    data: Data,
    index: np.ndarray,
    ridge: float,
    totals: dict[str, Tensor],
) -> tuple[float, Tensor]:
    """The loss over all comparisons and its gradient (P,) float64."""
    total, gradient = 0.0, torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
    for rows in _chunks(data, index):
        loss = problem.objective.loss(batch_of(rows, net(rows)), totals).total
        gradient += _flat(torch.autograd.grad(loss, parameters)).double()
        total += float(loss.detach())
    if ridge:
        pull = ridge / 2 * problem.distance(net)
        gradient += _flat(torch.autograd.grad(pull, parameters, materialize_grads=True)).double()
        total += float(pull.detach())
    return total, gradient


def _curvature(problem: "Problem", net: Net, rows: Rows, ridge: float) -> Tensor:
    """(P, P) float64: the second derivatives of the loss on `rows`, made positive where it is flat."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    loss = problem.loss(net, rows, ridge)
    slope = _flat(torch.autograd.grad(loss, parameters, create_graph=True))
    size = len(slope)
    parts = []
    for start in range(0, size, _AT_ONCE):
        ways = torch.eye(size, dtype=slope.dtype)[start : start + _AT_ONCE]
        found = torch.autograd.grad(slope, parameters, ways, retain_graph=True, is_grads_batched=True)
        parts.append(torch.cat([part.reshape(len(ways), -1) for part in found], dim=1).double())
    curvature = torch.cat(parts)
    curvature = (curvature + curvature.T) / 2
    lowest = 1e-6 * float(curvature.diagonal().mean()) + 1e-12
    return curvature + max(lowest - float(torch.linalg.eigvalsh(curvature)[0]), 0.0) * torch.eye(size).double()


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
