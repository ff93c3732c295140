"""The modules of a preference model put together, and what its loss sees of them."""

import torch
from torch import Tensor, nn

from unipref.core.batch import Batch, Clock
from unipref.rewards.models.parts import AddOn, Encoder, Head, Mixing, Output, Rows, Sizes

__all__ = ["Net", "batch_of"]


class Net(nn.Module):
    """head, encoder and mixing as one module: comparisons to logits.

    `own` holds, by number, what an add-on trains for itself.
    """

    def __init__(
        self, head: Head, encoder: Encoder | None, mixing: Mixing, addons: tuple[AddOn, ...], sizes: Sizes
    ) -> None:
        super().__init__()
        self.head = head.build(sizes)
        self.encoder = None if encoder is None else encoder.build(sizes, head.width(sizes))
        self.mixing = mixing.build(sizes, head.width(sizes))
        built = {str(k): module for k, addon in enumerate(addons) if (module := addon.build(sizes)) is not None}
        self.own = nn.ModuleDict(built)

    def forward(self, rows: Rows) -> Output:
        """What the model says of the comparisons."""
        code = None if self.encoder is None else self.encoder(rows)
        return self.mixing(self.head(rows.first), self.head(rows.second), code, rows)

    def penalised(self) -> list[nn.Parameter]:
        """Trained parameters that a ridge pulls to 0: the head's and the mixing's matrices, without biases."""
        inside = [*self.head.named_parameters(), *self.mixing.named_parameters()]
        return [value for name, value in inside if value.requires_grad and not name.endswith("bias")]


def batch_of(rows: Rows, output: Output, clock: Clock | None = None) -> Batch:
    """The columns that an objective reads: both sides' rewards, the preferred side as the chosen one.

    A comparison that is no difference of rewards enters as half its logit on either side, with opposite signs.
    """
    n = len(rows)
    rewards = output.rewards if output.rewards is not None else torch.stack([output.logit / 2, -output.logit / 2])
    first, second = torch.arange(n), torch.arange(n, 2 * n)
    wins = rows.p >= 0.5
    items: dict[str, Tensor] = {"reward_head": rewards.reshape(-1)}
    items |= {name: values.reshape(2 * n, *values.shape[2:]) for name, values in output.columns.items()}
    if rows.attributes is not None:
        items["attributes"] = torch.cat(rows.attributes)
    pairs = {
        "chosen": torch.where(wins, first, second),
        "rejected": torch.where(wins, second, first),
        "preference": torch.where(wins, rows.p, 1 - rows.p),
        "weight": rows.weight,
        "margin": rows.margin,
    }
    return Batch(items=items, pairs=pairs, clock=clock or Clock())
