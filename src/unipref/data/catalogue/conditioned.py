"""Preferences in plain words before the prompt (Janus, MetaAlign)."""

import random
from collections.abc import Mapping
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Record
from unipref.data.conditioning import PLACES, put_before
from unipref.data.operators import Operator, digest, each, responses_of, with_items
from unipref.data.report import RowFault

FACTS = ("domain", "user", "id")


@method(
    "conditioned",
    kind="operator",
    status="reconstructed",
    source="arXiv:2405.17977, arXiv:2410.14184",
    formula="x -> condition + x, with probability 1 - drop",
    citation=Citation(
        "Aligning to Thousands of Preferences via System Message Generalization",
        ("Seongyun Lee", "Sue Hyun Park", "Seungone Kim", "Minjoon Seo"),
        2024,
        "2405.17977",
    ),
)
def conditioned(
    *,
    conditions: Mapping[str, str],
    by: str = "domain",
    where: str = "system",
    drop: float = 0.0,
    counterfactual: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Operator:
    """Each record's prompt behind the words of the preference that it was judged by.

    The words are context and never trained on. An empty condition leaves the prompt as it was, character for
    character.

    Reconstructed: Janus's format was read in its released configuration; of MetaAlign the shape of the data is all
    that is known. Dropping conditions is ours.

    Args:
        conditions: value of the fact -> words. Every value that the data have needs an entry.
        by: the fact of the record that names its condition: "domain", "user" or "id".
        where: "system" puts the words above the system message, "user" before the last user turn.
        drop: share of the records whose condition is left out, drawn by a hash of their texts.
        counterfactual: value -> value that wants the opposite: the pair stands a second time, under the other
            condition and with its sides exchanged.
    """
    if by not in FACTS:
        raise ConfigError(f"a record has no fact {by!r} to choose words by{nearest(by, FACTS)}")
    if where not in PLACES:
        raise ConfigError(f"the condition stands in the 'system' message or the 'user' turn, not in {where!r}")
    if not 0 <= drop <= 1:
        raise ConfigError(f"drop is a share in [0, 1]: {drop}")
    opposite = dict(counterfactual or {})
    for name in (*opposite, *opposite.values()):
        if name not in conditions:
            raise ConfigError(f"the counterfactual names {name!r}, which has no condition{nearest(name, conditions)}")

    def under(record: Record, words: str) -> Record:
        sides = set(responses_of(record))
        items = tuple(
            replace(item, context=put_before(item.context, words, where=where)) if i in sides else item
            for i, item in enumerate(record.items)
        )
        return replace(record, items=items)

    def make(record: Record) -> list[Record]:
        value = getattr(record, by)
        if value is None or value not in conditions:
            raise RowFault(f"the record's {by} has no condition", repr(value))
        rng = random.Random(f"condition {seed} {digest(record, seed).hex()}")
        words = "" if rng.random() < drop else conditions[value]
        found = [under(record, words)]
        if value in opposite and words:
            if len(record.comparisons) != 1 or len(responses_of(record)) != 2:
                raise RowFault("a counterfactual needs one pair", f"{len(record.comparisons)} comparisons")
            comparison = record.comparisons[0]
            swapped = with_items(record, [comparison.loser, comparison.winner])
            verdict = replace(comparison, winner=0, loser=1)
            swapped = replace(swapped, id=f"{record.id}~{opposite[value]}", comparisons=(verdict,))
            if by != "id":
                swapped = replace(swapped, **{by: opposite[value]})
            found.append(under(swapped, conditions[opposite[value]]))
        return found

    options = {
        "conditions": conditions,
        "by": by,
        "where": where,
        "drop": drop,
        "counterfactual": counterfactual,
        "seed": seed,
    }
    return each("conditioned", options, make, changed="condition before the prompt", added="counterfactual pair")
