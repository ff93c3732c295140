"""Records to token tries: every token of prompt and response kept, none of the prompt scored.

Where the context ends is decided in the text that the chat template renders, not in tokens:

- "template": the context rendered with a generation prompt starts the rendered whole, and the cut is there.
- "turn": it does not (a thinking block that is opened for generation but absent from the history, as in
  DeepSeek-R1's template). The context rendered alone starts the whole, and the cut is where the two renderings part,
  after the header of the assistant's turn and before its words.
- Otherwise the template rewrites the context once a response follows, no cut is safe, and the record is set aside.
- "text": a standard prompt, with the tokenizer's own prefix (BOS) and none of its suffix, and EOS after the response.
- "ids": the response came as token ids.

An item whose context is scored too has its first token alone as context; a standard item whose column "continues" is
not 0 is the beginning of a response, and gets no EOS.

Tokens are those of the whole text where the cut falls between two of them; where a token would span the cut, the two
parts are tokenised apart, so no token is lost or shared. What a template writes after the special token that ends the
turn (a line break, as a rule) is dropped, as generation stops before it; a template that ends turns with no special
token gets EOS in place of that white space.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Item, Message, Record, Text, as_turns
from unipref.core.tries import Trie, build_trie
from unipref.data.prompts import shared_length
from unipref.data.report import DataReport, RowFault

__all__ = ["CONTINUES", "ENCODING", "EncodedRecord", "Encoder", "check_tokenizer", "encode", "encode_records"]

ENCODING = 1  # to be raised when the same records get other tokens than before: what was prepared is then made again

CONTINUES = "continues"  # column of an item whose response is a beginning: other than 0, no EOS stands behind it
_CHUNK = 1024  # records per tokenizer call: large enough to amortise it, small enough to bound memory


@dataclass(frozen=True, eq=False)
class EncodedRecord:
    """A record and its tokens.

    Attributes:
        record: as it came; item i of the trie is its item i.
        trie: of all items in order.
        n_cut_context: per item the tokens cut from its context.
        n_cut_response: per item the tokens cut from the end of its response; with any, its end token is lost.
        n_response: per item the tokens of its response; of a scored context, or where nothing predicts a response's
            first token, not the number of scored ones.
        boundary: per item how its context's end was found; the module's first lines list the words.
    """

    record: Record
    trie: Trie
    n_cut_context: tuple[int, ...]
    n_cut_response: tuple[int, ...]
    n_response: tuple[int, ...]
    boundary: tuple[str, ...]

    def ids(self, item: int) -> tuple[list[int], list[int]]:
        """(context ids, scored ids) of `item`, after truncation. A first token that nothing predicts is context; where
        the context is scored too, that token is all of it."""
        path = self.trie.token[self.trie.path(item)].tolist()
        cut = len(path) - len(self.trie.scored[item])
        return path[:cut], path[cut:]


class _Seam(NamedTuple):
    """Where the tokens of a response can be told from a part of the context alone.

    `start` is a character of the text, `ids` the context's tokens from there, `token` the special token that stands
    there ("" where there is none).
    """

    start: int
    ids: list[int]
    token: str


@dataclass(frozen=True, slots=True)
class _Cut:
    """Rendered text of one item and the character where its response starts."""

    text: str
    at: int
    boundary: str
    add_eos: bool = False


def check_tokenizer(tokenizer: Any, *, conversational: bool = False) -> None:
    """Refuse a tokenizer that cannot mark the end of a response or, for conversations, has no chat template.

    A padding token equal to EOS is fine: padding is never scored.

    Raises:
        ConfigError: see above; the message names the next step.
    """
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of {name!r} has no EOS token, so a model could not learn to stop; set one that its "
            "vocabulary has, e.g. tokenizer.eos_token = '</s>', and save it beside the model"
        )
    if conversational and not tokenizer.chat_template:
        raise ConfigError(
            f"the data are conversations, but the tokenizer of {name!r} has no chat template; take an instruction-"
            "tuned model's tokenizer, set tokenizer.chat_template, or give prompts and responses as plain text"
        )


def encode(
    record: Record, tokenizer: Any, *, max_length: int | None = None, truncate: str = "context_start"
) -> EncodedRecord:
    """`record` as tokens; `encode_records` says how.

    Raises:
        DataError: the record cannot be encoded.
        ConfigError: the tokenizer or an option does not fit.
    """
    encoded, _ = encode_records([record], tokenizer, max_length=max_length, truncate=truncate, strict=True)
    return encoded[0]


def encode_records(
    records: Sequence[Record],
    tokenizer: Any,
    *,
    max_length: int | None = None,
    truncate: str = "context_start",
    strict: bool = False,
) -> tuple[list[EncodedRecord], DataReport]:
    """`records` as token tries, and what happened to each.

    Args:
        tokenizer: a `transformers` tokenizer.
        max_length: most tokens of context and response together; None for no limit.
        truncate: "context_start" cuts the context from its start (BOS stays), by the same number of tokens for all
            items of a record that share it, and the end of a response only where it does not fit beside one context
            token. "end" cuts whatever lies past `max_length`; a response that this empties sets its record aside.
        strict: a record that cannot be encoded stops.

    Raises:
        ConfigError: the tokenizer has no EOS or no chat template where one is needed; an option does not fit.
        DataError: a record cannot be encoded and `strict` is set, or none can.
    """
    encoder = Encoder(tokenizer, max_length=max_length, truncate=truncate)
    encoded, report = encoder.encode(records, strict=strict)
    if records and not encoded:
        raise nothing_encoded(report)
    report.notes += encoder.notes()
    return encoded, report


def nothing_encoded(report: DataReport) -> DataError:
    """The error for records none of which could be encoded."""
    return DataError(
        f"none of {report.n_read} records can be encoded: {report.counts}. The first is {report.set_aside[0]}"
    )


class Encoder:
    """Records to tries, some at a time; `encode_records` says how, and what the arguments are.

    Attributes:
        counts: over all calls, "turn" responses whose generation the template opens with text that it then leaves out,
            "eos" responses that EOS was added to. Those of several encoders can be added up.
    """

    def __init__(self, tokenizer: Any, *, max_length: int | None = None, truncate: str = "context_start") -> None:
        if max_length is not None and max_length < 2:
            raise ConfigError(f"max_length must hold a context token and a response token: {max_length} is below 2")
        if truncate not in ("context_start", "end"):
            raise ConfigError(f"truncate is 'context_start' or 'end', not {truncate!r}")
        check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncate = truncate
        self.counts: Counter[str] = Counter()
        self._coder = _Coder(tokenizer)

    def encode(self, records: Sequence[Record], *, strict: bool = False) -> tuple[list[EncodedRecord], DataReport]:
        """`records` as tries, and what happened to each, without the notes on all of them.

        Raises:
            ConfigError: the records are conversations, and there is no chat template.
            DataError: a record cannot be encoded and `strict` is set.
        """
        if any(not isinstance(item.context, str) for record in records for item in record.items):
            check_tokenizer(self.tokenizer, conversational=True)
        coder = self._coder
        coder.n_altered = coder.n_eos_added = 0
        report = DataReport(n_read=len(records))
        encoded: list[EncodedRecord] = []
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            for record, found in zip(chunk, coder.ids(chunk), strict=True):
                try:
                    if isinstance(found, RowFault):
                        raise found
                    encoded.append(_assemble(record, found, self.max_length, self.truncate, coder.bos))
                except RowFault as fault:
                    report.drop(fault, source=record.source or record.id, line=record.line, strict=strict)
        report.n_kept = len(encoded)
        report.change("context cut to fit max_length", sum(any(e.n_cut_context) for e in encoded))
        report.change("response cut to fit max_length, its end lost", sum(any(e.n_cut_response) for e in encoded))
        report.change("response whose words the chat template alters", coder.n_altered)
        turns = sum(word == "turn" for e in encoded for word in e.boundary)
        self.counts.update({"turn": turns, "eos": coder.n_eos_added})
        return encoded, report

    def notes(self) -> list[str]:
        """What a reader should know of all that was encoded, one sentence each."""
        return encoding_notes(self.counts)


def encoding_notes(counts: Mapping[str, int]) -> list[str]:
    """The sentences for the counts of an `Encoder`, or for the sum of several."""
    notes = []
    if counts["turn"]:
        notes.append(
            f"The chat template opens {counts['turn']} responses for generation with text that it leaves out once "
            "they are given (a thinking block, as a rule); they are trained without it."
        )
    if counts["eos"]:
        notes.append(
            f"The chat template ends no turn with a special token; EOS was added to {counts['eos']} responses."
        )
    return notes


class _Coder:
    """Token ids of records with one tokenizer; texts that several items share are rendered and tokenised once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.bos = tokenizer.bos_token_id
        self.eos = tokenizer.eos_token_id
        self.n_eos_added = 0
        self.n_altered = 0
        # Added tokens that are not special (line breaks, tags, ...) may join with what follows and end no turn.
        self._special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._ends = tuple({*tokenizer.all_special_tokens, *self._special.values()})
        bare, framed = self._tokenise(["a"])[0], tokenizer("a")["input_ids"]
        start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
        self._prefix = framed[:start]
        # Some vocabularies begin every text with a space of their own; a continuation must not get one, so it is
        # tokenised behind something that no token joins with it. The empty lead is the last resort.
        spaced = tokenizer.convert_ids_to_tokens(bare)[0].startswith(("▁", "Ġ"))
        self._anchors = ("\n", "0", "") if spaced else ("",)

    def ids(self, records: Sequence[Record]) -> list[list[tuple[list[int], list[int], str]] | RowFault]:
        """Per record (context ids, response ids, boundary) per item, or why it has none."""
        rendered: dict[tuple[Text, bool], str] = {}
        cuts: list[list[_Cut] | RowFault] = []
        for record in records:
            try:
                cuts.append([self._cut(item, rendered) for item in record.items])
            except RowFault as fault:
                cuts.append(fault)
        flat = [cut for found in cuts if not isinstance(found, RowFault) for cut in found]
        before = self._table([cut.text[: cut.at] for cut in flat])
        seams = {cut: self._seam(cut.text[: cut.at], before[cut.text[: cut.at]]) for cut in flat}
        joint = self._table([cut.text[seam.start :] for cut, seam in seams.items()])
        after: dict[_Cut, list[int]] = {}
        spanning = []
        for cut, seam in seams.items():
            ids = joint[cut.text[seam.start :]]
            if ids[: len(seam.ids)] == seam.ids:
                after[cut] = ids[len(seam.ids) :]
            else:
                spanning.append(cut)
        leads = {cut: (seams[cut].token,) if seams[cut].token else self._anchors for cut in spanning}
        pieces = {lead for found in leads.values() for lead in found}
        alone = self._table([*sorted(pieces), *(lead + cut.text[cut.at :] for cut in spanning for lead in leads[cut])])
        for cut in spanning:
            ways = ((alone[lead + cut.text[cut.at :]], alone[lead]) for lead in leads[cut])
            after[cut] = next(ids[len(lead) :] for ids, lead in ways if ids[: len(lead)] == lead)
        return [
            found
            if isinstance(found, RowFault)
            else [
                self._finish(item, cut, before[cut.text[: cut.at]], after[cut])
                for item, cut in zip(record.items, found, strict=True)
            ]
            for record, found in zip(records, cuts, strict=True)
        ]

    def _seam(self, text: str, ids: list[int]) -> _Seam:
        """The last special token of a context: what follows is tokenised the same with or without what stands before.

        So the response needs no second pass over the whole context, and gets no white space that a SentencePiece
        vocabulary puts at the start of a text.
        """
        at = next((i for i in range(len(ids) - 1, -1, -1) if ids[i] in self._special), None)
        token = "" if at is None else self._special[ids[at]]
        if not token or token not in text:  # none, or one that the tokenizer matches in another spelling
            return _Seam(0, ids, "")
        return _Seam(text.rindex(token), ids[at:], token)

    def _finish(self, item: Item, cut: _Cut, context: list[int], rest: list[int]) -> tuple[list[int], list[int], str]:
        if isinstance(item.context, str):
            if not context:
                context = self._prefix or ([] if self.bos is None else [self.bos])
            elif self._prefix and context[: len(self._prefix)] != self._prefix:
                context = self._prefix + context
        if item.response_ids is not None:
            return context, list(item.response_ids), "ids"
        if cut.boundary == "text" and context == rest[:1] == [self.bos]:  # the text brought its own BOS
            rest = rest[1:]
        if cut.add_eos and (not rest or rest[-1] != self.eos):
            rest = [*rest, self.eos]
        return context, rest, cut.boundary

    def _cut(self, item: Item, rendered: dict[tuple[Text, bool], str]) -> _Cut:
        given = item.response_ids is not None
        if not item.response and not given:
            raise RowFault("no response")
        if given and not item.response_ids:
            raise RowFault("empty response", "response_ids")
        if isinstance(item.context, str):
            response = "" if given else item.response
            ends = not given and not item.columns.get(CONTINUES)
            return _Cut(item.context + response, len(item.context), "text", add_eos=ends)
        opened = self._render(item.context, True, rendered)
        if given:
            return _Cut(opened, len(opened), "ids")
        whole = self._render((*item.context, *item.response), False, rendered)
        kept = all(m.content in whole or _words(m.content) in _words(whole) for m in item.response)
        if whole.startswith(opened):
            self.n_altered += not kept
            return self._ended(whole, len(opened), "template")
        context = self._render(item.context, False, rendered)
        if not whole.startswith(context) or not opened.startswith(context):
            raise RowFault(
                "the chat template renders the context differently once a response follows",
                "no safe boundary; use another chat template or plain prompts and responses",
            )
        at = shared_length(opened, whole)
        words = whole.find(item.response[0].content.strip(), len(context))
        if words < 0 or not kept:
            raise RowFault(
                "the chat template changes the response's words", "no safe boundary; use another chat template"
            )
        return self._ended(whole, min(at, words), "turn")

    def _ended(self, whole: str, at: int, boundary: str) -> _Cut:
        """Cut off what follows the token that ends the turn."""
        text = whole[:at] + whole[at:].rstrip()
        add_eos = not text[at:].endswith(self._ends)
        if not text[at:]:
            raise RowFault("the chat template leaves nothing of the response")
        self.n_eos_added += add_eos
        return _Cut(text, at, boundary, add_eos)

    def _render(self, messages: tuple[Message, ...], opened: bool, rendered: dict[tuple[Text, bool], str]) -> str:
        key = (messages, opened)
        if key not in rendered:
            try:
                rendered[key] = self.tokenizer.apply_chat_template(
                    as_turns(messages), tokenize=False, add_generation_prompt=opened
                )
            except (jinja2.TemplateError, TypeError, IndexError) as err:
                raise RowFault("the chat template refuses the conversation", str(err)) from err
        return rendered[key]

    def _table(self, texts: Iterable[str]) -> dict[str, list[int]]:
        unique = list(dict.fromkeys(texts))
        return dict(zip(unique, self._tokenise(unique), strict=True))

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        full = [text for text in texts if text]
        if not full:
            return [[] for _ in texts]
        found = iter(
            self.tokenizer(full, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        )
        return [next(found) if text else [] for text in texts]


def _words(text: str) -> str:
    """`text` without white space, which templates may trim or add."""
    return "".join(text.split())


def _assemble(
    record: Record,
    found: list[tuple[list[int], list[int], str]],
    max_length: int | None,
    truncate: str,
    bos: int | None,
) -> EncodedRecord:
    """The trie of a record after truncation.

    Raises:
        RowFault: truncation empties a response, or two compared items have the same tokens.
    """
    contexts = [tuple(context) for context, _, _ in found]
    longest: dict[tuple[int, ...], int] = {}
    for context, (_, response, _) in zip(contexts, found, strict=True):
        longest[context] = max(longest.get(context, 0), len(response))
    items, n_context, n_cut, n_response = [], [], [], []
    for item, (context, response, _), key in zip(record.items, found, contexts, strict=True):
        reach = longest[key]
        kept, answer = context, response
        if max_length is not None and truncate == "end":
            kept, answer = context[:max_length], response[: max(max_length - len(context), 0)]
        elif max_length is not None and len(context) + reach > max_length:
            answer = response[: max_length - 1] if context else response[:max_length]
            kept = _keep_end(context, max(max_length - reach, 1), bos)
        if len(answer) + min(len(kept), 1) < 2:
            raise RowFault(
                "truncation leaves nothing of a response", f"context {len(context)}, max_length {max_length}"
            )
        items.append((kept[:1], [*kept[1:], *answer]) if item.score_context else (kept, answer))
        n_context.append(len(context) - len(kept))
        n_cut.append(len(response) - len(answer))
        n_response.append(len(answer))
    for comparison in record.comparisons:
        better, worse = items[comparison.winner], items[comparison.loser]
        if better[1] == worse[1] and better[0] == worse[0]:  # contexts are long, and mostly the same
            why = "truncation leaves" if any(n_cut) or any(n_context) else "the tokenizer or template makes"
            raise RowFault(f"{why} the compared responses identical")
    boundaries = tuple(boundary for _, _, boundary in found)
    return EncodedRecord(record, build_trie(items), tuple(n_context), tuple(n_cut), tuple(n_response), boundaries)


def _keep_end(context: list[int], n: int, bos: int | None) -> list[int]:
    """The last `n` tokens of `context`, the first of them replaced by its BOS where it starts with one."""
    if n >= len(context):
        return context
    if context[0] == bos:
        return [bos, *context[len(context) - n + 1 :]]
    return context[-n:]
