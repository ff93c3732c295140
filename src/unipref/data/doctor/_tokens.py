"""The doctor's look at tokens: what the template, the tokenizer and `max_length` make of records."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.core.findings import Finding, TokenRow
from unipref.core.records import Item, Message, Record, Text, as_turns, plain_text
from unipref.data.doctor._checks import ASKED_OF_TOKENS, HALF, MANY, MOST, graded
from unipref.data.doctor._texts import markers_in
from unipref.data.doctor._view import View, counted, ends, not_checked, percent, place, view_of
from unipref.data.encode import CONTINUES, EncodedRecord, check_tokenizer, encode, encode_records
from unipref.data.operators import digest
from unipref.data.report import DataReport, RowFault, SetAside

__all__ = ["N_RECORDS", "examine_tokens"]

N_RECORDS = 10_000  # records that are tokenised; more are sampled, as a share of them is known to 1 % then
_BATCH = 8  # records of a batch of a plain trainer, to say what padding costs one
_REASONS = {
    "template-refuses": ("the chat template refuses",),
    "prompt-not-prefix": ("the chat template renders the context differently",),
    "template-alters": ("the chat template changes", "the chat template leaves nothing"),
    "lost-to-length": (
        "truncation leaves",
        "the tokenizer or template makes the compared responses identical",
    ),
}
_ASKED_OF_ENCODED = ("turn-boundary", "bos-twice", "turn-end", "cut-contexts", "cut-responses", "unknown-tokens")


def examine_tokens(
    records: Sequence[Record],
    tokenizer: Any,
    *,
    max_length: int | None,
    rows: int = 3,
    stop_ids: Collection[int] = (),
    truncate: str = "context_start",
    seed: int = 0,
) -> tuple[list[Finding], dict[str, dict[str, Any]], list[TokenRow]]:
    """One finding for every check of tokens, in the order of `CHECKS`, tables of facts, and some rows token by token.

    Looks at the tokens that training sees, by `encode_records`. Of more than 10,000 records it tokenises a sample,
    and says so.

    Args:
        max_length, truncate: as in `encode_records`.
        rows: records to show token by token; those that `max_length` cuts come first.
        stop_ids: ids that end a generation with this model (`generation_config.eos_token_id`); without them only the
            tokenizer's EOS is known to.
        seed: of the sample.

    Raises:
        ConfigError: `max_length` or `truncate` is no option of `encode_records`.
    """
    drawn = list(records)
    if len(records) > N_RECORDS:
        places = sorted(sorted(range(len(records)), key=lambda k: digest(records[k], seed))[:N_RECORDS])
        drawn = [records[k] for k in places]
    view = view_of(drawn, DataReport())
    conversational = any(not isinstance(item.context, str) for record in drawn for item in record.items)
    try:
        check_tokenizer(tokenizer, conversational=conversational)
    except ConfigError as err:
        return _without_tokens(str(err)), _frame(tokenizer), []
    encoded, report = _encoded(drawn, tokenizer, max_length, truncate)
    look = _Look(view, tokenizer, encoded, report, max_length, frozenset(stop_ids))
    answers = [
        Finding(
            "chat-template",
            "fine",
            "the tokenizer has an end token" + (" and a chat template" if conversational else ""),
        ),
        look.refused("template-refuses", "the chat template refuses {} conversations", "no conversation is refused"),
        look.refused(
            "prompt-not-prefix",
            "in {} records the prompt as it is rendered alone does not begin the prompt with its response",
            "every rendered prompt begins the text of prompt and response",
        ),
        look.turn_boundary(),
        look.template_alters(),
        look.bos_twice(),
        look.turn_end(),
        look.padding(),
        look.cut_contexts(),
        look.cut_responses(),
        look.lost_to_length(),
        look.unknown_tokens(),
        look.markers_as_text(),
    ]
    assert [finding.code for finding in answers] == list(ASKED_OF_TOKENS)
    if not encoded:
        why = "; ".join(f"{count:,} x {reason}" for reason, count in report.counts.items()) or "there are none"
        lost = f"no record could be tokenised ({why})"
        answers = [not_checked(a.code, lost) if a.code in _ASKED_OF_ENCODED else a for a in answers]
    facts = _frame(tokenizer)
    facts["Records tokenised"] = {"records": len(drawn), "of": len(records), "used": len(encoded)}
    if report.set_aside:
        facts["Records that could not be tokenised"] = dict(report.counts)
    if encoded:
        facts |= _lengths(encoded)
    return answers, facts, _token_rows(encoded, tokenizer, rows, truncate)


def _without_tokens(why: str) -> list[Finding]:
    first, *others = ASKED_OF_TOKENS
    reason = "the tokenizer lacks what tokenising needs; see chat-template"
    return [Finding(first, "error", why), *(not_checked(code, reason) for code in others)]


def _encoded(
    records: Sequence[Record], tokenizer: Any, max_length: int | None, truncate: str
) -> tuple[list[EncodedRecord], DataReport]:
    """As `encode_records`, but where no record at all can be encoded the report still says why for each."""
    try:
        return encode_records(records, tokenizer, max_length=max_length, truncate=truncate)
    except DataError:
        report = DataReport(n_read=len(records))
        for record in records:
            try:
                encode(record, tokenizer, max_length=max_length, truncate=truncate)
            except DataError as err:
                fault = err.__cause__
                assert isinstance(fault, RowFault)
                report.drop(fault, source=record.source or record.id, line=record.line, strict=False)
        return [], report


@dataclass(frozen=True)
class _Look:
    """Records, their tokens, and one method for every check."""

    view: View
    tokenizer: Any
    encoded: Sequence[EncodedRecord]
    report: DataReport
    max_length: int | None
    stop_ids: frozenset[int]

    def tally(self, hits: Iterable[Record], among: Iterable[Record] | None = None) -> dict[str, Any]:
        rows = {id(record): row for row, record in enumerate(self.view.records)}
        of = None if among is None else [rows[id(record)] for record in among]
        return counted(self.view, [rows[id(record)] for record in hits], of)

    def aside(self, code: str) -> list[Record]:
        """Records that could not be encoded for the reasons of `code`."""
        lost = [row for row in self.report.set_aside if row.reason.startswith(_REASONS[code])]
        known: dict[tuple[str, int | None], Record] = {(r.source or r.id, r.line): r for r in self.view.records}
        return [known[row.source, row.line] for row in lost]

    def detail(self, code: str) -> str:
        kinds = Counter(_kind(row) for row in self.report.set_aside if row.reason.startswith(_REASONS[code]))
        return "; ".join(f"{count:,} x {kind}" for kind, count in kinds.most_common(3))

    def refused(self, code: str, says: str, fine: str) -> Finding:
        tally = self.tally(self.aside(code))
        n, of = tally["n"], tally["of"]
        return Finding(
            code,
            graded(n, of, error=MOST),
            f"{says.format(f'{n:,} of {of:,}')} ({percent(n, of)}), set aside: {self.detail(code)}" if n else fine,
            "use the chat template of another model, or give plain prompts and responses" if n else "",
            **tally,
        )

    def turn_boundary(self) -> Finding:
        hit = [e.record for e in self.encoded if "turn" in e.boundary]
        tally = self.tally(hit, [e.record for e in self.encoded])
        if not hit:
            says = "what opens a response for generation is what stands before it in training"
            return Finding("turn-boundary", "fine", says, **tally)
        return Finding(
            "turn-boundary",
            "note",
            f"in {len(hit):,} of {tally['of']:,} records the template opens a response for generation with text that "
            "it leaves out once the response is given (a thinking block, as a rule); training is without it",
            "generate with the block closed (as the template's own option does), or with a template that keeps it",
            **tally,
        )

    def template_alters(self) -> Finding:
        aside = self.aside("template-alters")
        altered = self.report.changed.get("response whose words the chat template alters", 0)
        kept = [e.record for e in self.encoded if altered and self._alters(e.record)]
        tally = self.tally([*aside, *kept])
        n, of = tally["n"], tally["of"]
        if not n:
            return Finding("template-alters", "fine", "the template leaves every response's words as they are", **tally)
        return Finding(
            "template-alters",
            graded(n, of, error=MANY),
            f"the template changes the words of responses in {n:,} of {of:,} records ({percent(n, of)}); "
            f"{len(aside):,} of them are set aside",
            "a template that drops thinking from the history does this; use another, or take it out of the responses",
            **tally,
        )

    def _alters(self, record: Record) -> bool:
        for item in record.items:
            if not isinstance(item.context, str) and item.response_ids is None:
                whole = _squeezed(self._rendered((*item.context, *item.response)))
                if any(_squeezed(message.content) not in whole for message in item.response):
                    return True
        return False

    def _rendered(self, messages: Sequence[Message]) -> str:
        return self.tokenizer.apply_chat_template(as_turns(messages), tokenize=False)

    def bos_twice(self) -> Finding:
        """BOS that a text spells, in a response or doubled at the start. A template that writes BOS before every turn
        of the user means it."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is None:
            return not_checked("bos-twice", "the tokenizer has no token that begins a text")
        if bos == eos:
            return not_checked("bos-twice", "the token that begins a text also ends it, so it may stand there twice")
        hit = [e.record for e in self.encoded if any(self._doubled(e, i, bos) for i in range(e.trie.n_items))]
        tally = self.tally(hit, [e.record for e in self.encoded])
        both = self._adds_bos() and self._template_writes_bos()
        name = self.tokenizer.bos_token
        if not hit:
            says = f"{name} stands at most where the template or the tokenizer puts it, once"
            if both:
                says += "; both would write it, and the text is tokenised so that only one does"
            return Finding("bos-twice", "fine", says, **tally)
        return Finding(
            "bos-twice",
            "error",  # whatever their number: no text that the model was trained on or will be given looks like this
            f"in {len(hit):,} of {tally['of']:,} records {name} stands a second time, because the texts spell it",
            f"take {name} out of the texts; template and tokenizer write it",
            **tally,
        )

    def _doubled(self, encoded: EncodedRecord, i: int, bos: int) -> bool:
        item = encoded.record.items[i]
        if item.score_context:
            return _spells(item.context, self.tokenizer.bos_token)
        context, response = encoded.ids(i)
        if context[:2] == [bos, bos] or bos in response:
            return True
        # after a cut the text may be gone from the tokens; one that is still there counts
        return bos in context[1:] and _spells(item.context, self.tokenizer.bos_token)

    def _adds_bos(self) -> bool:
        return self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]

    def _template_writes_bos(self) -> bool:
        if not self.tokenizer.chat_template:
            return False
        try:
            return self._rendered((Message("user", "a"),)).startswith(self.tokenizer.bos_token)
        except jinja2.TemplateError:
            return False

    def turn_end(self) -> Finding:
        stops = self.stop_ids | {self.tokenizer.eos_token_id}
        lasts: Counter[int] = Counter()
        missed = []
        for e in self.encoded:
            for i, item in enumerate(e.record.items):
                if not (e.n_cut_response[i] or item.columns.get(CONTINUES) or item.response_ids is not None):
                    last = int(e.trie.token[e.trie.last[i]])
                    lasts[last] += 1
                    if last not in stops and (not missed or missed[-1] is not e.record):
                        missed.append(e.record)
        if not lasts:
            return not_checked("turn-end", "no response has an end: all are cut, beginnings, or given as token ids")
        tally = self.tally(missed, [e.record for e in self.encoded])
        names = ", ".join(f"{self._token(token)} ({count:,})" for token, count in lasts.most_common(3))
        stop_names = ", ".join(map(self._token, sorted(stops)))
        if not missed:
            says = f"responses end with {names}; generation stops at {stop_names}"
            eos_added = any("EOS was added" in note for note in self.report.notes)
            says += " (the template ends no turn with a special token, so EOS was added)" if eos_added else ""
            return Finding("turn-end", "fine", says, **tally)
        known = bool(self.stop_ids)
        return Finding(
            "turn-end",
            "error" if known else "warning",  # without the model it may well stop there
            f"responses end with {names}, but generation stops at {stop_names}"
            + ("" if known else " as far as the tokenizer says; the model's generation_config was not given"),
            "add the turn's end to eos_token_id in the model's generation_config.json, or the model will not stop",
            **tally,
        )

    def _token(self, token: int) -> str:
        return f"{self.tokenizer.convert_ids_to_tokens(token)}"

    def padding(self) -> Finding:
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        if pad is None:
            says = "the tokenizer has no padding token; none is needed, as rows are packed and never padded by token"
            return Finding("padding", "fine", says)
        if pad == eos:
            says = (
                f"padding and the end are one token ({self.tokenizer.eos_token}); here that is fine, as what is scored "
                "is known by position, and no end token is masked because padding looks like it"
            )
            return Finding("padding", "fine", says)
        return Finding("padding", "fine", f"padding ({self.tokenizer.pad_token}) is not the end token")

    def cut_contexts(self) -> Finding:
        if self.max_length is None:
            return not_checked("cut-contexts", "there is no max_length")
        hit = [e.record for e in self.encoded if any(e.n_cut_context)]
        tally = self.tally(hit, [e.record for e in self.encoded])
        n, of = tally["n"], tally["of"]
        lost = sorted(max(e.n_cut_context) for e in self.encoded if any(e.n_cut_context))
        return Finding(
            "cut-contexts",
            graded(n, of, warning=MANY),
            f"in {n:,} of {of:,} records the prompt loses its beginning to max_length {self.max_length} "
            f"({percent(n, of)}; {lost[len(lost) // 2]:,} tokens at the median)"
            if n
            else f"every prompt fits into max_length {self.max_length}",
            f"max_length {self._enough()} would cut one record in a hundred" if n else "",
            **tally,
        )

    def _enough(self) -> int:
        """The length that 99 % of records need, rounded up to a multiple of 64."""
        longest = [
            max(
                int(e.trie.depth[e.trie.last[i]]) + 1 + e.n_cut_context[i] + e.n_cut_response[i]
                for i in range(e.trie.n_items)
            )
            for e in self.encoded
        ]
        return 64 * math.ceil(float(np.quantile(longest, 0.99)) / 64)

    def cut_responses(self) -> Finding:
        if self.max_length is None:
            return not_checked("cut-responses", "there is no max_length")
        hit = [e.record for e in self.encoded if any(e.n_cut_response)]
        tally = self.tally(hit, [e.record for e in self.encoded])
        n, of = tally["n"], tally["of"]
        if not n:
            return Finding("cut-responses", "fine", "every response keeps its end", **tally)
        winners, losers = self._cut_by_side()
        sides = ""
        if winners or losers:
            sides = f"; preferred ones: {winners:,}, others: {losers:,}"
            if winners - losers > 2 * math.sqrt(winners + losers):  # two standard deviations of fair coins
                sides += ", so that the preferred ones lose their end more often"
        return Finding(
            "cut-responses",
            graded(n, of, error=HALF),  # then most of what the model learns of endings is that there are none
            f"in {n:,} of {of:,} records a response is cut at max_length {self.max_length} and its end token is not "
            f"trained ({percent(n, of)}){sides}",
            f"max_length {self._enough()} would cut one record in a hundred; or leave long rows out",
            **tally,
        )

    def _cut_by_side(self) -> tuple[int, int]:
        winners = losers = 0
        for e in self.encoded:
            for c in e.record.comparisons:
                winner, loser = (c.winner, c.loser) if c.preference >= 0.5 else (c.loser, c.winner)
                winners += e.n_cut_response[winner] > 0
                losers += e.n_cut_response[loser] > 0
        return winners, losers

    def lost_to_length(self) -> Finding:
        code = "lost-to-length"
        tally = self.tally(self.aside(code))
        n, of = tally["n"], tally["of"]
        return Finding(
            code,
            graded(n, of, error=MOST),
            f"in {n:,} of {of:,} records a response becomes empty or the same as the other ({percent(n, of)}), set "
            f"aside: {self.detail(code)}"
            if n
            else "no response becomes empty or identical",
            "a larger max_length keeps them; responses that only white space told apart say nothing" if n else "",
            **tally,
        )

    def unknown_tokens(self) -> Finding:
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown == self.tokenizer.eos_token_id:
            return Finding("unknown-tokens", "fine", "the vocabulary spells every text; it has no unknown token")
        hit = [e.record for e in self.encoded if (e.trie.token == unknown).any()]
        tally = self.tally(hit, [e.record for e in self.encoded])
        n, of = tally["n"], tally["of"]
        total = sum(e.trie.n_nodes for e in self.encoded)
        count = sum(int((e.trie.token == unknown).sum()) for e in self.encoded)
        return Finding(
            "unknown-tokens",
            graded(n, of, error=MOST),
            f"in {n:,} of {of:,} records there are characters that the vocabulary cannot spell ({count:,} of {total:,} "
            f"tokens are {self.tokenizer.unk_token})"
            if n
            else "the vocabulary spells every text",
            "replace these characters, or use a model whose vocabulary has them" if n else "",
            **tally,
        )

    def markers_as_text(self) -> Finding:
        known: dict[str, bool] = {}
        hit, kinds = [], Counter()
        for record in self.view.records:
            texts = {plain_text(text) for item in record.items for text in (item.context, item.response)}
            strange = {m for text in texts for m in markers_in(text) if not self._is_token(m, known)}
            if strange:
                hit.append(record)
                kinds.update(sorted(strange))
        tally = self.tally(hit)
        n, of = tally["n"], tally["of"]
        listed = ", ".join(f"{marker} ({count:,})" for marker, count in kinds.most_common(5))
        return Finding(
            "markers-as-text",
            graded(n, of, error=MANY),
            f"{n:,} of {of:,} records spell{ends(n)} markers that are no tokens of this tokenizer ({percent(n, of)}): "
            f"{listed}"
            if n
            else "every marker that a text spells is a token of this tokenizer",
            "the texts were templated for another model; give messages, and each model's template writes its own"
            if n
            else "",
            **tally,
        )

    def _is_token(self, marker: str, known: dict[str, bool]) -> bool:
        if marker not in known:
            known[marker] = len(self.tokenizer(marker, add_special_tokens=False)["input_ids"]) == 1
        return known[marker]


