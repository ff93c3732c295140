"""What lies in the files of prepared data, and how a record is written there.

One file per kind of number, all records one after another; `offsets.bin` says where each record begins in the others.

- tokens.bin: the vocabulary ids of a record's trie, uint16 where the vocabulary allows, else int32.
- segments.bin: (start, parent) per segment of the trie, int32 (`unipref.core.tries.Segments`).
- items.bin: per item the columns ITEM, int32.
- facts.bin, texts.bin: JSON per record, without texts and texts alone.
- sizes.bin, costs.bin, prompt.bin, n_scored.bin: a number per record, of the types COLUMNS.
- token_NAME.bin: a float32 per scored token, for each token column that was asked for.
- offsets.bin: per record, and one past the last, the int64 offsets OFFSETS: elements, or bytes of the two JSON files.
- report.json, and meta.json, which says how long every file is and what its hash is.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unipref.core.records import Comparison, Item, Message, Record, Span, Text
from unipref.core.tries import prompt_key
from unipref.data.encode import EncodedRecord

__all__ = [
    "BOUNDARIES",
    "COLUMNS",
    "ITEM",
    "LAYOUT",
    "OFFSETS",
    "dtypes",
    "packed",
    "read_facts",
    "read_texts",
    "token_file",
]

LAYOUT = 1  # version of these files; another number makes all that was prepared a miss
OFFSETS = ("tokens", "segments", "items", "scored", "facts", "texts")
ITEM = ("context", "last", "cut_context", "cut_response", "n_response", "boundary")
COLUMNS = {"sizes": np.dtype("<i4"), "costs": np.dtype("<i8"), "prompt": np.dtype("<i8"), "n_scored": np.dtype("<i4")}
BOUNDARIES = ("template", "turn", "text", "ids")
_INT = np.dtype("<i4")


def dtypes(token: str, names: Iterable[str]) -> dict[str, np.dtype]:
    """The type of every file's numbers, by the file's name without .bin.

    Args:
        token: of the vocabulary ids, "<u2" or "<i4".
        names: token columns.
    """
    return {
        "tokens": np.dtype(token),
        "segments": _INT,
        "items": _INT,
        "facts": np.dtype("u1"),
        "texts": np.dtype("u1"),
        "offsets": np.dtype("<i8"),
        **COLUMNS,
        **{token_file(name): np.dtype("<f4") for name in names},
    }


def token_file(name: str) -> str:
    """The name of the file of a token column."""
    return f"token_{name}"


def packed(
    encoded: Sequence[EncodedRecord], columns: Sequence[dict[str, list[np.ndarray]]], token: str
) -> tuple[dict[str, bytes], np.ndarray]:
    """(file -> bytes, (n, 6) lengths in the order of OFFSETS) of some records, to be put behind those before them.

    Raises:
        OverflowError: a token id does not fit the type `token`.
    """
    names = sorted(columns[0]) if columns else []
    kinds = dtypes(token, names)
    segments = [one.trie.segments() for one in encoded]
    facts = [_facts(one.record) for one in encoded]
    texts = [_texts(one.record) for one in encoded]
    tokens = np.concatenate([part.token for part in segments])
    limit = np.iinfo(kinds["tokens"]).max
    if len(tokens) and (tokens.max() > limit or tokens.min() < 0):
        raise OverflowError(f"token ids are from 0 to {limit}, and there are {tokens.min()} to {tokens.max()}")
    items = [
        (context, last, *rest)
        for one, part in zip(encoded, segments, strict=True)
        for context, last, *rest in zip(
            part.context.tolist(),
            part.last.tolist(),
            one.n_cut_context,
            one.n_cut_response,
            one.n_response,
            [BOUNDARIES.index(word) for word in one.boundary],
            strict=True,
        )
    ]
    scored = [sum(map(len, one.trie.scored)) for one in encoded]
    sizes = [len(part.token) for part in segments]
    found = {
        "tokens": tokens,
        "segments": np.concatenate([np.stack([part.start, part.parent], axis=1) for part in segments]),
        "items": np.array(items),
        "facts": b"".join(facts),
        "texts": b"".join(texts),
        "sizes": np.array(sizes),
        "costs": np.array([one.trie.n_visible for one in encoded]),
        "prompt": np.array([prompt_key(one.trie, one.record.conversation) for one in encoded]),
        "n_scored": np.array(scored),
        **{token_file(name): np.concatenate([values for made in columns for values in made[name]]) for name in names},
    }
    lengths = np.array(
        [
            sizes,
            [len(part.start) for part in segments],
            [len(part.last) for part in segments],
            scored,
            [len(text) for text in facts],
            [len(text) for text in texts],
        ],
        dtype=np.int64,
    ).T
    return {
        name: part if isinstance(part, bytes) else part.astype(kinds[name]).tobytes() for name, part in found.items()
    }, lengths


# ------------------------------------------------------------------------------------------------- records as JSON


def _json(value: Any) -> bytes:
    # Names may hold half a surrogate pair, which is no character; NaN is Python's, and only this module reads it.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=lambda number: number.item())
    return text.encode("utf-8", "surrogatepass")


def _read(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "surrogatepass"))


def _facts(record: Record) -> bytes:
    items = [
        (
            item.role,
            item.label,
            item.rank,
            item.score_context,
            dict(item.columns),
            [(span.start, span.end, span.score) for span in item.spans],
        )
        for item in record.items
    ]
    comparisons = [(c.winner, c.loser, c.preference, c.margin, c.annotator) for c in record.comparisons]
    of_record = (record.id, record.weight, record.domain, record.user, record.source, record.line, record.conversation)
    return _json((*of_record, items, comparisons))


def _texts(record: Record) -> bytes:
    """Each text once, and per item (context, response, response ids): numbers of texts, and the ids or null."""
    places: dict[Text, int] = {}

    def place(text: Text) -> int:
        return places.setdefault(text, len(places))

    items = [(place(item.context), place(item.response), item.response_ids) for item in record.items]
    return _json(([text if isinstance(text, str) else [(m.role, m.content) for m in text] for text in places], items))


def read_facts(data: bytes, texts: Sequence[tuple[Text, Text, tuple[int, ...] | None]] | None = None) -> Record:
    """The record of which `data` are the facts; with empty strings for its texts where these are not given."""
    *of_record, items, comparisons = _read(data)
    texts = [("", "", None)] * len(items) if texts is None else texts
    name, weight, domain, user, source, line, conversation = of_record
    return Record(
        id=name,
        items=tuple(
            Item(
                context,
                response,
                label,
                rank,
                columns,
                ids,
                role,
                score_context,
                tuple([Span(*span) for span in spans]) if spans else (),
            )
            for (role, label, rank, score_context, columns, spans), (context, response, ids) in zip(
                items, texts, strict=True
            )
        ),
        comparisons=tuple([Comparison(*comparison) for comparison in comparisons]),
        weight=weight,
        domain=domain,
        user=user,
        source=source,
        line=line,
        conversation=conversation,
    )


def read_texts(data: bytes) -> list[tuple[Text, Text, tuple[int, ...] | None]]:
    """Per item (context, response, response ids or None)."""
    written, items = _read(data)
    texts = [text if isinstance(text, str) else tuple([Message(*turn) for turn in text]) for text in written]
    return [(texts[context], texts[response], None if ids is None else tuple(ids)) for context, response, ids in items]
