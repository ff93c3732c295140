"""Self-play against what a recommender recommends."""

from dataclasses import replace
from functools import partial

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Comparison, Record
from unipref.data import Operator, Step, limit_records
from unipref.data.operators import LeftOut, each, responses_of
from unipref.data.report import RowFault
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.catalogue.sft import sft
from unipref.recipes.composition import Composition, Loop


@method(
    "sprec",
    kind="loop",
    source="arXiv:2412.09243, as in github.com/RegionCh/SPRec",
    formula="per iteration -logp(y) / |y|, then -log sigmoid(beta * dh), c the logged item, r the model's own answer",
    needs=("chosen", "rejected", "len", "ref_logp"),
    citation=Citation(
        "SPRec: Self-Play to Debias LLM-based Recommendation",
        ("Chongming Gao", "Ruijun Chen", "Shuai Yuan", "Kexin Huang", "Yuanqing Yu", "Xiangnan He"),
        2024,
        "2412.09243",
    ),
)
def sprec(*, iterations: int = 5, rows: int = 2048, beta: float = 0.1, seed: int = 0) -> Loop:
    """Iterations of supervised training on logged items and of DPO of these against the model's own predictions.

    A row's preferred (or only) response is the logged item. The model's prediction is its `policy_sample`; where it has
    none, its rejected response, which is ordinary DPO if that was drawn at random.

    What the model recommends too often is rejected as often, so over-recommended items lose the most. Two rounds per
    iteration, on one draw of the rows; the DPO starts from, and is compared with, the model after the supervised
    round, while the predictions are from before it. A prediction that is the logged item would have a loss of log 2 and
    no gradient; such pairs are left out and counted, where the released code keeps them. There the prompts of DPO also
    lack the instruction that the predictions were made with; here both are the row's prompt.

    Args:
        iterations: 5 in the released example.
        rows: drawn per iteration; 2048 there.
        beta: 0.1 there; its learning rate is 2e-5 in both rounds.
        seed: of the draws; every iteration has another.
    """
    if iterations < 1:
        raise ConfigError(f"{iterations} iterations train nothing; give 1 or more")
    draws = [drawn(rows=rows, seed=seed + i) for i in range(iterations)]
    pairs = [(Composition(sft(), (draw,)), Composition(dpo(beta=beta), (draw, against_own()))) for draw in draws]
    return Loop(
        tuple(round_ for both in pairs for round_ in both),
        collects="the model's own greedy prediction for every row, before each iteration",
    )


def drawn(*, rows: int, seed: int) -> Operator:
    """At most `rows` records, by a hash of their texts and `seed`."""
    return Step("drawn", {"rows": rows, "seed": seed}, partial(limit_records, n=rows, seed=seed))


def against_own() -> Operator:
    """The preferred (or only) response of a record against the model's own answer, where it has one."""

    def make(record: Record) -> list[Record]:
        own = next((item for item in record.items if item.role == "policy_sample"), None)
        if own is None and record.comparisons:
            return [record]
        if own is None:
            raise RowFault("no 'policy_sample' to compare with")
        sides = [c.winner if c.preference >= 0.5 else c.loser for c in record.comparisons] or responses_of(record)
        if len(set(sides)) != 1:
            raise RowFault("not one response to prefer", f"{len(set(sides))}")
        logged = record.items[sides[0]]
        if logged.response == own.response:
            raise LeftOut("the model's own answer is the preferred one")
        items = (replace(logged, label=None), replace(own, role="response"))
        return [replace(record, items=items, comparisons=(Comparison(0, 1),))]

    return each("against_own", {}, make, changed="compared with the model's own answer")
