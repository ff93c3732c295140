"""The round of a loop that trains nothing: the mean of the models before it, with the weights that fit best."""

from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError
from unipref.engine import Policy, average
from unipref.objectives import Objective
from unipref.training import Example, cache_references
from unipref.training.examples import data_batch

__all__ = ["best_mixture", "merge"]

Mixture = tuple[float, ...]


def best_mixture(
    loss: Callable[[Mixture], float], n: int, *, finest: float = 1 / 32
) -> tuple[Mixture, list[tuple[Mixture, float]]]:
    """Weights of `n` parts, at least 0 and adding up to 1, at which no move of `finest` from one to another is better.

    Starts from equal weights and moves a half, a quarter, ... from part to part while that makes `loss` smaller; the
    minimum where the loss is convex, else a local one.

    Returns:
        The weights, and every (weights, loss) that was tried, in order.
    """
    found: Mixture = (1.0 / n,) * n
    tried = [(found, loss(found))]
    best = tried[0][1]
    step = 0.5
    while step >= finest:
        better = False
        for giver, taker in permutations(range(n), 2):
            share = min(step, found[giver])
            if share < finest / 2:
                continue
            trial = list(found)
            trial[giver], trial[taker] = trial[giver] - share, trial[taker] + share
            tried.append((tuple(trial), loss(tuple(trial))))
            if tried[-1][1] < best:
                (found, best), better = tried[-1], True
        if not better:
            step /= 2
    return found, tried


def merge(
    policy: Policy,
    objective: Objective,
    examples: Sequence[Example],
    folders: Sequence[Path],
    *,
    precision: str,
    max_tokens: int,
) -> tuple[Mixture, list[dict[str, Any]]]:
    """Give `policy` the mean of the models in `folders` with the least loss on `examples`, whose references are known.

    Returns:
        The weights, and a row {step, loss, weights} for every mean that was tried.

    Raises:
        ConfigError: there is no model to merge, or the objective reads more than sums of log-probabilities.
    """
    if not folders:
        raise ConfigError("there is no round before this one whose model could be merged; train the whole loop at once")
    if objective.heads or objective.statistics or objective.states or objective.computed:
        raise ConfigError("the weights of models that are merged are fitted by a loss of log-probabilities alone")

    def loss(weights: Mixture) -> float:
        average(policy.model, folders, weights)
        cache_references(examples, policy, name="logp", precision=precision, max_tokens=max_tokens)
        return objective.loss(data_batch(examples, columns=objective.needs)).total.item()

    weights, tried = best_mixture(loss, len(folders))
    average(policy.model, folders, weights)
    return weights, [{"step": i, "loss": value, "weights": list(w)} for i, (w, value) in enumerate(tried)]
