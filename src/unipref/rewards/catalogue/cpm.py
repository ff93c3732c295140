"""Compositional preference models: a weighted sum of features that can be read."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unipref.core.cards import get_method
from unipref.core.errors import ConfigError, nearest
from unipref.core.statistics import agreements
from unipref.features.linear_score import LinearScore
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import Fitting, PreferenceModel, descent, difference, linear_head, preference_model
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, folds_of
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Rows

__all__ = ["cpm", "linear_score_of"]

PENALTIES = ("l1", "l2")
STRENGTHS = tuple(np.logspace(-5, 5, 12).tolist())  # C of the authors' code
_STEPS = 20_000
_STILL, _ROUGH = 1e-11, 1e-5  # a step of the weights that is taken for none, at the end and while C is chosen


@dataclass(frozen=True, repr=False)
class cross_validated(Fitting):
    """penalty(w) + C * summed loss, C by the accuracy on left-out comparisons; of equal ones the least.

    Attributes:
        penalty: "l1", sum of |w|, with exact zeros; or "l2", half the sum of squares.
        strengths: values of C. n_folds: no conversation is parted between them.
    """

    penalty: str = "l2"
    strengths: tuple[float, ...] = STRENGTHS
    n_folds: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.penalty not in PENALTIES:
            raise ConfigError(f"penalty={self.penalty!r}{nearest(str(self.penalty), PENALTIES)}")
        if not self.strengths or not all(c > 0 for c in self.strengths):
            raise ConfigError(f"strengths are numbers above 0, got {list(self.strengths)}")
        if self.n_folds < 2:
            raise ConfigError(f"n_folds={self.n_folds!r}: at least 2")

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """The net at the chosen C, and {"strength", "strengths": [{"strength", "accuracy"}, ...], "loss"}."""
        everything = np.arange(len(data))
        table = []
        if len(self.strengths) > 1:
            fold = folds_of(data.table.group, self.n_folds, self.seed)
            right = {strength: np.full(len(data), np.nan) for strength in self.strengths}
            for k in range(self.n_folds):
                inside, outside = everything[fold != k], everything[fold == k]
                if not len(inside) or not len(outside):
                    continue
                net = problem.build(self.seed)
                held = data.rows(outside)
                for strength in sorted(self.strengths):  # from the most penalised: a fit begins near its solution
                    net = self._fitted(problem, net, data, inside, strength, rough=True)
                    with torch.no_grad():
                        z = net(held).logit.double().numpy()
                    right[strength][outside] = agreements(z, data.table.p[outside] - 0.5)
            counts, weight = data.table.p != 0.5, data.table.weight
            for strength in sorted(self.strengths):
                ok = counts & ~np.isnan(right[strength])
                accuracy = float(np.average(right[strength][ok], weights=weight[ok])) if weight[ok].any() else math.nan
                table.append({"strength": strength, "accuracy": accuracy})
        best = max(table, key=lambda row: row["accuracy"])["strength"] if table else self.strengths[0]
        net = self._fitted(problem, problem.build(self.seed), data, everything, best)
        with torch.no_grad():
            loss = float(problem.loss(net, data.rows(everything)))
        return net, {"strength": best, "strengths": table, "loss": loss}

    def _fitted(
        self, problem: Problem, start: Net, data: Data, index: np.ndarray, strength: float, *, rough: bool = False
    ) -> Net:
        pull = 1.0 / (strength * float(data.table.weight[index].sum()))  # the loss is a mean
        if self.penalty == "l2":
            return descent(optimizer="lbfgs")._run(problem, data, index, pull, self.seed, start=start, rough=rough)[0]
        return _sparse(problem, deepcopy(start), data.rows(index), pull, _ROUGH if rough else _STILL)


def _sparse(problem: Problem, net: Net, rows: Rows, pull: float, still: float) -> Net:
    """The minimiser of the loss + pull * |w|, by proximal gradient steps with momentum, which begins anew uphill."""
    share = (rows.weight / rows.weight.sum()).sqrt()[:, None]
    steepest = float(torch.linalg.matrix_norm(share * (rows.first - rows.second), 2)) ** 2 / 4
    if not steepest:
        return net
    weight = net.head.weight
    at, before, pace = weight.detach().clone(), weight.detach().clone(), 1.0

    def slope(point: Tensor) -> Tensor:
        with torch.no_grad():
            weight.copy_(point)
        return torch.autograd.grad(problem.loss(net, rows), weight)[0]

    for _ in range(_STEPS):
        moved = at - slope(at) / steepest
        after = torch.sign(moved) * (moved.abs() - pull / steepest).clamp(min=0)
        if ((at - after) * (after - before)).sum() > 0:
            pace = 1.0
        quicker = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        at = after + (pace - 1) / quicker * (after - before)
        step = float((after - before).abs().max())
        before, pace = after, quicker
        if step < still:
            break
    with torch.no_grad():
        weight.copy_(before)
    return net


def linear_score_of(model: PreferenceModel) -> LinearScore:
    """A fitted model's reward as a file that can be read, which the scorer `cpm` scores texts with.

    Raises:
        ConfigError: the reward is no weighted sum of named features.
    """
    plain = isinstance(model.head, linear_head) and model.head.outputs == 1 and isinstance(model.mixing, difference)
    if not plain or not model.columns_:
        raise ConfigError(f"the reward of {model.key or 'the model'} is no weighted sum of named features; cpm's is")
    weight = np.where(model.scaling_.constant, 0.0, model.net_.head.weight[0].double().numpy())
    columns = (tuple(values.tolist()) for values in (weight, model.scaling_.centre, model.scaling_.spread))
    about = {"model": model.key, "options": dict(model.options), "comparisons": model.told_["comparisons"]}
    return LinearScore(model.columns_, *columns, about=about)


@preference_model(
    "cpm",
    source="the authors' code for arXiv:2310.13011; its abstract alone was read of the paper",
    formula="P(a > b) = sigmoid(sum_j w_j (f_j(a) - f_j(b)) / sigma_j)",
    needs=("chosen", "rejected"),
    citation=get_method("cpm", "scorer").citation,
)
def cpm(
    *,
    penalty: str = "l2",
    strengths: Sequence[float] = STRENGTHS,
    n_folds: int = 8,
    seed: int = 0,
) -> PreferenceModel:
    """Logistic regression without intercept on the differences of two responses' named features, judged or counted.

    The features are centred and scaled by their spread over the training responses, both sides together, so that
    swapping a pair mirrors the prediction. Where judgements are missing, or the two halves of the authors' second
    estimator are wanted, `unipref.explain.compositional` fits the same model to a table of concepts.

    Args:
        penalty: "l2", or "l1" with exact zeros.
        strengths: values of C in penalty(w) + C * summed loss; the least that reaches the best accuracy is taken.
        n_folds: parts in which that is seen; the authors part pairs, here no conversation is parted.
        seed: of the parts.
    """
    return PreferenceModel(
        linear_head(),
        bradley_terry(),
        fitting=cross_validated(penalty, tuple(float(c) for c in strengths), n_folds, seed),
        needs=("columns",),
    )
