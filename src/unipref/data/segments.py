"""Parts of a response: split at sentences, or as the data gives them."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unipref.core.records import Span
from unipref.data.report import RowFault

__all__ = ["as_spans", "sentences"]

_FENCE = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_CUT = re.compile(
    r"(?<=\.)(?=\s)"  # "3.14" has no white space behind its dot
    "|(?<=[!?\u3002\uff01\uff1f])(?![!?\u3002\uff01\uff1f\"'\u201d\u2019\u300d\u300f])"  # CJK stops; closing quotes
    r"|(?<=:)(?=[ \t]*\n)"
    r"|(?=\n\s*\d+[.)]\s)"
)
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d+\.$")


def sentences(text: str) -> list[tuple[int, int]]:
    r"""(start, end) of each sentence-like part of `text`, without the white space around it.

    A fenced block of code is one part. Elsewhere a part ends after ". ", after "!", "?" and their CJK forms where no
    closing quote follows, after ":" at the end of a line, and before a numbered item of a list; the dot of "3.14" and
    of "\n1. " ends none. Every character that is not white space lies in exactly one part.

    Source: the rule of the code published with arXiv:2505.01706 for 2D-DPO (arXiv:2410.19720). Parts are ranges of
    characters, so that they meet the tokens of the whole text; there they are tokenised by themselves.

    Example:
        >>> text = "Pi is 3.14. Really? Yes:\n1. a circle. 2"
        >>> [text[start:end] for start, end in sentences(text)]
        ['Pi is 3.14.', 'Really?', 'Yes:', '1. a circle.', '2']
    """
    cuts = {0, len(text)}
    at = 0
    for fence in [*_FENCE.finditer(text), None]:
        stop = len(text) if fence is None else fence.start()
        for match in _CUT.finditer(text, at, stop):
            if not (text[: match.start()].endswith(".") and _LIST_NUMBER.search(text[: match.start()])):
                cuts.add(match.start())
        if fence is not None:
            cuts |= {fence.start(), fence.end()}
            at = fence.end()
    edges = sorted(cuts)
    parts = []
    for start, end in itertools.pairwise(edges):
        part = text[start:end]
        if part.strip():
            parts.append((start + len(part) - len(part.lstrip()), start + len(part.rstrip())))
    return parts


def as_spans(text: str, segments: Sequence[Any], scores: Sequence[Any] | None, name: str) -> tuple[Span, ...]:
    """The spans that a row's `segments` of `text` describe.

    Args:
        segments: each a string that continues the text where the one before ended (white space aside), or an object
            with "text", or "start" and "end" in characters; an object may hold its "score".
        scores: one number per segment, None where the objects hold them or nobody gave any.
        name: of the column, for messages.

    Raises:
        RowFault: they do not make up the text in order, or scores and segments differ in number.
    """
    if scores is not None and len(scores) != len(segments):
        raise RowFault(f"field {name!r} has not one score per segment", f"{len(scores)} for {len(segments)}")
    spans: list[Span] = []
    at = 0
    for k, segment in enumerate(segments):
        given = segment if isinstance(segment, Mapping) else {"text": segment}
        score = given.get("score", math.nan) if scores is None else scores[k]
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise RowFault(f"field {name!r} has a score that is not a number", f"segment {k + 1}")
        if isinstance(given.get("text"), str):
            words = given["text"].strip()
            start = at + len(text[at:]) - len(text[at:].lstrip())
            end = start + len(words)
            if not words or text[start:end] != words:
                raise RowFault(f"field {name!r} does not continue the response", f"segment {k + 1}: {words[:40]!r}")
        else:
            start, end = given.get("start"), given.get("end")
            if not isinstance(start, int) or not isinstance(end, int) or not at <= start < end <= len(text):
                raise RowFault(
                    f"field {name!r} has a range that is not one",
                    f"segment {k + 1}: {start} to {end} of {len(text)} characters, behind {at}",
                )
        spans.append(Span(start, end, float(score)))
        at = end
    return tuple(spans)
