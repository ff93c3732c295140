"""Texts that differ by a few characters: MinHash finds candidates, the overlap of their shingles decides.

A text is the set of its shingles: runs of five characters, of three where it is mostly written in a script whose
characters are syllables or words (Japanese, Chinese, Korean), case and white space aside. Two texts are near where
the sets have 80 % of their union in common, which a changed word in a sentence of fifteen keeps.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

__all__ = ["NEAR", "jaccard", "near_pairs", "normal"]

NEAR = 0.8
SHORTEST = 20  # characters; below that, one word more or less is another text
_BANDS, _ROWS = 16, 6  # pairs at 0.8 are candidates with probability 0.993, at 0.9 with 0.99999, at 0.5 with 0.22
_PARTNERS = 8  # of texts that meet in one bucket each is compared with the first few, so that copies cost no square
_CHARACTERS = 2_000_000  # hashed at once
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


@lru_cache(maxsize=8192)
def normal(text: str) -> str:
    """`text` without the differences of case, width and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def jaccard(first: str, second: str) -> float:
    """Shingles that two texts share, of all that they have; 1 for texts that are the same but for case and white space.

    Example:
        >>> jaccard("abcdef", "ABCDEF "), jaccard("abcdef", "abcdex")  # abcde, bcdef; abcde, bcdex
        (1.0, 0.3333333333333333)
    """
    a, b = _set(first), _set(second)
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def near_pairs(
    texts: Sequence[str], others: Sequence[str] | None = None, *, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) that may be near, each once, i < j; with `others`, i in `texts` and j in `others`.

    What is found is to be looked at with `jaccard`. Of many copies of one text each is paired with a few of the others
    only. Texts under 20 characters are in no pair.
    """
    both = [normal(text) for text in (*texts, *(others or ()))]
    rows = np.array([i for i, text in enumerate(both) if len(text) >= SHORTEST], dtype=np.int64)
    if len(rows) < 2:
        return
    bands = _signatures([both[i] for i in rows], seed).reshape(len(rows), _BANDS, _ROWS)
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        key = _folded(bands[:, band, :])
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.r_[True, key[order][1:] != key[order][:-1]])
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            if end - start > 1:
                for pair in _partners(rows[order[start:end]].tolist(), len(texts), others is not None):
                    if pair not in seen:
                        seen.add(pair)
                        yield pair


def _partners(bucket: list[int], n: int, across: bool) -> Iterable[tuple[int, int]]:
    """Pairs of one bucket, whose members are in order."""
    if not across:
        return ((i, j) for at, j in enumerate(bucket) for i in bucket[: min(at, _PARTNERS)])
    ours, theirs = [i for i in bucket if i < n], [j - n for j in bucket if j >= n]
    return ((i, j) for j in theirs for i in ours[:_PARTNERS])


def _signatures(texts: Sequence[str], seed: int) -> np.ndarray:
    """(N, bands * rows) uint64 MinHash values."""
    from rensa import RMinHash

    found, start = [], 0
    while start < len(texts):
        end, size = start, 0
        while end < len(texts) and (end == start or size + len(texts[end]) <= _CHARACTERS):
            size += len(texts[end])
            end += 1
        flat, offsets = _shingles(texts[start:end])
        made = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, _BANDS * _ROWS, seed + 1)
        found.append(np.array(made.to_rows(), dtype=np.uint64))
        start = end
    return np.concatenate(found)


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(shingles of all texts as uint64 hashes, offsets): text i has those from offsets[i] to offsets[i + 1] - 1."""
    padded = [text.ljust(5, "\0") for text in texts]  # so that a short text has one shingle, not none
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    wide = np.add.reduceat((codes >= 0x2E80).astype(np.int64), ends - lengths) * 2 > lengths
    run = np.where(wide, 3, 5)
    hashed = codes.copy()
    three = None
    for step in range(1, 5):
        hashed = hashed[:-1] * _MULTIPLIER + codes[step:] + np.uint64(1)
        if step == 2:
            three = hashed.copy()
    of = np.repeat(np.arange(len(texts)), lengths)
    last = (ends - run)[of]  # where a text's last shingle starts
    keep = np.flatnonzero(np.arange(len(codes)) <= last)
    values = np.where(
        wide[of[keep]], three[np.minimum(keep, len(three) - 1)], hashed[np.minimum(keep, len(hashed) - 1)]
    )
    values ^= values >> np.uint64(31)  # the low bits of products of small numbers are poor
    values *= _MULTIPLIER
    values ^= values >> np.uint64(29)
    return values, np.r_[0, np.cumsum(lengths - run + 1)].astype(np.uint64)


def _folded(rows: np.ndarray) -> np.ndarray:
    """(N,) one number for each row of (N, K)."""
    total = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        total = (total ^ column) * _MULTIPLIER
        total ^= total >> np.uint64(32)
    return total


@lru_cache(maxsize=4096)
def _set(text: str) -> np.ndarray:
    return np.unique(_shingles([normal(text)])[0])
