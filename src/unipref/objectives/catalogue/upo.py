"""Unified preference optimization."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.compose import base_objective
from unipref.objectives.discrepancies import expectile, linear, linex
from unipref.objectives.offsets import difference
from unipref.objectives.schedules import gate
from unipref.objectives.scores import advantage, column, group_mean, logp, mean_logp, value_head
from unipref.objectives.targets import reach
from unipref.objectives.terms import Objective, Term, pointwise
from unipref.objectives.units import group, pair, point
from unipref.objectives.weights import exp_advantage

_SCORES = {"mean": mean_logp(), "sum": logp()}
_BASELINES = {"expectile": value_head(), "soft": value_head(), "group-mean": group_mean(), "none": None}


@method(
    "upo",
    source="arXiv:2405.17956 Eqs. 8-12 and snippet, in the wording of the ICLR 2025 submission",
    status="reconstructed",
    formula="base + gamma * mean(-e^(lam A) * logp / |y|) + c_V * expectile_tau(R - V), A = R - sg[V(x)]",
    needs=("label", "len", "ref_logp", "reward", "value"),
    coupling="statistic",
    citation=Citation(
        "Unified Preference Optimization: Language Model Alignment Beyond the Preference Frontier",
        ("Anirudhan Badrinath", "Prabhat Agarwal", "Jiajing Xu"),
        2024,
        "2405.17956",
    ),
    exceptions={
        "L2": "its auxiliary term raises likelihood, as the base's anchors do",
        "G1": "two terms are added to the base",
        "G4": "its auxiliary term raises likelihood",
    },
    limits=[Limit({"gamma": 0.0, "value_coefficient": 0.0}, "kto")],
    # DPO at the reference, R = (1, 0), V = 1/2: weights e^(+-1/2) at lam 1, so
    # ln 2 + 0.5 (e^0.5 * 1 + e^-0.5 * 2) / 2 + 0.1 * (0.5 * 0.25)
    golden=[
        (
            {"base": "dpo", "lam": 1.0, "warmup": 0.0},
            {
                "logp_chosen": -4.0,
                "logp_rejected": -6.0,
                "ref_logp_chosen": -4.0,
                "ref_logp_rejected": -6.0,
                "len_chosen": 4,
                "len_rejected": 3,
                "reward_chosen": 1.0,
                "reward_rejected": 0.0,
                "value_chosen": 0.5,
                "value_rejected": 0.5,
            },
            1.4210928,
        )
    ],
)
def upo(
    *,
    base: str | Term | Objective = "kto",
    base_options: Mapping[str, Any] | None = None,
    gamma: float = 0.5,
    lam: float = 5.0,
    norm: str = "mean",
    value: str = "expectile",
    tau: float = 0.5,
    value_coefficient: float = 0.1,
    warmup: float = 0.1,
    warmup_steps: int | None = None,
    base_margin: float = 0.0,
    weight_cap: float | None = None,
    positive_only: bool = False,
) -> Objective:
    """Any preference loss, plus imitation of every logged response by e^(lam * advantage) of the designer's reward.

    Weights are positive: a response can be imitated less, never pushed down, and part of any gain is the likelihood
    anchor itself. `upo(lam=0)` is that anchor alone, the control to train beside it. Responses without a reward enter
    the base only. gamma multiplies a mean log-probability: next to a summed base its pull shrinks with length, so read
    the gradient ratio in the log.

    Reconstructed: all was read in the paper's submission under its former name; the text of its third version could
    not be. tau and the position at which V is read are not given there and are chosen by us; the sign of the margin
    (`base_margin`) is printed reversed and is derived here.

    Args:
        base: the preference loss: a method's name, or an objective of one's own.
        base_options: options of a base given by name.
        gamma: coefficient of the auxiliary term.
        lam: inverse temperature of its weights.
        norm: "mean", the paper's, prefers short responses (its optimum is ref * e^(lam R) / |y|); "sum" does not.
        value: V(x): "expectile" regression (the paper's), "soft" value (1/lam) log E e^(lam R), whose mean weight is 1,
            the record's "group-mean" without a head, or "none" for V = 0. One of the last two beside a base that
            trains a value of its own, such as dro_v.
        tau: expectile; not in the paper. 1/2 is the mean.
        value_coefficient: c_V.
        warmup: share of the run's steps before the auxiliary term starts, while V is fitted. The paper waits 100
            iterations of some thousands; a share also opens in short runs.
        warmup_steps: optimiser steps instead of a share; 100 is the paper's.
        base_margin: alpha: the base's preference terms get -alpha * (R(chosen) - R(rejected)), the exact form of the
            combined objective, with the sign that follows from Bradley-Terry. 0, the paper's, leaves the base as it is.
        weight_cap: largest lam * A; None, the paper's, sets no bound.
        positive_only: imitate only responses with A > 0.
    """
    for name, choice, known in (("norm", norm, _SCORES), ("value", value, _BASELINES)):
        if choice not in known:
            raise ConfigError(f"upo({name}={choice!r}){nearest(str(choice), known)}")
    designer = advantage(column("reward"), _BASELINES[value])
    warm = gate(after_share=warmup) if warmup_steps is None else gate(after_steps=warmup_steps)
    imitation = pointwise(
        "advantage",
        score=_SCORES[norm],
        link=linear(),
        weight=exp_advantage(lam, designer, cap=weight_cap, positive_only=positive_only),
        schedule=warm,
        role="auxiliary",
    )
    fit = {"expectile": expectile(tau), "soft": linex(lam)}.get(value)
    below = base_objective(base, base_options, of="upo")
    objective = _with_margin(below, base_margin, designer) + gamma * imitation
    if fit is None:
        return objective
    if "value" in below.heads:
        name = base if isinstance(base, str) else below.terms[0].name
        raise ConfigError(
            f"upo(base={name!r}, value={value!r}): the base trains the value head too, and one head cannot follow two "
            "targets; give upo value='group-mean' or value='none', or another base"
        )
    return objective + value_coefficient * pointwise(
        "value", score=value_head(), target=reach(column("reward")), link=fit, role="state"
    )


def _with_margin(base: Objective, alpha: float, designer: advantage) -> Objective:
    if alpha == 0:
        return base
    if not any(term.role == "preference" for term in base.terms):
        raise ConfigError("base_margin shifts a preference term, and the base has none")

    def shifted(term: Term) -> Term:
        if term.role != "preference":
            return term
        if type(term.unit) not in (pair, point, group):
            raise ConfigError(f"base_margin shifts whole responses, and the term {term.name!r} compares parts of them")
        # in a pair of one context the baseline cancels; a single response is judged by its advantage
        of = designer.reward if isinstance(term.unit, pair) else designer
        return replace(term, offset=(*term.offset, difference(of, -alpha)))

    return Objective(tuple(map(shifted, base.terms)))
