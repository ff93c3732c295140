"""The fit of most preference models: descent on the objective's loss, with a ridge chosen inside the data."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError, UniprefError, nearest
from unipref.objectives import Objective
from unipref.rewards.models.data import Data
from unipref.rewards.models.net import Net, batch_of
from unipref.rewards.models.parts import AddOn, Fitting, Rows
from unipref.rewards.models.streaming import MOST, streamed

__all__ = ["RIDGES", "Problem", "Trainer", "descent", "folds_of", "log_loss"]

OPTIMIZERS = ("auto", "lbfgs", "adam")
RIDGES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_WHOLE = 2**26  # numbers of features that may be in memory at once
_FOLDS = 5
_LOOKED_AT = 20_000  # comparisons on which a ridge is chosen
_STEPS = 20  # least steps of an epoch: a patience of a few steps would end before anything is learned
_DROPS = 3  # times that Adam goes on with a third of its rate before it ends


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be fitted.

    Attributes:
        build: a net before its fit, from a seed.
        convex: there is one optimum, which does not depend on where the fit begins.
        centre: the net that the ridge pulls to; None: to 0.
    """

    build: Callable[[int], Net]
    objective: Objective
    addons: tuple[AddOn, ...] = ()
    convex: bool = False
    centre: Net | None = None

    def loss(self, net: Net, rows: Rows, ridge: float = 0.0, clock: Clock | None = None) -> Tensor:
        """0-d: objective, add-ons and ridge on a batch; means over comparisons by weight."""
        output = net(rows)
        total = self.objective.loss(batch_of(rows, output, clock)).total
        own = dict(net.own.items())
        for k, addon in enumerate(self.addons):
            total = total + addon(net, rows, output, own.get(str(k)))
        if ridge:
            total = total + ridge / 2 * self.distance(net)
        return total

    def distance(self, net: Net) -> Tensor:
        """0-d: the sum of squares that the ridge keeps small."""
        if self.centre is None:
            return sum((parameter**2).sum() for parameter in net.penalised())
        pairs = zip(net.penalised(), self.centre.penalised(), strict=True)
        return sum(((parameter - goal.detach()) ** 2).sum() for parameter, goal in pairs)

    def judged(self, net: Net, data: Data, index: np.ndarray) -> float:
        """What a ridge is chosen and a fit is stopped by, on comparisons that the fit has not seen; lower is better."""
        return log_loss(net, data, index)


def folds_of(groups: np.ndarray, n_folds: int, seed: int = 0) -> np.ndarray:
    """(N,) the fold of each comparison; a group is never parted."""
    names, inverse = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % n_folds)[inverse]


def log_loss(net: Net, data: Data, index: np.ndarray, chunk: int = 16_384) -> float:
    """Mean negative log-likelihood of soft labels, nats, by weight, whatever the objective is."""
    total, weight = 0.0, 0.0
    with torch.no_grad():
        for start in range(0, len(index), chunk):
            rows = data.rows(index[start : start + chunk])
            logit = net(rows).logit.double()
            losses = torch.nn.functional.softplus(-logit) + (1 - rows.p.double()) * logit
            total += float((rows.weight.double() * losses).sum())
            weight += float(rows.weight.double().sum())
    return total / weight if weight else math.nan


