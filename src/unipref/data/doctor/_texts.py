"""Checks of the texts: templates and speakers spelled out, prompts said again, shared beginnings, languages."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from unipref.core.findings import Finding
from unipref.core.records import Text, last_user_turn, plain_text
from unipref.data.doctor._checks import FEW, MANY, MOST, graded, worst
from unipref.data.doctor._near import normal
from unipref.data.doctor._view import View, counted, ends, not_checked, percent
from unipref.data.operators import digest, responses_of
from unipref.data.prompts import shared_length

__all__ = ["languages", "markers_in", "other_speaker", "prompt_repeated", "same_but_for_space", "shared_start"]
__all__ += ["template_markers"]

_MARKERS = re.compile(  # of the chat templates in use; one that text holds for other reasons (<s>, <b>) is not here
    r"<\|(?:im_start|im_end|im_sep|begin_of_text|end_of_text|start_header_id|end_header_id|eot_id|endoftext|user|"
    r"assistant|system|end|bos|eos|eot|start_of_role|end_of_role|end_of_turn|START_OF_TURN_TOKEN|END_OF_TURN_TOKEN|"
    r"start|message|return|channel|User|Assistant)\|>"
    r"|<\uff5c(?:User|Assistant|begin\u2581of\u2581sentence|end\u2581of\u2581sentence)\uff5c>"
    r"|<(?:start_of_turn|end_of_turn|bos|eos)>|<</?SYS>>|\[/?INST\]|</s>"
)
_SPEAKER = re.compile(  # at the start of a line: after a blank one, or with a heading's marks before it
    r"(?:\n[ \t]*\n[ \t]*(?:Human|User|Assistant)|(?:^|\n)#{2,3} (?:Human|User|Assistant|Instruction|Response))[ \t]*:"
)
_SHORT_PROMPT = 20  # characters; an answer may well begin with a shorter one ("Hi", "Paris?")
_SHARED = 60  # characters, about a sentence: what two answers begin with in common by politeness is shorter
N_LANGUAGES = 2_000  # records looked at, as this is the dearest check of a text; shares are then known to 2 %
_LETTERS, _WIDE_LETTERS = 20, 8  # with fewer a text is too short to tell
_SURE = 0.8  # no bundled response, all of them English, is taken for another language with more than 0.3
_READ = 400  # characters of a text


def markers_in(text: str) -> list[str]:
    """Markers of chat templates that `text` spells."""
    return _MARKERS.findall(text) if "<" in text or "[" in text else []


def _parts(text: Text) -> Sequence[str]:
    return (text,) if isinstance(text, str) else [message.content for message in text]


def template_markers(view: View) -> Finding:
    """In messages the template writes the markers, so spelled ones are doubled; in plain text they may be meant."""
    rows, kinds, messages = [], Counter(), 0
    for row, record in enumerate(view.records):
        texts = {part for item in record.items for text in (item.context, item.response) for part in _parts(text)}
        found = {marker for text in texts for marker in markers_in(text)}
        if found:
            rows.append(row)
            kinds.update(sorted(found))
            messages += not isinstance(record.items[0].context, str)
    tally = counted(view, rows)
    n, of = tally["n"], tally["of"]
    if not n:
        return Finding("template-markers", "fine", "no text spells a chat template's markers", **tally)
    listed = ", ".join(f"{marker} ({count:,})" for marker, count in kinds.most_common(5))
    return Finding(
        "template-markers",
        worst(graded(messages, of, error=MANY), graded(n, of)),
        f"{n:,} of {of:,} records spell{ends(n)} a chat template's markers ({percent(n, of)}): {listed}",
        "give messages without them and let the template write them; they would stand there twice"
        if messages
        else "give messages in place of text that was templated by hand, so that every model gets its own markers",
        **tally,
    )


def other_speaker(view: View) -> Finding:
    rows = [row for row in range(len(view.records)) if any(_SPEAKER.search(text) for text in view.texts(row))]
    tally = counted(view, rows)
    n, of = tally["n"], tally["of"]
    return Finding(
        "other-speaker",
        graded(n, of, error=MOST),
        f"in {n:,} of {of:,} records a response goes on with another speaker's turn ({percent(n, of)})"
        if n
        else "no response goes on with another speaker's turn",
        "cut the response where its turn ends; the model would learn to speak for the user" if n else "",
        **tally,
    )


def prompt_repeated(view: View) -> Finding:
    rows = []
    for row, record in enumerate(view.records):
        for i in responses_of(record):
            prompt = normal(last_user_turn(record.items[i].context))
            if len(prompt) >= _SHORT_PROMPT and _begins(plain_text(record.items[i].response), prompt):
                rows.append(row)
                break
    tally = counted(view, rows)
    n, of = tally["n"], tally["of"]
    return Finding(
        "prompt-repeated",
        graded(n, of, error=MANY),
        f"in {n:,} of {of:,} records a response begins with its own prompt ({percent(n, of)})"
        if n
        else "no response begins with its own prompt",
        "give the response alone, or leave the column `prompt` out where both texts hold it" if n else "",
        **tally,
    )


def _begins(response: str, prompt: str) -> bool:
    # Only as much of the response as the prompt can fill, whatever its white space
    return normal(response[: 2 * len(prompt) + 200]).startswith(prompt)


def same_but_for_space(view: View) -> list[int]:
    """Records that compare two texts which only white space tells apart."""
    alike = (v for v in view.verdicts if v.winner.split(None, 3)[:3] == v.loser.split(None, 3)[:3])  # cheap first
    return sorted({v.row for v in alike if v.winner.split() == v.loser.split()})


def shared_start(view: View) -> Finding:
    """Where both sides begin alike, that part cancels in a difference of log-probabilities, but counts in a mean."""
    if not view.verdicts:
        return not_checked("shared-start", "the data have no comparisons")
    rows, inside = [], 0
    for v in view.verdicts:
        shared = shared_length(v.winner, v.loser)
        if shared >= _SHARED and 2 * shared >= min(len(v.winner), len(v.loser)):
            rows.append(v.row)
            inside += _inside_word(v.winner, shared) or _inside_word(v.loser, shared)
    among = [v.row for v in view.verdicts]
    tally = counted(view, rows, among)
    n, of = tally["n"], tally["of"]
    if not n:
        return Finding("shared-start", "fine", "chosen and rejected part soon after their start", **tally)
    return Finding(
        "shared-start",
        graded(n, of, warning=MOST),
        f"in {n:,} of {of:,} comparisons the two responses have at least half of the shorter one in common from its "
        f"start ({percent(n, of)}); in {inside:,} they part in the middle of a word",
        "if the common part is a prompt, give it as `prompt`; otherwise know that methods with a mean log-probability "
        "or a likelihood term count it",
        **tally,
    )


def _inside_word(text: str, cut: int) -> bool:
    """Whether `cut` parts a word; in scripts that write words without spaces no cut is said to."""
    around = text[cut - 1 : cut + 1]
    return len(around) == 2 and around.isalnum() and max(around) < "\u2e80"


def languages(view: View, *, seed: int) -> tuple[Finding, Finding, dict[str, Any]]:
    """Both findings about languages, and the table of them."""
    order = range(len(view.records))
    if len(view.records) > N_LANGUAGES:
        order = sorted(sorted(order, key=lambda row: digest(view.records[row], seed))[:N_LANGUAGES])
    pairs = {v.row: (v.winner, v.loser) for v in reversed(view.verdicts)}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    mixed, sure = [], []
    for row in order:
        spoken = [language(text) for text in (pairs.get(row) or view.texts(row))]
        domain = view.domains[row] if view.domains else "all"
        found[domain].update(spoken)
        told = [name for name in spoken if name != "unsure"]
        if len(told) > 1:
            sure.append(row)
            if len(set(told)) > 1:
                mixed.append(row)
    total = sum(found.values(), Counter())
    names = [name for name, _ in total.most_common() if name != "unsure"]
    table: dict[str, Any] = {
        name: {domain: counts[name] for domain, counts in sorted(found.items())} for name in [*names, "unsure"]
    }
    looked = f" of {len(order):,} records drawn from {len(view.records):,}" if len(order) < len(view.records) else ""
    return _languages(total, looked), _mixed(view, mixed, sure, looked), table


def _languages(total: Counter[str], looked: str) -> Finding:
    told = total.total() - total["unsure"]
    if not told:
        return not_checked("languages", "every response is too short for its language to be told")
    parts = [
        f"{name} {percent(n, told)}" for name, n in total.most_common(6) if name != "unsure" and n / told >= FEW / 10
    ]
    most = max(n for name, n in total.items() if name != "unsure")
    unsure = f"{total['unsure']:,} of {total.total():,} cannot be told, mostly for being short"
    says = f"responses{looked} are {', '.join(parts)}; {unsure}"
    return Finding("languages", "fine" if most / told >= 1 - FEW else "note", says, n=told, of=total.total())


def _mixed(view: View, mixed: list[int], sure: list[int], looked: str) -> Finding:
    if not sure:
        why = "no record has two responses that are long enough for their languages to be told"
        return not_checked("mixed-languages", why)
    tally = counted(view, mixed, sure)
    n, of = len(mixed), len(sure)
    return Finding(
        "mixed-languages",
        graded(n, of),
        f"in {n:,} of {of:,} records{looked} the responses are in different languages ({percent(n, of)})"
        if n
        else f"the responses of each record{looked} are in one language",
        "the language would be learnt as if it were the quality; look at these rows" if n else "",
        **tally,
    )


def language(text: str) -> str:
    """The ISO 639 code of the text's language; "unsure" where it is short or could be several."""
    text = text[:_READ]
    letters = [c for c in text if c.isalpha()]
    wide = sum(c >= "\u2e80" for c in letters)
    if len(letters) < (_WIDE_LETTERS if 2 * wide > len(letters) else _LETTERS):
        return "unsure"
    name, confidence = _identifier().classify(text)
    return name if confidence >= _SURE else "unsure"


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
