"""Pairs as questions that a letter answers."""

from collections.abc import Mapping
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Comparison, Record
from unipref.data.operators import LeftOut, Operator, digest, each
from unipref.data.pair_questions import PairQuestion
from unipref.data.report import RowFault

CODEFAVOR = Citation(
    "Learning Code Preference via Synthetic Evolution",
    (
        "Jiawei Liu",
        "Thanh Nguyen",
        "Mingyue Shang",
        "Hantian Ding",
        "Xiaopeng Li",
        "Yu Yu",
        "Varun Kumar",
        "Zijian Wang",
    ),
    2024,
    "2410.03837",
)
ORDERS = ("both", "drawn")


@method(
    "ab_question",
    kind="operator",
    source="arXiv:2410.03837, as in github.com/amazon-science/llm-code-preference",
    formula="(x, y1 > y2) -> (q(x, y1, y2, c), A > B) and (q(x, y2, y1, c), B > A)",
    needs=("chosen", "rejected"),
    citation=CODEFAVOR,
)
def ab_question(
    *,
    criterion: str = "",
    by: str | None = None,
    criteria: Mapping[str, str] | None = None,
    orders: str = "both",
    seed: int = 0,
) -> Operator:
    """Every comparison as a question about both responses, whose answers are the letters A and B.

    Both orders are asked, so that the place of a response says nothing of the answer. The two questions share the
    row's weight. The words of the prompt are ours.

    Args:
        criterion, by, criteria: what counts: the same words for all; the words that the row's "domain" or "user" are;
            or those that it names in `criteria`.
        orders: "both", or "drawn": one order per comparison, by a hash of its texts and `seed`.
    """
    question = PairQuestion(criterion, by, criteria)
    if orders not in ORDERS:
        raise ConfigError(f"ab_question(orders={orders!r}){nearest(str(orders), ORDERS)}")

    def ask(record: Record, comparison: Comparison) -> Record:
        first, second = record.items[comparison.winner], record.items[comparison.loser]
        words = question.criterion_of(domain=record.domain, user=record.user or comparison.annotator)
        if words is None:
            raise RowFault("the row has no criterion", f"{by} {getattr(record, by)!r}")
        turns = not isinstance(first.context, str)
        asked = question.both_orders(
            record.id, first.context, first.response, second.response, words, turns=turns, domain=record.domain,
            user=record.user, source=record.source, line=record.line, conversation=record.conversation,
        )  # fmt: skip
        others = tuple(item for item in record.items if item.role != "response")
        verdicts = (replace(comparison, winner=0, loser=1), replace(comparison, winner=3, loser=2))
        if orders == "both":
            return replace(asked, items=asked.items + others, comparisons=verdicts, weight=record.weight / 2)
        at = digest(record, seed)[(7 * comparison.winner + comparison.loser) % 32] % 2
        verdict = replace(verdicts[at], winner=verdicts[at].winner - 2 * at, loser=verdicts[at].loser - 2 * at)
        items = asked.items[2 * at : 2 * at + 2] + others
        return replace(asked, items=items, comparisons=(verdict,), weight=record.weight)

    def make(record: Record) -> list[Record]:
        if not record.comparisons:
            raise LeftOut("nothing is compared")
        return [ask(record, comparison) for comparison in record.comparisons]

    options = {"criterion": criterion, "by": by, "criteria": criteria, "orders": orders, "seed": seed}
    return each("ab_question", options, make, changed="pair made a question", added="question of a further pair")
