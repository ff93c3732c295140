"""MiCRo: a mixture of Bradley-Terry heads, routed by the prompt and weighed by a user's choices."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError, nearest
from unipref.objectives import bt as bradley_terry
from unipref.objectives import logistic
from unipref.rewards.models import (
    Adaptation,
    AddOn,
    Encoder,
    Output,
    PreferenceModel,
    Rows,
    Sizes,
    descent,
    linear_head,
    newcomers,
    preference_model,
    simplex,
)
from unipref.rewards.models.mixtures import likelihoods, log_shares
from unipref.rewards.models.net import Net
from unipref.rewards.models.routers import prompt_router
from unipref.rewards.table import PreferenceTable

MIXES = {"probability": likelihoods, "reward": simplex}


@dataclass(frozen=True, repr=False)
class routed_users(Encoder):
    """Shares of K heads: a user's own where the model was adapted to that user, otherwise the prompt's."""

    hidden: tuple[int, ...] = ()

    reads_prompts = True
    reads_users = True
    learns_users = False
    fallback = "the shares that the router gives the prompt"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, K)."""
        return _Routed(prompt_router(self.hidden).build(sizes, outputs), sizes.users, outputs)


class _Routed(nn.Module):
    def __init__(self, router: nn.Module, users: int, outputs: int) -> None:
        super().__init__()
        self.router = router
        self.register_buffer("weights", torch.full((users, outputs), 1.0 / outputs))

    def forward(self, rows: Rows) -> Tensor:
        shares = self.router(rows)
        if not len(self.weights):
            return shares
        return torch.where((rows.user >= 0)[:, None], self.weights[rows.user], shares)

    def extended(self, weights: Tensor) -> "_Routed":
        """The same encoder with newcomers' (n, K) shares behind the others."""
        longer = deepcopy(self)
        longer.weights = torch.cat([self.weights, weights.to(self.weights.dtype)])
        return longer


@dataclass(frozen=True, repr=False)
class spread_out(AddOn):
    """factor * sum_k w_k log w_k, the negative entropy of the shares: it keeps the router from choosing one head."""

    factor: float = 0.1

    def __call__(self, net: nn.Module, rows: Rows, output: Output, own: nn.Module | None) -> Tensor:
        """0-d, a mean over comparisons by weight."""
        shares = net.encoder(rows)
        entropy = -torch.where(shares > 0, shares * log_shares(shares).clamp(min=-1e3), 0.0).sum(dim=1)
        return -self.factor * (rows.weight * entropy).sum() / rows.weight.sum()


@dataclass(frozen=True, repr=False)
class turned_apart(AddOn):
    """factor * the mean squared cosine between two heads' weights."""

    factor: float = 0.0

    def __call__(self, net: nn.Module, rows: Rows, output: Output, own: nn.Module | None) -> Tensor:
        """0-d"""
        heads = nn.functional.normalize(net.head.weight, dim=1)
        k = len(heads)
        gram = heads @ heads.T
        return self.factor * ((gram**2).sum() - (gram.diagonal() ** 2).sum()) / max(k * (k - 1), 1)


@dataclass(frozen=True, repr=False)
class hedge(Adaptation):
    """A newcomer's shares are w_k ~ exp(rate * sum of log sigmoid(difference of head k)) over their choices.

    These are the weights of the exponential-weights algorithm after all choices, each of which may come at any time;
    their order does not count.
    """

    rate: float = 1.0

    def adapt(self, model: PreferenceModel, table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with newcomers' shares, and all users and domains by number.

        Raises:
            DataError: the table names nobody that the model does not know already.
        """
        new, own, grown = newcomers(model, table)
        data, old = grown._data(own), len(model.users_)
        totals = torch.zeros(len(new), model.net_.head(data.rows(np.arange(0)).first).shape[1], dtype=data.dtype)
        with torch.no_grad():
            for rows in data.batches(16_384):
                delta = model.net_.head(rows.first) - model.net_.head(rows.second)
                losses = logistic().between(delta, rows.p[:, None], 0.0, (1.0, 1.0))
                totals.index_add_(0, rows.user - old, rows.weight[:, None] * losses)
        net = deepcopy(model.net_)
        net.encoder = net.encoder.extended(torch.softmax(-self.rate * totals, dim=1))
        return net, grown.users_, model.domains_


@preference_model(
    "micro",
    source="arXiv:2505.24846, as in github.com/MaxwellJryao/MiCRo",
    status="reconstructed",
    formula="P(a > b) = sum_k w_k(x) sigmoid(r_k(a) - r_k(b)), w = softmax(G x + g); of a user w_k ~ exp(sum log P_k)",
    needs=("chosen", "rejected"),
    citation=Citation(
        "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference Learning",
        ("Jingyan Shen", "Jiarui Yao", "Rui Yang", "and others"),
        2025,
        "2505.24846",
    ),
)
def micro(
    *,
    rank: int = 5,
    mix: str = "probability",
    entropy: float = 0.1,
    apart: float = 0.0,
    router: tuple[int, ...] = (),
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.03,
    epochs: int = 100,
    restarts: int = 1,
    rate: float = 1.0,
    seed: int = 0,
) -> PreferenceModel:
    """Several hidden tastes, mixed as the prompt says; a user's own choices then say which of them are that user's.

    The first stage needs nobody's name: heads and router are fitted to all comparisons, and users of the training data
    are not known afterwards. Whoever is to have shares of their own, trained on or not, is given to `adapt` with some
    choices; these shares take the place of the router's.

    A mixture of probabilities is no difference of rewards. A response alone gets the mean of the heads' rewards by
    share; the authors' evaluation takes log sigmoid of a single reward, which changes where all rewards are moved.

    Reconstructed: which update turns a user's choices into shares. Ours is that of exponential weights, from even
    shares, with the likelihood of each head; the authors' rule could not be read.

    Args:
        rank: heads. With 1 it is Bradley-Terry's model. The paper has 10.
        mix: "probability": the heads' probabilities are mixed; "reward": their rewards.
        entropy: factor by which even shares of the router are asked for. The paper has 0.5, which costs accuracy where
            the prompt decides.
        apart: factor of the mean squared cosine between heads.
        router: widths of hidden layers of the router; none: linear. Without vectors of prompts shares are the same
            for all comparisons.
        ridge: pull of the heads' weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features and prompts: "each" by its own spread, "all" by one, "none".
        lr, epochs, restarts, seed: of the fit.
        rate: of the exponential weights; 0 leaves newcomers at even shares.
    """
    if mix not in MIXES:
        raise ConfigError(f"micro(mix={mix!r}){nearest(str(mix), MIXES)}")
    if rank < 1 or min(entropy, apart, rate) < 0:
        raise ConfigError(
            f"micro(rank={rank}, entropy={entropy}, apart={apart}, rate={rate}): the first is at least 1, the others 0"
        )
    addons = (spread_out(entropy),) if entropy and rank > 1 else ()
    return PreferenceModel(
        linear_head(rank, spread=0.1),
        bradley_terry(),
        encoder=routed_users(tuple(router)),
        mixing=MIXES[mix](),
        addons=addons + ((turned_apart(apart),) if apart and rank > 1 else ()),
        fitting=descent(ridge=ridge, lr=lr, epochs=epochs, restarts=restarts, seed=seed),
        adaptation=hedge(rate),
        scale=scale,
    )
