"""The bundled film reviews and snippets: their human sentiment labels, and openings of them to write on from."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

__all__ = ["LABELLED", "Labelled", "labelled", "review_openings", "undo_tokenization"]

LABELLED = ("movie-sentiment",)
_OPENING = 8  # words of an opening
_LEAST = 12  # words of a first sentence that is taken, so that something is left to write


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text that people labelled.

    Attributes:
        text: as the corpus has it.
        label: "pos" or "neg" in the bundled corpora.
        part: the corpus within the set, "" where there is one.
    """

    text: str
    label: str
    part: str = ""


@lru_cache(maxsize=1)
def labelled(name: str) -> tuple[tuple[Labelled, ...], str]:
    """The texts of a bundled set, and the hash of the files that they come from.

    "movie-sentiment": 2,000 whole film reviews (Pang and Lee 2004; part "reviews") and 10,662 sentences from reviews
    (Pang and Lee 2005; part "snippets"), half of each positive. The labels are the reviewers' own verdicts.

    Raises:
        KeyError: no set has this name.
    """
    if name not in LABELLED:
        raise KeyError(name)
    texts = [
        *(Labelled(text, side, "reviews") for side, text in _members("movie_reviews", r"(pos|neg)/.*\.txt")),
        *(
            Labelled(line, side, "snippets")
            for side, text in _members("sentence_polarity", r"rt-polarity\.(neg|pos)")
            for line in text.splitlines()
        ),
    ]
    sums = [hashlib.sha256(_archive(corpus)).hexdigest() for corpus in ("movie_reviews", "sentence_polarity")]
    return tuple(texts), hashlib.sha256("".join(sums).encode()).hexdigest()


def review_openings() -> tuple[list[dict[str, Any]], str]:
    """Rows of prompts, the first words of every review and snippet that is long enough, and their files' hash.

    One opening of eight words per document, its `domain` "reviews" or "snippets"; documents that begin alike give one.
    """
    texts, sha256 = labelled("movie-sentiment")
    rows: dict[str, dict[str, Any]] = {}
    for document in texts:
        first = undo_tokenization(document.text.split("\n", 1)[0]).split()
        if len(first) >= _LEAST:
            opening = " ".join(first[:_OPENING])
            rows.setdefault(opening, {"prompt": opening, "domain": document.part})
    return list(rows.values()), sha256


def undo_tokenization(text: str) -> str:
    """`text` with the spaces that the corpora's own tokenizers put around punctuation taken out.

    Example:
        >>> undo_tokenization("it does n't work ( yet ) , he said .")
        "it doesn't work (yet), he said."
    """
    text = re.sub(r"\s*``\s*(.*?)\s*(?:''|``)", r' "\1"', text)
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r" (n't|'(?:s|m|re|ve|ll|d))\b", r"\1", text)
    text = re.sub(r" +([.,!?;:%)\]])", r"\1", text)
    text = re.sub(r"([(\[$]) +", r"\1", text)
    return re.sub(r"[ \t]+", " ", re.sub(r" *\n *", "\n", text)).strip()


def _archive(corpus: str) -> bytes:
    return resources.files("unipref").joinpath("assets", "corpora", f"{corpus}.zip").read_bytes()


def _members(corpus: str, pattern: str) -> Iterator[tuple[str, str]]:
    """(what the pattern's group caught, text) of the archive's members that fit `pattern`, in the order of names."""
    with zipfile.ZipFile(io.BytesIO(_archive(corpus))) as archive:
        for name in sorted(archive.namelist()):
            fits = re.fullmatch(pattern, name.split("/", 1)[1])
            if fits:
                yield fits[1], archive.read(name).decode("utf-8")
