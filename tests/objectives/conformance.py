"""TRL's losses beside ours, as data: `test_against_trl.py` measures every row, `docs/conformance.md` is made of them.

A row's `ours` is an expression over the names of `unipref.objectives`, so that what is shown is what is tested.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXACT = 1e-12  # float64 on both sides
SINGLE = 1e-5  # TRL computes in float32

CHOSEN_TOKENS = "nll(score=logp(), per='token')"
GOLD_TOKENS = "nll(of='gold', score=logp(), per='token')"


@dataclass(frozen=True)
class Row:
    """One loss of TRL.

    Attributes:
        trainer: TRL's trainer, by the first part of its name.
        config: what differs from BASE there.
        ours: the same loss, as an expression over `unipref.objectives`.
        dialect: what a user who moves from one to the other must know.
        within: largest absolute difference of the losses and of their gradients in any token's log-probability.
        pairs: 4, or 1 where the two agree on a single pair only (and `dialect` says why).
        equal: False where the two have one name and mean different things: then they differ by more than 0.01.
    """

    trainer: str
    config: Mapping[str, Any]
    ours: str
    dialect: str = ""
    within: float = EXACT
    pairs: int = 4
    equal: bool = True

    @property
    def name(self) -> str:
        """TRL's setting in its own words."""
        return ", ".join(f"{key}={value!r}" for key, value in self.config.items())


@dataclass(frozen=True)
class Missing:
    """A loss of TRL that is no composition of our parts, and why."""

    trainer: str
    config: Mapping[str, Any]
    reason: str
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", ", ".join(f"{key}={value!r}" for key, value in self.config.items()))


