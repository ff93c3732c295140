"""Records of one chunk to the bytes of the files: what a worker process does, and this one where there is none."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.core.errors import DataError
from unipref.core.records import Record
from unipref.data.encode import Encoder
from unipref.data.prepared._layout import packed
from unipref.data.report import DataReport
from unipref.data.token_columns import with_token_columns

__all__ = ["ChunkEncoder", "Encoded"]


@dataclass(frozen=True)
class Encoded:
    """A chunk's share of every file.

    Attributes:
        files: name of the file, without .bin -> the bytes to append; empty where no record is left.
        lengths: (n, 6) of the records that are left, in the order of `OFFSETS`.
        report: what happened to the chunk's records.
        counts: of the encoder, for the notes on all chunks together.
    """

    files: dict[str, bytes]
    lengths: np.ndarray
    report: DataReport
    counts: Counter[str]


@dataclass(frozen=True)
class ChunkEncoder:
    """All that decides what becomes of a chunk's records; picklable where the tokenizer is.

    Attributes:
        tokens: names of the token columns to make.
        token: numpy type of the vocabulary ids.
    """

    tokenizer: Any
    max_length: int | None
    truncate: str
    strict: bool
    tokens: tuple[str, ...]
    token: str

    def encoder(self) -> Encoder:
        """One to use for all chunks of a process."""
        return Encoder(self.tokenizer, max_length=self.max_length, truncate=self.truncate)

    def __call__(self, records: Sequence[Record], encoder: Encoder) -> Encoded:
        """The share of `records`.

        Raises:
            DataError: a record cannot be encoded and `strict` is set, or a token id is outside of the vocabulary.
        """
        encoder.counts.clear()
        encoded, report = encoder.encode(records, strict=self.strict)
        columns: list[dict[str, list[np.ndarray]]] = []
        if self.tokens:
            encoded, columns, later = with_token_columns(encoded, self.tokenizer, self.tokens, strict=self.strict)
            report = report.then(later)
        try:
            files, lengths = packed(encoded, columns, self.token) if encoded else ({}, np.zeros((0, 6), np.int64))
        except OverflowError as err:
            first = encoded[0].record
            raise DataError(
                f"records from {first.source or first.id!r}, line {first.line}, on bring response ids of another "
                f"vocabulary ({err}); leave response_ids out, or take the tokenizer that they were made with"
            ) from err
        return Encoded(files, lengths, report, Counter(encoder.counts))
