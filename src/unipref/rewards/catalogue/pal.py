"""PAL: preferences as distances to a user's ideal point."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError, nearest
from unipref.objectives import head as column_of_head
from unipref.objectives import hinge, logistic, pairwise
from unipref.rewards.models import (
    Head,
    Mixing,
    Output,
    PreferenceModel,
    Rows,
    Sizes,
    descent,
    fit_codes,
    preference_model,
    user_table,
)
from unipref.rewards.models.users import Table

FORMS = ("distance", "angle")
LOSSES = {"hinge": hinge, "logistic": logistic}
_SHARPEST = 100.0  # of the angle's factor


@dataclass(frozen=True, repr=False)
class projected(Head):
    """Features as they are, or through a linear map or small perceptron to `width` numbers.

    Without a width K is the number of features.
    """

    size: int | None = None
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.size is None and self.hidden) or any(width < 1 for width in (*self.hidden, self.size or 1)):
            raise ConfigError(f"pal(width={self.size}, hidden={list(self.hidden)}): layers end in a width, at least 1")

    def width(self, sizes: Sizes) -> int:
        """K"""
        return sizes.features if self.size is None else self.size

    def build(self, sizes: Sizes) -> nn.Module:
        """(n, D) to (n, K)"""
        if self.size is None:
            return nn.Identity()
        layers: list[nn.Module] = []
        width = sizes.features
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.GELU()]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, self.size))


@dataclass(frozen=True, repr=False)
class shares_beside_prompt(user_table):
    """A user's shares of the prototypes, and behind them the prompt's vector where `prompts` says so."""

    of: int = 2
    prompts: bool = False

    @property
    def reads_prompts(self) -> bool:  # type: ignore[override]
        return self.prompts

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, prototypes), or (n, prototypes + E)."""
        return _Beside(sizes.users, self.of, self.spread, self.prompts)


class _Beside(Table):
    def __init__(self, users: int, outputs: int, spread: float, prompts: bool) -> None:
        super().__init__(users, outputs, spread)
        self.prompts = prompts

    def forward(self, rows: Rows) -> Tensor:
        shares = self.of(rows.user)
        return torch.cat([shares, rows.context], dim=1) if self.prompts and rows.context is not None else shares


@dataclass(frozen=True, repr=False)
class ideal_point(Mixing):
    """r(y) = -|y - sum_k w_k p_k|: the nearer to a user's ideal point, the better. Squared distances order alike."""

    rank: int = 2
    spread: float = 0.1

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Ideal(self.rank, outputs, self.spread)


class _Ideal(nn.Module):
    def __init__(self, rank: int, width: int, spread: float) -> None:
        super().__init__()
        self.points = nn.Parameter(spread * torch.randn(rank, width))

    def forward(self, first: Tensor, second: Tensor, code: Tensor, rows: Rows) -> Output:
        rewards = torch.stack([self.alone(first, code), self.alone(second, code)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor) -> Tensor:
        return -torch.linalg.vector_norm(values - code @ self.points, dim=1)


@dataclass(frozen=True, repr=False)
class angle(Mixing):
    """r(y) = e^t cos(y, sum_k w_k g_k(prompt)); without prompts each g_k is one vector."""

    rank: int = 2
    spread: float = 0.1
    prompts: bool = False

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Angle(self.rank, outputs, sizes.contexts if self.prompts else 0, self.spread)


class _Angle(nn.Module):
    def __init__(self, rank: int, width: int, prompt: int, spread: float) -> None:
        super().__init__()
        self.points = nn.Parameter(spread * torch.randn(rank, width))
        self.turn = nn.Parameter(torch.zeros(rank, width, prompt))  # by the prompt; at first it changes nothing
        self.log_factor_bias = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # a ridge does not pull what is a bias

    def forward(self, first: Tensor, second: Tensor, code: Tensor, rows: Rows) -> Output:
        rewards = torch.stack([self.alone(first, code), self.alone(second, code)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor) -> Tensor:
        shares, prompt = code[:, : len(self.points)], code[:, len(self.points) :]
        of_user = shares @ self.points
        if prompt.shape[1]:
            of_user = of_user + torch.einsum("nk,kwe,ne->nw", shares, self.turn, prompt)
        factor = self.log_factor_bias.exp().clamp(max=_SHARPEST)
        return factor * torch.cosine_similarity(values, of_user, dim=1)


@preference_model(
    "pal",
    source="arXiv:2406.08469, as in github.com/RamyaLab/pluralistic-alignment",
    formula="P_u(a > b) = sigmoid(|f(b) - i_u| - |f(a) - i_u|), i_u = sum_k w_uk p_k, w_u = softmax(a_u)",
    needs=("chosen", "rejected", "user"),
    citation=Citation(
        "PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences",
        ("Daiwei Chen", "Yi Chen", "Aniket Rege", "Ramya Korlakai Vinayak"),
        2024,
        "2406.08469",
    ),
)
def pal(
    *,
    form: str = "distance",
    rank: int = 2,
    width: int | None = None,
    hidden: tuple[int, ...] = (),
    loss: str | None = None,
    prompts: bool = False,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.03,
    epochs: int = 100,
    restarts: int = 1,
    adapt_lr: float = 0.1,
    adapt_steps: int = 500,
    adapt_pull: float = 0.0,
    seed: int = 0,
) -> PreferenceModel:
    """Every user has an ideal point between a few prototypes, and prefers what is nearer to it.

    A newcomer's point needs one number less than there are prototypes. With the hinge loss, the paper's for distances,
    the difference of distances says who wins and is no logit: take the logistic loss where probabilities matter.
    Prototypes stand in the space of the projected features (the configuration "Pw" of the authors' code). Distances
    name no scale of prototypes: their order counts, and who is near which. As a prototype moves away to infinity, its
    users' rewards become a weighted sum of the features, as Bradley-Terry's is.

    Args:
        form: "distance" to the ideal point, or "angle": the cosine with a user's vector, times a learned factor.
        rank: prototypes. With 1 all users are alike.
        width: numbers per response after a projection that is learned; None: the features themselves.
        hidden: widths of layers before that.
        loss: "hinge" or "logistic"; None: the paper's, the first for distances and the second for angles.
        prompts: with form "angle": prototypes turn with the prompt's vector, which the table must have.
        ridge: pull of prototypes and projection to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, restarts, seed: of the fit.
        adapt_lr, adapt_steps: gradient steps for newcomers.
        adapt_pull: ridge that holds a newcomer's logits of shares near the mean user's, over their number of choices.
    """
    if form not in FORMS:
        raise ConfigError(f"pal(form={form!r}){nearest(str(form), FORMS)}")
    if loss is not None and loss not in LOSSES:
        raise ConfigError(f"pal(loss={loss!r}){nearest(str(loss), LOSSES)}")
    if rank < 1 or (prompts and form != "angle"):
        raise ConfigError(f"pal(rank={rank}, prompts={prompts}): rank is at least 1; prompts turn angles")
    named = loss or ("hinge" if form == "distance" else "logistic")
    return PreferenceModel(
        projected(width, tuple(hidden)),
        pairwise("pal", score=column_of_head("reward_head"), link=LOSSES[named]()),
        encoder=shares_beside_prompt(of=rank, prompts=prompts),
        mixing=ideal_point(rank) if form == "distance" else angle(rank, prompts=prompts),
        fitting=descent(ridge=ridge, lr=lr, epochs=epochs, restarts=restarts, seed=seed),
        adaptation=fit_codes(lr=adapt_lr, steps=adapt_steps, pull=adapt_pull),
        scale=scale,
        needs=("user", "context") if prompts else ("user",),
    )
