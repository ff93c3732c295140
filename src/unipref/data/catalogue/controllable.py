"""Controllable preference optimization: requested scores stand in the prompt and decide what is preferred."""

import random
from collections.abc import Mapping
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Record
from unipref.data.conditioning import put_before
from unipref.data.operators import LeftOut, Operator, digest, each, rated, with_items, with_pairs


@method(
    "controllable",
    kind="operator",
    status="reconstructed",
    source="arXiv:2402.19085, released code",
    formula="R = sum_i omega_i * g_i, g_i = -lambda_i |P_i - c_i| where i is controlled, else P_i; higher R is chosen",
    needs=("score",),
    citation=Citation(
        "Controllable Preference Optimization: Toward Controllable Multi-Objective Alignment",
        (
            "Yiju Guo",
            "Ganqu Cui",
            "Lifan Yuan",
            "Ning Ding",
            "Zexu Sun",
            "Bowen Sun",
            "Huimin Chen",
            "Ruobing Xie",
            "Jie Zhou",
            "Yankai Lin",
            "Zhiyuan Liu",
            "Maosong Sun",
        ),
        2024,
        "2402.19085",
    ),
)
def controllable(
    *,
    objectives: tuple[str, ...],
    controlled: tuple[str, ...] | None = None,
    request: Mapping[str, float] | None = None,
    omega: Mapping[str, float] | None = None,
    lam: Mapping[str, float] | None = None,
    stage: str = "dpo",
    silent_at: float | None = None,
    seed: int = 0,
) -> Operator:
    """Prompts that ask for scores on some objectives, and the preferences that follow from what was asked.

    On a controlled objective the nearest score is best, on the others the highest. Of the released code's slips none
    is here: a response that meets the request counts as distance 0 (there `-|d| or rating` falls back to the rating),
    the distance is |P - c| on every objective, both stages write the same names, and what a record asks for depends on
    its texts and the seed, not on the order of the file.

    Reconstructed: the structure was read in the released code; the paper's equation is recalled.

    Args:
        objectives: columns of the scores, in the order of the prompt.
        controlled: those whose score is asked for; a random subset per record where it is not given.
        request: the scores asked for; those of one response drawn at random where it is not given.
        omega, lam: per objective, 1 where they are not named, as in the code.
        stage: "dpo" compares all responses that differ in R; "sft" gives one row per response, which asks for the
            scores that it has.
        silent_at: leave the condition out of the prompt where every controlled score is this one (the code: 5 on
            UltraFeedback); never where it is not given.
    """
    for name in (*(controlled or ()), *(request or ()), *(omega or ()), *(lam or ())):
        if name not in objectives:
            raise ConfigError(f"{name!r} is none of the objectives{nearest(name, objectives)}")
    if stage not in ("sft", "dpo"):
        raise ConfigError(f"the stage is 'sft' or 'dpo', not {stage!r}")
    if not objectives:
        raise ConfigError("controllable needs the columns of one objective or more")
    if request is not None and controlled is not None and set(controlled) - set(request):
        raise ConfigError(f"no score is requested for {sorted(set(controlled) - set(request))}")
    omegas, lams = ({name: (given or {}).get(name, 1.0) for name in objectives} for given in (omega, lam))

    def condition(asked: Mapping[str, float]) -> str:
        if silent_at is not None and all(score == silent_at for score in asked.values()):
            return ""
        return " ".join(f"< {name}: {score:.6g} >" for name, score in asked.items())

    def value(scores: Mapping[str, float], asked: Mapping[str, float]) -> float:
        return sum(
            omegas[name] * (-lams[name] * abs(score - asked[name]) if name in asked else score)
            for name, score in scores.items()
        )

    def conditioned(record: Record, asked: Mapping[str, float], n: int) -> Record:
        words = condition(asked)
        items = tuple(
            replace(item, context=put_before(item.context, words, where="user")) if i < n else item
            for i, item in enumerate(record.items)
        )
        return replace(record, items=items)

    def make(record: Record) -> list[Record]:
        columns = {name: rated(record, name) for name in objectives}
        responses = list(columns[objectives[0]])
        scores = {i: {name: columns[name][i] for name in objectives} for i in responses}
        rng = random.Random(f"control {seed} {digest(record, seed).hex()}")
        names = controlled
        if names is None:
            names = tuple(request) if request is not None else tuple(n for n in objectives if rng.random() < 0.5)
        names = tuple(name for name in objectives if name in names)
        if stage == "sft":
            rows = []
            for i in responses:
                asked = {name: scores[i][name] for name in names}
                part = replace(with_items(record, [i], comparisons=()), id=f"{record.id}~{i}" if rows else record.id)
                rows.append(conditioned(part, asked, 1))
            return rows
        wanted = request if request is not None else scores[rng.choice(responses)]
        asked = {name: wanted[name] for name in names}
        worth = {i: value(scores[i], asked) for i in responses}
        pairs = [
            (i, j)
            for i in responses
            for j in responses
            if worth[i] > worth[j] and record.items[i].response != record.items[j].response
        ]
        if not pairs:
            raise LeftOut("all responses are worth the same under the request")
        part = with_pairs(record, {(i, j): worth[i] - worth[j] for i, j in pairs}, keep=responses)
        return [conditioned(part, asked, len(responses))]

    options = {
        "objectives": objectives,
        "controlled": controlled,
        "request": request,
        "omega": omega,
        "lam": lam,
        "stage": stage,
        "silent_at": silent_at,
        "seed": seed,
    }
    return each("controllable", options, make, changed="conditioned on requested scores", added="response of its own")
