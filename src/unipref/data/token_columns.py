"""Numbers per response token that the texts alone decide: segments, and where the two sides of a pair differ."""

import difflib
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Item, plain_text
from unipref.data.encode import EncodedRecord
from unipref.data.operators import responses_of
from unipref.data.report import DataReport, RowFault

__all__ = ["PARTNER_COLUMNS", "TOKEN_COLUMNS", "spelled", "token_columns", "with_token_columns"]

TOKEN_COLUMNS = ("segment", "segment_score", "diff", "fresh")
PARTNER_COLUMNS = frozenset({"diff", "fresh"})  # of a response beside the one other that it is compared with
STOP_WORDS = (
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself "
    "it its itself they them their theirs themselves what which who whom this that these those am is are was were be "
    "been being have has had having do does did doing a an the and but if or because as until while of at by for with "
    "about against between into through during before after above below to from up down in out on off over under "
    "again further then once here there when where why how all any both each few more most other some such no nor not "
    "only own same so than too very can will just should now"
)
_PIECES: "weakref.WeakKeyDictionary[Any, dict[int, str]]" = weakref.WeakKeyDictionary()
_STOPS: "weakref.WeakKeyDictionary[Any, frozenset[int]]" = weakref.WeakKeyDictionary()


def token_columns(encoded: EncodedRecord, tokenizer: Any, names: Iterable[str]) -> dict[str, list[np.ndarray]]:
    """Per name and item of `encoded`, (len,) float32 over its scored tokens.

    - "segment": index of the span that the token's first character (white space aside) lies in; -1 outside of all, as
      for the token that ends the response and for a scored context.
    - "segment_score": that span's score; 0 outside.
    - "diff": 1 where the longest-matching-block alignment of the two responses' token ids replaces, deletes (in the
      loser) or inserts (in the winner) the token, and it is no English stop word; else 0. Source: the code of
      arXiv:2408.07471, which aligns prompt and padding too; here the responses alone, and frequent tokens count as
      all others do (difflib's `autojunk` is off).
    - "fresh": 0 on the tokens that both sides begin with, 1 from the first that differs. Source: arXiv:2405.00451.

    "diff" and "fresh" are of a pair; they are 0 for items that no comparison names. Characters meet tokens through
    the very ids that are trained on, never through a segment tokenised by itself.

    Args:
        tokenizer: the one that `encoded` was made with.

    Raises:
        ConfigError: there is no column of that name.
        DataError: a span has no score where scores are asked for, the tokens do not spell the response, or an item is
            in several comparisons, so that it has no one partner.
    """
    makers = {
        "segment": lambda: [_segments(encoded, i, tokenizer) for i in items],
        "segment_score": lambda: [_segment_scores(encoded, i, tokenizer) for i in items],
        "diff": lambda: _by_pair(encoded, lambda winner, loser: _diff(winner, loser, _stops(tokenizer))),
        "fresh": lambda: _by_pair(encoded, _fresh),
    }
    items = range(len(encoded.record.items))
    found = {}
    for name in names:
        if name not in makers:
            raise ConfigError(f"the data give no token column {name!r}{nearest(name, makers)}")
        found[name] = [column.astype(np.float32) for column in makers[name]()]
    return found


# ------------------------------------------------------------------------------------------------ characters of tokens


def spelled(ids: Sequence[int], tokenizer: Any) -> tuple[str, np.ndarray]:
    """The text of `ids`, and (len,) the character that each token starts at or, for a part of one, in.

    Bytes of one character that are spread over several tokens are decoded together.
    """
    pieces = _PIECES.setdefault(tokenizer, {})
    lead = tokenizer("a", add_special_tokens=False)["input_ids"][:1]
    size = len(_decode(lead, tokenizer))
    text, starts, run = "", [], []
    for token in ids:
        run.append(token)
        if len(run) == 1:
            if token not in pieces:
                pieces[token] = _decode([*lead, token], tokenizer)[size:]
            piece = pieces[token]
        else:
            piece = _decode([*lead, *run], tokenizer)[size:]
        # A replacement character at the end is the first part of a character whose other bytes are to come.
        starts.append(len(text))
        if not piece.endswith("\ufffd"):
            if len(run) > 1:
                starts[-len(run) :] = _starts_in_run(run, lead, size, len(text), tokenizer)
            text += piece
            run = []
    if run:
        starts[-len(run) :] = _starts_in_run(run, lead, size, len(text), tokenizer)
        text += _decode([*lead, *run], tokenizer)[size:].rstrip("\ufffd")
    return text, np.array(starts, dtype=np.int64)


def _starts_in_run(run: list[int], lead: list[int], size: int, at: int, tokenizer: Any) -> list[int]:
    before = [_decode([*lead, *run[:k]], tokenizer)[size:].rstrip("\ufffd") for k in range(len(run))]
    return [at + len(text) for text in before]


