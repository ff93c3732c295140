"""A fit that makes labelled and unlabelled comparisons look alike to a critic.

Shapes: n responses, W numbers of an embedding, the layer before a head's last.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.rewards.models.balance import last_layer
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, Trainer, descent
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Rows

__all__ = ["adversarial", "gap", "gradient_penalty"]


def gap(critic: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    """0-d: mean of the critic over the source's embeddings, less that over the target's."""
    return critic(source).mean() - critic(target).mean()


def gradient_penalty(critic: nn.Module, source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """0-d: mean of (length of the critic's slope - 1)^2 at points between a source's and a target's embedding."""
    n = min(len(source), len(target))
    share = torch.rand(n, 1, generator=generator, dtype=source.dtype)
    between = (share * source[:n] + (1 - share) * target[:n]).detach().requires_grad_()
    slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
    return ((slope.norm(dim=1) - 1) ** 2).mean()


@dataclass(frozen=True, repr=False)
class adversarial(descent):
    """Adam on the source's loss and on how well a critic tells the source's embeddings from the target's.

    Labels of the target are not read, in no step and in no choice. All epochs are trained: what is left out of the
    source would stop the fit while it still leans on what the target lacks.

    Attributes:
        target: the domain to be aligned with; None: those in which no comparison is labelled (a tie, or of weight 0).
        strength: factor of the critic's gap in the loss of the reward.
        critic: widths of its layers. critic_lr, critic_decay, critic_steps: AdamW's, and steps of it per step of the
            reward. penalty: factor of the pull of its slope to 1.
    """

    target: str | None = None
    strength: float = 0.1
    critic: tuple[int, ...] = (64, 32)
    critic_lr: float = 1e-3
    critic_decay: float = 1e-3
    critic_steps: int = 3
    penalty: float = 1.0

    unlabelled = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0 or self.penalty < 0:
            raise ConfigError(f"strength={self.strength!r}, penalty={self.penalty!r}: both are at least 0")
        if self.critic_steps < 1 or any(width < 1 for width in self.critic):
            raise ConfigError(f"critic={list(self.critic)}, critic_steps={self.critic_steps!r}: all are at least 1")

    def aimed(self, data: Data) -> np.ndarray:
        """(N,) which comparisons are the target's.

        Raises:
            DataError: no comparison is of the domain that was named.
        """
        table = data.table
        if self.target is not None:
            if self.target not in table.domains:
                raise DataError(
                    f"no comparison is of the target domain {self.target!r}{nearest(self.target, table.domains)}"
                )
            return table.domain == self.target
        labelled = set(table.domain[(table.p != 0.5) & (table.weight > 0)])
        return np.array([name not in labelled for name in table.domain], dtype=bool)

    def rows(self, data: Data) -> np.ndarray:
        """Numbers of the source's comparisons.

        Raises:
            DataError: none of them says which side is better.
        """
        source = np.flatnonzero(~self.aimed(data))
        table = data.table
        if not ((table.p[source] != 0.5) & (table.weight[source] > 0)).any():
            raise DataError(f"outside the target domain {self.target!r} no comparison says which side is better")
        return source

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """As `descent.fit`; besides, "gap" between the domains at the end, in the critic's units."""
        net, told = super().fit(problem, data)
        if not self.aimed(data).any():
            note = "every domain has labels, so there was nothing to align with; name the domain as `target`"
            told["notes"] = [note]
        return net, told

    def trainer(self, problem: Problem, net: Net, ridge: float, data: Data) -> Trainer:
        target = np.flatnonzero(self.aimed(data))
        if not len(target) or not self.strength:
            return super().trainer(problem, net, ridge, data)
        return _Adversarial(self, problem, net, ridge, data, target)


class _Adversarial(Trainer):
    def __init__(
        self, fitting: adversarial, problem: Problem, net: Net, ridge: float, data: Data, target: np.ndarray
    ) -> None:
        super().__init__(fitting, problem, net, ridge)
        self.fitting, self.data, self.target = fitting, data, target
        self.draw = np.random.default_rng([fitting.seed, 1])
        self.generator = torch.Generator().manual_seed(fitting.seed)
        width, layers = last_layer(net.head).in_features, []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fitting.seed)
            for size in fitting.critic:
                layers += [nn.Linear(width, size), nn.GELU()]
                width = size
            self.critic = nn.Sequential(*layers, nn.Linear(width, 1)).to(data.dtype)
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=fitting.critic_lr, weight_decay=fitting.critic_decay
        )
        self.gap = 0.0

    def backward(self, rows: Rows, clock: Clock) -> None:
        fitting = self.fitting
        other = self.data.rows(np.sort(self.draw.choice(self.target, len(rows), replace=len(self.target) < len(rows))))
        embed = self.net.head[:-1]
        # both sides of every comparison: the chosen ones alone would also lose what tells them from the rejected
        source, target = (embed(torch.cat([each.first, each.second])) for each in (rows, other))
        still = source.detach(), target.detach()
        order = torch.randperm(len(still[0]), generator=self.generator)  # else first would meet first
        for _ in range(fitting.critic_steps):
            self.critic_optimizer.zero_grad()
            penalty = gradient_penalty(self.critic, still[0][order], still[1], self.generator)
            (fitting.penalty * penalty - gap(self.critic, *still)).backward()
            self.critic_optimizer.step()
        apart = gap(self.critic, source, target)
        self.gap = apart.item()
        (self.problem.loss(self.net, rows, self.ridge, clock) + fitting.strength * apart).backward()

    def told(self) -> dict[str, Any]:
        return {"gap": self.gap}
