"""Reward-augmented data: a pair stands twice, each time under the score that one of its sides reached."""

from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Item, Record
from unipref.data.conditioning import PLACES, put_before
from unipref.data.operators import LeftOut, Operator, each, with_items
from unipref.data.report import RowFault

TEMPLATE = "Give a response that deserves a score of {goal} on a scale from 1 to 10."


@method(
    "goal_conditioned",
    kind="operator",
    source="arXiv:2410.08067, released code",
    formula="(x, w > l) -> (x + s_w, w > l), (x + s_l, l > w)",
    needs=("chosen", "rejected", "score"),
    citation=Citation(
        "Reward-Augmented Data Enhances Direct Preference Alignment of LLMs",
        (
            "Shenao Zhang",
            "Zhihan Liu",
            "Boyi Liu",
            "Yufeng Zhang",
            "Yingxiang Yang",
            "Yongfei Liu",
            "Liyu Chen",
            "Tao Sun",
            "Zhaoran Wang",
        ),
        2024,
        "2410.08067",
    ),
)
def goal_conditioned(*, by: str = "score", where: str = "system", template: str = TEMPLATE) -> Operator:
    """Two rows per pair: one asks for the winner's score and prefers it, one for the loser's score and prefers that.

    The order is that of -(goal - score)^2 at either goal. Pairs whose scores are equal would contradict themselves
    and are left out; the released filter keeps them. Both sides are exchanged whole: the released variant without a
    system role exchanges the user turn alone, so its second copy still prefers the winner. A whole number is written
    without ".0". The words of the template are ours; the source states a target on a scale from 1 to 10.

    Args:
        by: the column of the score.
        where: the goal stands in the "system" message or at the start of the last "user" turn.
        template: has "{goal}" where the score goes.
    """
    if "{goal}" not in template:
        raise ConfigError(f"the template has no '{{goal}}' where the score goes: {template!r}")
    if where not in PLACES:
        raise ConfigError(f"the goal stands in the 'system' message or the 'user' turn, not in {where!r}")

    def asked(item: Item, goal: float) -> Item:
        words = template.replace("{goal}", f"{goal:.6g}")
        return replace(
            item, context=put_before(item.context, words, where=where), columns={**item.columns, "goal": goal}
        )

    def make(record: Record) -> list[Record]:
        if not record.comparisons:
            raise RowFault("no comparison to condition on a goal")
        if any("goal" in item.columns for item in record.items):
            raise RowFault("the record is conditioned on a goal already")
        found = []
        for comparison in record.comparisons:
            sides = [comparison.winner, comparison.loser]
            scores = [record.items[i].columns.get(by) for i in sides]
            if None in scores:
                raise RowFault(f"a side of the comparison has no {by!r}")
            if scores[0] == scores[1]:
                continue
            for order, goal in ((sides, scores[0]), (sides[::-1], scores[1])):
                part = with_items(record, order)
                items = (*(asked(item, goal) for item in part.items[:2]), *part.items[2:])
                margin = comparison.margin if order == sides else None
                verdict = replace(comparison, winner=0, loser=1, margin=margin)
                suffix = "" if not found else f"~goal{len(found)}"
                found.append(replace(part, id=record.id + suffix, items=items, comparisons=(verdict,)))
        if not found:
            raise LeftOut(f"both sides have the same {by}")
        return found

    options = {"by": by, "where": where, "template": template}
    return each("goal_conditioned", options, make, changed="conditioned on a score", added="pair under another goal")