def _kind(row: SetAside) -> str:
    return row.reason + (f" ({row.detail})" if row.detail and row.reason.startswith("the chat template ref") else "")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _spells(text: Text, token: str) -> bool:
    return token in plain_text(text)


def _frame(tokenizer: Any) -> dict[str, dict[str, Any]]:
    """What begins, ends and fills texts."""

    def named(name: str | None, token: int | None) -> str:
        return "none" if token is None else f"{name} ({token})"

    return {
        "Tokenizer": {
            "name": str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
            "vocabulary": len(tokenizer),
            "chat template": "yes" if tokenizer.chat_template else "none",
            "begins texts (BOS)": named(tokenizer.bos_token, tokenizer.bos_token_id),
            "ends texts (EOS)": named(tokenizer.eos_token, tokenizer.eos_token_id),
            "padding": named(tokenizer.pad_token, tokenizer.pad_token_id),
            "unknown": named(tokenizer.unk_token, tokenizer.unk_token_id),
        }
    }


def _lengths(encoded: Sequence[EncodedRecord]) -> dict[str, dict[str, Any]]:
    """Tokens before anything is cut, and what the same rows cost in the common layouts."""
    lengths: dict[str, list[int]] = {"prompts": [], "responses": []}
    rows = []
    for e in encoded:
        kept = (e.trie.depth[e.trie.last] + 1).tolist()
        rows.append(kept)
        for i, total in enumerate(kept):
            lengths["responses"].append(e.n_response[i] + e.n_cut_response[i])
            lengths["prompts"].append(max(total - e.n_response[i], 0) + e.n_cut_context[i])
    alone = sum(map(sum, rows))
    shared = sum(e.trie.n_nodes for e in encoded)
    padded = 0
    for start in range(0, len(rows), _BATCH):
        batch = [length for kept in rows[start : start + _BATCH] for length in kept]
        padded += max(batch) * len(batch)
    return {
        "Length in tokens": {
            name: {
                "texts": len(found),
                "median": round(float(np.median(found))),
                "95 %": round(float(np.quantile(found, 0.95))),
                "longest": max(found),
            }
            for name, found in lengths.items()
        },
        "Tokens of an epoch": {
            f"padded to the longest of {_BATCH} records": padded,
            "every response with its prompt, unpadded": alone,
            "shared beginnings once, as here": shared,
            "padding saved": percent(padded - alone, padded),
            "sharing saved": percent(alone - shared, alone),
        },
    }