# What stands in a trainer where a row says nothing.
BASE: Mapping[str, Mapping[str, Any]] = {
    "DPO": {
        "loss_type": "sigmoid",
        "loss_weights": None,
        "beta": 0.1,
        "label_smoothing": 0.0,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "use_weighting": False,
        "discopop_tau": 0.05,
    },
    "KTO": {"loss_type": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    "CPO": {
        "loss_type": "sigmoid",
        "beta": 0.1,
        "label_smoothing": 0.0,
        "cpo_alpha": 1.0,
        "simpo_gamma": 0.5,
        "alpha": 0.0,
    },
    "ORPO": {"beta": 0.1},
    "TPO": {"loss_type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0, "tpo_alpha": 1.0, "tpo_l_gamma": 0.5},
}

_ONE_PAIR = "TRL averages the likelihood over the tokens of a micro-batch, we over responses: the same for one pair"
_MEAN_IPO = "TRL divides each log-ratio by its response's tokens, the paper's Eq. 17 as printed does not"
_NOISE = "`flip` is TRL's `label_smoothing`"
_TWICE = "TRL adds both sides of a pair, our points are averaged over responses: factor 2"

ROWS = (
    Row("DPO", {}, "dpo(beta=0.1)"),
    Row("DPO", {"beta": 0.7}, "dpo(beta=0.7)"),
    Row(
        "DPO",
        {"label_smoothing": 0.2},
        "dpo(beta=0.1)",
        "TRL's `sigmoid` leaves `label_smoothing` unread; ours is `cdpo`",
    ),
    Row("DPO", {"loss_type": "hinge"}, "rso(gamma=0.1)"),
    Row("DPO", {"loss_type": "ipo"}, "ipo(tau=0.1, norm='mean')", _MEAN_IPO),
    Row("DPO", {"loss_type": "robust", "label_smoothing": 0.2}, "dpo_robust(beta=0.1, flip=0.2)", _NOISE),
    Row(
        "DPO",
        {"loss_type": "exo_pair", "label_smoothing": 0.2},
        "exo(beta=0.1, target='labels', flip=0.2)",
        f"{_NOISE}, above 0 on both sides; TRL takes its logarithm in float32",
        within=SINGLE,
    ),
    Row("DPO", {"loss_type": "nca_pair"}, "nca(beta=0.1, target='labels')"),
    Row(
        "DPO",
        {"loss_type": "bco_pair"},
        "2.0 * pointwise(score=log_ratio(0.1), of='labelled', link=logistic())",
        f"{_TWICE}; `bco` also subtracts a running mean",
    ),
    Row(
        "DPO",
        {"loss_type": "sppo_hard"},
        "2.0 * sppo(beta=0.1)",
        f"{_TWICE}; the column `win_rate` is 1 on the chosen side and 0 on the other",
    ),
    Row(
        "DPO",
        {"loss_type": "apo_zero"},
        "2.0 * pointwise(score=log_ratio(0.1), of='labelled', link=saturating())",
        _TWICE,
    ),
    Row(
        "DPO",
        {"loss_type": "apo_down"},
        "pointwise(score=log_ratio(-0.1), of='preferred', link=saturating()) + pairwise(score=log_ratio(0.1), "
        "link=saturating())",
    ),
    Row("DPO", {"loss_type": "sft"}, CHOSEN_TOKENS, "a mean over the tokens of all chosen responses"),
    Row("DPO", {"loss_type": "sigmoid_norm"}, "ln_dpo(beta=0.1)"),
    Row(
        "DPO",
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
        "dpo_sft(beta=0.1, lam=0.3)",
        _ONE_PAIR,
        pairs=1,
    ),
    Row(
        "DPO",
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
        f"dpo(beta=0.1) + 0.3 * {CHOSEN_TOKENS}",
        "what `rpo_alpha` was",
    ),
    Row(
        "DPO",
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        "0.8 * dpo(beta=0.1) + 0.4 * pointwise(score=log_ratio(0.1), of='labelled', link=logistic()) + "
        f"1.0 * {CHOSEN_TOKENS}",
        "MPO's mixture",
    ),
    Row(
        "DPO",
        {"ld_alpha": 0.5},
        "pairwise(score=token_score(0.1, weights=token_column('mask')))",
        "the column `mask` is 1 up to the length of the pair's shorter response and `ld_alpha` behind it",
    ),
    Row("DPO", {"ld_alpha": 1.0}, "dpo(beta=0.1)"),
    Row(
        "KTO",
        {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5},
        "kto(beta=0.3, lambda_d=1.5, lambda_u=0.5)",
        "z0 is taken over the whole step, TRL's over each micro-batch",
    ),
    Row(
        "KTO",
        {"loss_type": "apo_zero_unpaired", "beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5},
        "pointwise(score=log_ratio(0.3), of='labelled', link=saturating(), weight=class_weights(1.5, 0.5))",
    ),
    Row("CPO", {}, "cpo(beta=0.1, alpha=1.0)", _ONE_PAIR, pairs=1),
    Row("CPO", {"cpo_alpha": 0.3, "beta": 0.5}, f"pairwise(score=logp(0.5)) + 0.3 * {CHOSEN_TOKENS}"),
    Row(
        "CPO",
        {"label_smoothing": 0.2},
        f"pairwise(score=logp(0.1), target=smoothed(0.2)) + 1.0 * {CHOSEN_TOKENS}",
        _NOISE,
    ),
    Row("CPO", {"loss_type": "hinge"}, f"pairwise(score=logp(0.1), link=hinge(at=1.0)) + 1.0 * {CHOSEN_TOKENS}"),
    Row(
        "CPO",
        {"loss_type": "ipo"},
        f"pairwise(score=mean_logp(), link=square(at=5.0)) + 1.0 * {CHOSEN_TOKENS}",
        "`at` is 1 / (2 beta); means over tokens",
    ),
    Row(
        "CPO",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0},
        "simpo(beta=2.0, gamma=1.0)",
        "TRL adds the likelihood unless `cpo_alpha` is 0",
    ),
    Row(
        "CPO",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0},
        f"simpo(beta=2.0, gamma=1.0) + 1.0 * {CHOSEN_TOKENS}",
        "CPO-SimPO",
    ),
    Row(
        "ORPO",
        {},
        "orpo(lam=0.1)",
        f"{_ONE_PAIR}; TRL's likelihood also counts the prompt, here a single token, which nothing predicts",
        within=SINGLE,
        pairs=1,
    ),
    Row(
        "ORPO",
        {"beta": 1.0},
        f"1.0 * {CHOSEN_TOKENS} + 1.0 * pairwise(score=log_odds())",
        "the same, prompt of a single token",
        within=SINGLE,
    ),
    Row("TPO", {}, "tpo_triple(beta=0.1, alpha=1.0)", "TRL's `reference` is our `gold`; a mean over the step's tokens"),
    Row("TPO", {"tpo_alpha": 0.0}, "pairwise(score=logp(0.1))"),
    Row("TPO", {"loss_type": "hinge"}, f"pairwise(score=logp(0.1), link=hinge(at=1.0)) + 1.0 * {GOLD_TOKENS}"),
    Row("TPO", {"loss_type": "ipo"}, f"pairwise(score=mean_logp(), link=square(at=5.0)) + 1.0 * {GOLD_TOKENS}"),
    Row(
        "TPO",
        {"loss_type": "tpo-l", "beta": 2.0, "tpo_l_gamma": 0.5},
        "tpo_l(beta=2.0, gamma=0.5, alpha=1.0)",
    ),
    Row("DPO", {"loss_type": "hinge"}, "slic(lam=0.0)", "TRL's `hinge` is RSO's, on log-ratios", equal=False),
    Row("DPO", {"loss_type": "ipo"}, "ipo(tau=0.1)", _MEAN_IPO, equal=False),
    Row(
        "DPO",
        {"label_smoothing": 0.2},
        "cdpo(beta=0.1, flip=0.2)",
        "TRL's `sigmoid` leaves `label_smoothing` unread",
        equal=False,
    ),
    Row(
        "CPO",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0, "label_smoothing": 0.2},
        "pairwise(score=mean_logp(2.0), offset=(margin(1.0),), target=smoothed(0.2))",
        "where the label is wrong, our margin is asked of the other side; TRL's stays with the chosen one",
        equal=False,
    ),
)

_SORTED = (
    "sorts the batch and compares ranks, not pairs: a row's loss hangs on all others and example weights mean nothing"
)
_TRANSFORM = "a transform of the score that no method of the catalogue has"

MISSING = (
    Missing("DPO", {"loss_type": "aot"}, _SORTED),
    Missing("DPO", {"loss_type": "aot_unpaired"}, _SORTED),
    Missing("DPO", {"loss_type": "discopop"}, "a link found by search, which no method of the catalogue has"),
    Missing("DPO", {"use_weighting": True}, "WPO's weight needs the sum of squared probabilities over the vocabulary"),
    Missing("DPO", {"f_divergence_type": "forward_kl"}, _TRANSFORM),
    Missing("DPO", {"f_divergence_type": "js_divergence"}, _TRANSFORM),
    Missing("DPO", {"f_divergence_type": "alpha_divergence"}, _TRANSFORM),
    Missing("CPO", {"loss_type": "simpo", "alpha": 0.25}, f"AlphaPO: {_TRANSFORM}"),
)