@dataclass(frozen=True, repr=False)
class descent(Fitting):
    """L-BFGS on all comparisons where the problem is convex, `streamed` where they do not fit into memory and there are
    few parameters; else Adam with early stopping.

    Attributes:
        optimizer: "lbfgs", "adam", or "auto".
        ridge: factor of half the squared weights, beside a mean over comparisons; None: the one of RIDGES with the
            least log loss on comparisons that a fit has not seen (no conversation is parted); they are tried from the
            strongest on, until the log loss has risen twice. With many comparisons that is done on some of them, and
            the ridge is as much weaker as all are more: a prior is worth a fixed number of comparisons.
        lr, batch_size, epochs: of Adam; epochs are at most so many, and one is as many passes as 20 steps take.
        patience: epochs without a lower log loss on left-out comparisons, after which Adam takes a third of its rate,
            and at last ends at the best it had; 0: all epochs are trained, on all comparisons.
        restarts: fits from different beginnings, of which the one with the least training loss stays.
    """

    optimizer: str = "auto"
    ridge: float | None = None
    lr: float = 0.01
    batch_size: int = 1024
    epochs: int = 200
    patience: int = 5
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer={self.optimizer!r}{nearest(str(self.optimizer), OPTIMIZERS)}")
        if self.ridge is not None and not self.ridge >= 0:
            raise ConfigError(f"ridge={self.ridge!r}: it is at least 0, or null to have it chosen")
        for name in ("lr", "batch_size", "epochs", "restarts"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: it is above 0")

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """The fitted net, and what is said of the fit: "ridge", "ridges" with their log losses, "loss", "steps".

        Raises:
            UniprefError: the parameters are not finite.
        """
        told: dict[str, Any] = {}
        ridge = self.ridge
        if ridge is None:
            ridge, told["ridges"], told["ridges_on"] = self._chosen(problem, data)
            ridge *= told["ridges_on"] / len(self.rows(data))
        index = self.rows(data)
        fits = [self._run(problem, data, index, ridge, self.seed + k) for k in range(self.restarts)]
        net, loss, said = min(fits, key=lambda found: found[1])
        if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
            raise UniprefError("the fit left finite numbers; take a lower lr, or a larger ridge")
        return net, {**told, "ridge": ridge, "loss": loss, **said}

    def rows(self, data: Data) -> np.ndarray:
        """Numbers of the comparisons whose labels are learned from: all of them."""
        return np.arange(len(data))

    def _whole(self, problem: Problem, data: Data, n: int) -> bool:
        if self.optimizer != "auto":
            return self.optimizer == "lbfgs"
        return problem.convex and 2 * n * data.table.width <= _WHOLE

    def _chosen(self, problem: Problem, data: Data) -> tuple[float, list[dict[str, float]], int]:
        """The ridge with the least log loss on left-out comparisons, the table of all, and how many were looked at."""
        looked = self.rows(data)
        many = len(looked) > _LOOKED_AT
        if many:
            looked = np.sort(np.random.default_rng(self.seed).choice(looked, _LOOKED_AT, replace=False))
        fold = folds_of(data.table.group[looked], _FOLDS, self.seed)
        whole = self._whole(problem, data, len(looked))
        # a costly fit is judged on one fifth, at every second ridge
        parts, ridges = range(1) if many or not whole else range(_FOLDS), RIDGES if whole else RIDGES[::2]
        parts = [k for k in parts if (fold == k).any() and (fold != k).any()]
        if not parts:
            return RIDGES[len(RIDGES) // 2], [], len(looked)
        counts = [int((fold == k).sum()) for k in parts]
        nets: list[Net | None] = [None] * len(parts)
        table: list[dict[str, float]] = []
        for ridge in ridges:  # from the strongest: a fit begins near its solution
            losses = []
            for i, k in enumerate(parts):
                inside, outside = looked[fold != k], looked[fold == k]
                start = nets[i] if whole else None
                nets[i], _, _ = self._run(problem, data, inside, ridge, self.seed, start=start, rough=True)
                losses.append(problem.judged(nets[i], data, outside))
            table.append({"ridge": ridge, "log_loss": float(np.average(losses, weights=counts))})
            lately = [row["log_loss"] for row in table[-3:]]
            if len(lately) == 3 and lately[0] < lately[1] < lately[2]:
                break  # weaker ones fit the noise, and take longest
        return min(table, key=lambda row: row["log_loss"])["ridge"], table, len(looked)

    def _run(
        self,
        problem: Problem,
        data: Data,
        index: np.ndarray,
        ridge: float,
        seed: int,
        *,
        start: Net | None = None,
        rough: bool = False,
    ) -> tuple[Net, float, dict[str, Any]]:
        net = problem.build(seed) if start is None else deepcopy(start)
        if self._whole(problem, data, len(index)):
            return self._lbfgs(problem, net, data.rows(index), ridge, rough)
        if problem.convex and self.optimizer == "auto" and sum(p.numel() for p in net.parameters()) <= MOST:
            return streamed(
                problem,
                net,
                data,
                index,
                ridge,
                seed=seed,
                sampled=lambda net, rows: self._lbfgs(problem, net, rows, ridge, rough=True)[0],
            )
        return self._adam(problem, net, data, index, ridge, seed)

    def _lbfgs(
        self, problem: Problem, net: Net, rows: Rows, ridge: float, rough: bool
    ) -> tuple[Net, float, dict[str, Any]]:
        optimizer = torch.optim.LBFGS(
            [parameter for parameter in net.parameters() if parameter.requires_grad],
            max_iter=max(self.epochs, 200),
            tolerance_grad=1e-5 if rough else 1e-9,
            tolerance_change=1e-7 if rough else 1e-13,
            history_size=20,
            line_search_fn="strong_wolfe",
        )
        steps = 0

        def closure() -> Tensor:
            nonlocal steps
            steps += 1
            optimizer.zero_grad()
            loss = problem.loss(net, rows, ridge)
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            return net, float(problem.loss(net, rows, ridge)), {"steps": steps}

    def _adam(
        self, problem: Problem, net: Net, data: Data, index: np.ndarray, ridge: float, seed: int
    ) -> tuple[Net, float, dict[str, Any]]:
        generator = np.random.default_rng(seed)
        inside, outside = self._held_back(data, index, seed)
        trainer = self.trainer(problem, net, ridge, data)
        per_pass = math.ceil(len(inside) / self.batch_size)
        passes = math.ceil(_STEPS / per_pass)
        best, best_state, waited, drops, steps = math.inf, None, 0, 0, 0
        for _ in range(self.epochs):
            for batch in (each for _ in range(passes) for each in self.batches(data, inside, generator)):
                trainer(data.rows(np.sort(batch)), steps, self.epochs * passes * per_pass)
                steps += 1
            if not len(outside):
                continue
            held = problem.judged(net, data, outside)
            if held < best - 1e-6:
                best, best_state, waited = held, deepcopy(net.state_dict()), 0
                continue
            waited += 1
            if waited >= self.patience:
                if best_state is not None:
                    net.load_state_dict(best_state)
                drops, waited = drops + 1, 0
                if drops > _DROPS:
                    break
                trainer.slower(1 / 3)
        if best_state is not None:
            net.load_state_dict(best_state)
        with torch.no_grad():
            parts = self._parts(data, index)
            losses = [float(problem.loss(net, rows, ridge)) for rows in parts]
        loss = float(np.average(losses, weights=[len(rows) for rows in parts]))
        return net, loss, {"steps": steps, **trainer.told()}

    def batches(self, data: Data, inside: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """The comparisons `inside`, in batches, each once and in a new order."""
        order = generator.permutation(inside)
        for begin in range(0, len(order), self.batch_size):
            yield order[begin : begin + self.batch_size]

    def _parts(self, data: Data, index: np.ndarray) -> list[Rows]:
        step = max(self.batch_size, 4096)
        return [data.rows(index[begin : begin + step]) for begin in range(0, min(len(index), 10 * step), step)]

    def _held_back(self, data: Data, index: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """What is trained on and what early stopping looks at: a tenth of the groups, at most _LOOKED_AT rows."""
        if not self.patience or len(index) < 50:
            return index, index[:0]
        fold = folds_of(data.table.group[index], 10, seed)
        share = max(1, round(10 * min(1.0, _LOOKED_AT / (0.1 * len(index)))))
        outside = index[fold == 0][:: max(1, 10 // share)]
        if not len(outside) or len(outside) == len(index):
            return index, index[:0]
        return index[fold != 0], outside

    def trainer(self, problem: Problem, net: Net, ridge: float, data: Data) -> "Trainer":
        """What takes the steps; another fitting may return one that weighs parts of a batch in its own way."""
        return Trainer(self, problem, net, ridge)


class Trainer:
    """One Adam step per call."""

    def __init__(self, fitting: descent, problem: Problem, net: Net, ridge: float) -> None:
        self.problem, self.net, self.ridge = problem, net, ridge
        self.parameters: Sequence[Tensor] = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=fitting.lr)

    def __call__(self, rows: Rows, step: int, total: int) -> None:
        """One step on a batch."""
        self.optimizer.zero_grad()
        self.backward(rows, Clock(step, total))
        self.optimizer.step()

    def backward(self, rows: Rows, clock: Clock) -> None:
        """Leave the gradient of the batch's loss on the parameters."""
        self.problem.loss(self.net, rows, self.ridge, clock).backward()

    def told(self) -> dict[str, Any]:
        """What is said of the fit besides its loss."""
        return {}

    def slower(self, factor: float) -> None:
        """Take smaller steps from here on."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
