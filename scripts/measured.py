"""What the scripts that fill a page's tables share: cells, tables, and the marks between which they stand."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from unipref.core.errors import DataError

__all__ = ["BEGIN", "END", "points", "renewed", "share", "table", "triple_of"]

BEGIN, END = "<!-- measured: {}: begin -->", "<!-- measured: {}: end -->"

Triple = Sequence[float | None] | None


def share(triple: Triple) -> str:
    """A share and its interval in per cent."""
    return triple_of(triple, lambda value: f"{100 * value:.1f}")


def points(triple: Triple) -> str:
    """A difference of shares and its interval in per cent points."""
    return triple_of(triple, lambda value: f"{100 * value:+.1f}")


def triple_of(triple: Triple, shown: Callable[[float], str]) -> str:
    """A value and its interval, each as `shown`."""
    if triple is None or triple[0] is None or math.isnan(triple[0]):
        return "not measured"
    if triple[1] is None or math.isnan(triple[1]):
        return shown(triple[0])
    return f"{shown(triple[0])} [{shown(triple[1])}, {shown(triple[2])}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def renewed(text: str, parts: Mapping[str, str]) -> str:
    """The page `text` with what stands between the marks of each part replaced.

    Raises:
        DataError: a part has no marks.
    """
    for name, part in parts.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise DataError(f"the page lacks the marks {begin} and {end}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text
