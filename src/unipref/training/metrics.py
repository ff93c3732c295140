"""Metrics as sums and weights, so that no number depends on a batch size, on micro-batches or on ranks."""

from collections.abc import Callable, Mapping

import torch

from unipref.core.batch import Batch
from unipref.objectives import Objective

__all__ = ["MetricSums", "batch_metrics"]


def batch_metrics(objective: Objective, batch: Batch) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(sum, weight) of each logged metric over `batch`, as 0-d float64 tensors on the batch's device.

    rewards/chosen and rewards/rejected are implicit rewards (nats); rewards/accuracies counts a tie as one half and
    rewards/ties counts ties; logps are sums per response. Sides of a pair that has preference below one half
    are exchanged; pairs with exactly one half count for everything but the accuracy. An objective that reads no
    log-probabilities has no logps.
    """
    reward = objective.implicit_reward(batch).double()
    logp = batch.item("logp").detach().double()
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def put(name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        found[name] = ((values * weights).sum(), weights.sum())

    if "chosen" in batch.pairs:
        chosen, rejected = batch.pairs["chosen"], batch.pairs["rejected"]
        preference = batch.pairs["preference"]
        exchanged = preference < 0.5
        chosen, rejected = torch.where(exchanged, rejected, chosen), torch.where(exchanged, chosen, rejected)
        weight = batch.pairs["weight"].double()
        margin = reward[chosen] - reward[rejected]
        put("rewards/chosen", reward[chosen], weight)
        put("rewards/rejected", reward[rejected], weight)
        put("rewards/margins", margin, weight)
        decided = weight * (preference != 0.5)
        put("rewards/accuracies", (margin > 0).double() + 0.5 * (margin == 0), decided)
        put("rewards/ties", (margin == 0).double(), decided)
        put("logps/chosen", logp[chosen], weight)
        put("logps/rejected", logp[rejected], weight)
    else:
        weight = batch.item("weight").double()
        label = batch.item("label")
        for name, side in (("chosen", label == 1), ("rejected", label == 0)):
            put(f"rewards/{name}", reward, weight * side)
            put(f"logps/{name}", logp, weight * side)
    length = batch.item("len").double()
    put("logps/per_token", logp, batch.item("weight").double())
    found["logps/per_token"] = (found["logps/per_token"][0], (length * batch.item("weight").double()).sum())
    return found if objective.reads_logp else {n: pair for n, pair in found.items() if not n.startswith("logps/")}


class MetricSums:
    """Running sums of metrics; values stay on the device until `reduce`."""

    def __init__(self) -> None:
        self._ratios: dict[str, torch.Tensor] = {}
        self._totals: dict[str, torch.Tensor] = {}
        self._n_steps = 0

    def add(self, metrics: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Add (sum, weight) pairs."""
        for name, pair in metrics.items():
            value = torch.stack(pair)
            self._ratios[name] = self._ratios[name] + value if name in self._ratios else value

    def add_value(self, name: str, value: torch.Tensor | float, *, weight: float) -> None:
        """Add one value that stands for `weight` samples; NaN values do not count."""
        value = torch.as_tensor(value, dtype=torch.float64)
        if torch.isfinite(value):
            self.add({name: (value * weight, torch.tensor(weight, dtype=torch.float64, device=value.device))})

    def add_total(self, name: str, value: torch.Tensor) -> None:
        """Add a share of a number that is summed over forwards and ranks, and averaged over `mark_step` steps."""
        self._totals[name] = self._totals.get(name, 0.0) + value.double()

    def mark_step(self) -> None:
        """One optimiser step is complete."""
        self._n_steps += 1

    def reduce(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """The metrics as numbers; NaN where nothing counted.

        Args:
            gather: every rank's copy of one small dict, in rank order; ranks may hold different names.
        """
        mine = {
            "ratios": {name: value.tolist() for name, value in self._ratios.items()},
            "totals": {name: float(value) for name, value in self._totals.items()},
        }
        ranks = gather(mine)
        found = {}
        for name in sorted({name for rank in ranks for name in rank["ratios"]}):
            value, weight = (sum(rank["ratios"].get(name, (0.0, 0.0))[i] for rank in ranks) for i in (0, 1))
            found[name] = value / weight if weight > 0 else float("nan")
        for name in sorted({name for rank in ranks for name in rank["totals"]}):
            found[name] = sum(rank["totals"].get(name, 0.0) for rank in ranks) / max(self._n_steps, 1)
        return found
