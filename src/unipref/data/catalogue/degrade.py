"""Variants of responses that lack more and more of what they say."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Item, Record, Text, plain_text
from unipref.data.operators import Operator, Step, each, responses_of
from unipref.data.report import DataReport
from unipref.data.segments import sentences

_WORD = re.compile(r"\w+")
_CLAUSE = re.compile(r"(?<=[,;])\s")


@method(
    "degrade",
    kind="operator",
    status="reconstructed",
    source="arXiv:2409.17791",
    formula="variant d of n lacks round(d / (n + 1) * parts) of a response's parts, those with the rarest words first",
    citation=Citation(
        "Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree Awareness",
        (
            "Jian Li",
            "Haojing Huang",
            "Yujia Zhang",
            "Pengfei Xu",
            "Xi Chen",
            "Rui Song",
            "Lida Shi",
            "Jingwen Wang",
            "Hao Xu",
        ),
        2024,
        "2409.17791",
    ),
)
def degrade(*, n: int = 3, of: str = "chosen") -> Operator:
    """Every response with n + 1 variants of itself as items of role "variant", their degree 0 to n in column "degree".

    A variant lacks whole sentences (clauses where a response has too few), those with the largest mean inverse
    document frequency first, so what is left is still sentences; degree 0 is the response itself. A response with
    fewer than n + 1 parts gets no variants.

    Reconstructed: that variants lack more and more key content is the abstract's; how the authors build them is not
    published, and this form is ours.

    Args:
        n: largest degree. Not in the source.
        of: "chosen" makes variants of preferred responses (all, where nothing is compared), "all" of every response.
    """
    if n < 1 or of not in ("chosen", "all"):
        raise ConfigError(f"n must be 1 or more and of 'chosen' or 'all': n={n}, of={of!r}")

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        texts = [plain_text(record.items[i].response) for record in records for i in responses_of(record)]
        seen = Counter(word for text in texts for word in set(_words(text)))

        def make(record: Record) -> list[Record]:
            sides = responses_of(record)
            if of == "chosen" and record.comparisons:
                sides = sorted({c.winner if c.preference >= 0.5 else c.loser for c in record.comparisons})
            made = [item for i in sides for item in _variants(record.items[i], n, seen, len(texts))]
            return [replace(record, items=(*record.items, *made))]

        return each("degrade", {}, make, changed="variants added")(records)

    return Step("degrade", {"n": n, "of": of}, run)


def _variants(item: Item, n: int, seen: Counter[str], n_texts: int) -> list[Item]:
    text = item.response if isinstance(item.response, str) else item.response[-1].content
    parts = _parts(text, n + 1)
    if len(parts) < n + 1:
        return []

    def rarity(part: tuple[int, int]) -> float:
        words = _words(text[part[0] : part[1]])
        return sum(math.log((1 + n_texts) / (1 + seen[word])) for word in words) / max(len(words), 1)

    order = sorted(range(len(parts)), key=lambda i: (-rarity(parts[i]), i))
    made = []
    for degree in range(n + 1):
        gone = set(order[: round(degree / (n + 1) * len(parts))])
        made.append(
            Item(item.context, _without(item.response, text, parts, gone), columns={"degree": degree}, role="variant")
        )
    return made


def _parts(text: str, least: int) -> list[tuple[int, int]]:
    """Ranges that make up `text`, each with the white space before it."""
    found = sentences(text)
    if len(found) < least:
        cuts = sorted({match.start() for match in _CLAUSE.finditer(text)} | {start for start, _ in found})
        found = list(zip(cuts, [*cuts[1:], len(text)], strict=True))
    ends = [end for _, end in found[:-1]] + [len(text)]
    return list(zip([0, *ends[:-1]], ends, strict=True)) if found else []


def _without(response: Text, text: str, parts: list[tuple[int, int]], gone: set[int]) -> Text:
    left = "".join(text[start:end] for i, (start, end) in enumerate(parts) if i not in gone)
    if gone:
        lead = text[: len(text) - len(text.lstrip())]  # white space before the response is the response's
        left = lead + left.lstrip()
    return left if isinstance(response, str) else (*response[:-1], replace(response[-1], content=left))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
