"""Mixtures of probabilities: several heads each say how likely a preference is, and shares weigh what they say.

Shapes: n comparisons, K heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipref.rewards.models.parts import Mixing, Output, Rows, Sizes

__all__ = ["likelihoods", "log_shares", "mixed_logit"]


def mixed_logit(log_share: Tensor, delta: Tensor) -> Tensor:
    """(n,) logit of sum_k share_k sigmoid(delta_k), in log space; the negative of itself where delta is.

    Args:
        log_share: (n, K) logarithms of shares that add up to 1; -inf for a share of 0.
        delta: (n, K)
    """
    sigmoid = nn.functional.logsigmoid
    return torch.logsumexp(log_share + sigmoid(delta), dim=1) - torch.logsumexp(log_share + sigmoid(-delta), dim=1)


def log_shares(share: Tensor) -> Tensor:
    """Logarithms of shares, -inf for 0, where the gradient is 0 too."""
    there = share > 0
    return torch.where(there, torch.where(there, share, 1.0).log(), -torch.inf)


@dataclass(frozen=True, repr=False)
class likelihoods(Mixing):
    """P(a > b) = sum_k w_k sigmoid(r_k(a) - r_k(b)), the shares w from the encoder.

    Such a probability is no difference of two rewards. A single response has its expected reward, sum_k w_k r_k(y),
    which orders responses as the mixture does wherever one share is 1, and else may not.
    """

    convex = True  # where each comparison has one share that is 1; else nearly

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Likelihoods()


class _Likelihoods(nn.Module):
    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        return Output(mixed_logit(log_shares(code), first - second))

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return (code * values).sum(dim=1)