def _decode(ids: list[int], tokenizer: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _places(item: Item, text: str) -> list[tuple[int, int, int]]:
    """(start in the decoded text, start in the response, length) of each part that both have, the response's end
    cut off where the decoded text ends."""
    messages = [item.response] if isinstance(item.response, str) else [m.content for m in item.response]
    places, at, base = [], 0, 0
    for content in messages:
        words = content.strip()
        while at < len(text):
            shared = min(len(words), len(text) - at)
            if text[at : at + shared] == words[:shared]:
                break
            at += 1
        else:
            break
        places.append((at, base + len(content) - len(content.lstrip()), shared))
        at += shared
        base += len(content) + len("\n\n")
    return places


def _characters(encoded: EncodedRecord, item: int, tokenizer: Any) -> np.ndarray:
    """(len,) character of the response that each scored token's first one is, white space aside; -1 for none."""
    facts = encoded.record.items[item]
    context, scored = encoded.ids(item)
    text, starts = spelled([*context, *scored][-encoded.n_response[item] :], tokenizer)
    places = _places(facts, text)
    if not places:
        raise DataError(
            f"the tokens of record {encoded.record.id!r}, item {item}, spell {text[:40]!r}, which is not in its "
            f"response {plain_text(facts.response)[:40]!r}; its spans cannot be placed. Leave the spans out, or use a "
            "tokenizer that keeps the text"
        )
    ends = np.append(starts[1:], len(text))
    found = np.full(max(len(scored), len(starts)), -1, dtype=np.int64)
    skip = len(found) - len(starts)
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        piece = text[start:end]
        first = start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)
        for place, base, length in places:
            if place <= first < place + length:
                found[skip + k] = base + first - place
    return found[len(found) - len(scored) :]


def _segments(encoded: EncodedRecord, item: int, tokenizer: Any) -> np.ndarray:
    spans = encoded.record.items[item].spans
    if not spans:
        return np.full(len(encoded.trie.scored[item]), -1, dtype=np.int64)
    at = _characters(encoded, item, tokenizer)
    index = np.searchsorted([span.start for span in spans], at, side="right") - 1
    ends = np.array([span.end for span in spans])
    return np.where((at >= 0) & (index >= 0) & (at < ends[index]), index, -1)


def _segment_scores(encoded: EncodedRecord, item: int, tokenizer: Any) -> np.ndarray:
    scores = np.array([span.score for span in encoded.record.items[item].spans])
    if np.isnan(scores).any():
        raise DataError(
            f"record {encoded.record.id!r}, item {item}: segment {int(np.isnan(scores).argmax()) + 1} has no score; "
            "give chosen_segment_scores and rejected_segment_scores"
        )
    segment = _segments(encoded, item, tokenizer)
    return np.where(segment >= 0, np.append(scores, 0.0)[segment], 0.0)


# ------------------------------------------------------------------------------------------------- the sides of a pair


def _by_pair(encoded: EncodedRecord, of: Any) -> list[np.ndarray]:
    found = [np.zeros(len(scored)) for scored in encoded.trie.scored]
    seen: set[int] = set()
    for comparison in encoded.record.comparisons:
        sides = comparison.winner, comparison.loser
        if seen & set(sides):
            raise DataError(
                f"record {encoded.record.id!r} compares one response with several, so its tokens have no one partner "
                "to differ from; make pairs with which='best_worst'"
            )
        seen |= set(sides)
        for side, column in zip(sides, of(encoded.ids(sides[0]), encoded.ids(sides[1])), strict=True):
            found[side] = column
    return found


def _diff(winner: tuple[list[int], list[int]], loser: tuple[list[int], list[int]], stops: frozenset[int]) -> Any:
    better, worse = winner[1], loser[1]
    columns = [np.zeros(len(better)), np.zeros(len(worse))]
    for tag, a, a_end, b, b_end in difflib.SequenceMatcher(None, worse, better, autojunk=False).get_opcodes():
        if tag != "equal":
            columns[1][a:a_end] = 1
            columns[0][b:b_end] = 1
    for column, ids in zip(columns, (better, worse), strict=True):
        column[[i for i, token in enumerate(ids) if token in stops]] = 0
    return columns


def _fresh(winner: tuple[list[int], list[int]], loser: tuple[list[int], list[int]]) -> Any:
    better, worse = winner[1], loser[1]
    shared = 0
    if winner[0] == loser[0]:
        pairs = zip(better, worse, strict=False)
        shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(better), len(worse)))
    return [(np.arange(len(ids)) >= shared).astype(float) for ids in (better, worse)]


def _stops(tokenizer: Any) -> frozenset[int]:
    """Ids of the stop words that are one token: lower and capitalised, with and without a space before them."""
    if tokenizer not in _STOPS:
        forms = [space + word for w in STOP_WORDS.split() for word in (w, w.capitalize()) for space in ("", " ")]
        ids = tokenizer(forms, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        _STOPS[tokenizer] = frozenset(found[0] for found in ids if len(found) == 1)
    return _STOPS[tokenizer]


def with_token_columns(
    encoded: Sequence[EncodedRecord], tokenizer: Any, names: Sequence[str], *, strict: bool
) -> tuple[list[EncodedRecord], list[dict[str, list[np.ndarray]]], DataReport]:
    """Those of `encoded` whose token columns `names` can be made, the columns of each, and the account of the others.

    Raises:
        DataError: a column cannot be made and `strict` is set.
    """
    report = DataReport(n_read=len(encoded))
    kept, columns = [], []
    for one in encoded:
        record = one.record
        try:
            if "segment" in names and not all(record.items[i].spans for i in responses_of(record)):
                raise RowFault("a response has no segments")
            try:
                columns.append(token_columns(one, tokenizer, names) if names else {})
            except DataError as err:
                raise RowFault("what a method reads per token cannot be made", str(err)) from err
            kept.append(one)
        except RowFault as fault:
            report.drop(fault, source=record.source or record.id, line=record.line, strict=strict)
    report.n_kept = len(kept)
    return kept, columns, report