def _token_rows(encoded: Sequence[EncodedRecord], tokenizer: Any, rows: int, truncate: str) -> list[TokenRow]:
    """The tokens of some records, whole, with what was cut marked; one record of each kind of cut first."""
    kinds: dict[tuple[bool, bool, str], EncodedRecord] = {}
    for e in encoded:
        kinds.setdefault((any(e.n_cut_response), any(e.n_cut_context), e.boundary[0]), e)
    plain = [e for key, e in kinds.items() if not (key[0] or key[1])][:1]
    cut = [e for key, e in sorted(kinds.items(), key=lambda pair: pair[0][:2], reverse=True) if key[0] or key[1]]
    order = {id(e): e for e in (*plain, *cut, *kinds.values(), *encoded[:rows])}
    shown = list(order.values())[:rows]
    return [row for e in shown for row in _rows_of(e, tokenizer, truncate)]


def _rows_of(encoded: EncodedRecord, tokenizer: Any, truncate: str) -> Iterable[TokenRow]:
    record = encoded.record
    whole = encode(record, tokenizer) if any((*encoded.n_cut_context, *encoded.n_cut_response)) else encoded
    for i in _shown_items(record):
        context, response = whole.ids(i)
        n_context, n_response = encoded.n_cut_context[i], encoded.n_cut_response[i]
        if truncate == "end":
            kinds = ["context"] * (len(context) - n_context) + ["cut"] * n_context
        else:
            first = int(context[0] == tokenizer.bos_token_id and n_context > 0)
            kinds = ["context"] * first + ["cut"] * n_context + ["context"] * (len(context) - n_context - first)
        kinds += ["scored"] * (len(response) - n_response) + ["cut"] * n_response
        tokens = tuple(
            (token_text(tokenizer, token), token, kind)
            for token, kind in zip((*context, *response), kinds, strict=True)
        )
        yield TokenRow(place(record), _name(record, i), encoded.boundary[i], tokens)


def _shown_items(record: Record) -> list[int]:
    if record.comparisons:
        c = record.comparisons[0]
        return [c.winner, c.loser] if c.preference >= 0.5 else [c.loser, c.winner]
    return list(range(min(len(record.items), 2)))


def _name(record: Record, i: int) -> str:
    if record.comparisons:
        c = record.comparisons[0]
        if i in (c.winner, c.loser) and c.preference != 0.5:
            return "chosen" if (i == c.winner) == (c.preference > 0.5) else "rejected"
    item: Item = record.items[i]
    return {True: "thumbs up", False: "thumbs down"}.get(item.label, item.role)


def token_text(tokenizer: Any, token: int) -> str:
    """What one token spells; its name in the vocabulary where it is a part of a character."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    text = tokenizer.decode([token])
    if "\ufffd" in text:
        return piece
    return f" {text}" if piece.startswith("\u2581") and not text.startswith(" ") else text
