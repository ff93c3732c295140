"""Pairs that principles make of questions with answers, votes and passages: each pair knows its principle."""

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Comparison, Item, Record, Text, last_user_turn, plain_text
from unipref.data.operators import LeftOut, Operator, Step, digest, each, responses_of
from unipref.data.report import DataReport
from unipref.data.segments import sentences
from unipref.data.selection import hashed_tfidf
from unipref.data.split import conversation_key

AXIOMS = ("usefulness", "relevance", "grounded_relevance", "truthfulness", "combination")
Pair = tuple[Item, Item, float | None]  # the better, the worse, by how much

_WORD = re.compile(r"\w+")
# The mark of a list's item is found too, without a group: it is no fact.
_NUMBER = re.compile(r"^[ \t]*[0-9]+[.)]\s|(?<![A-Za-z_0-9])([0-9]+)(?![A-Za-z_0-9])", re.MULTILINE)
_NAME = re.compile(r"(?<=[\w,;] )[A-Z][a-z]{2,}\b")
_NOT = re.compile(r"\b(is|are|was|were|can|will|should|does|did|has|have|must)( not)?\b")
_CHUNK = 512  # questions whose distances to all others are held at a time


@method(
    "axiomatic",
    kind="operator",
    status="reconstructed",
    source="arXiv:2312.02206, its abstract and summaries by others",
    formula="more votes > fewer | own > another question's | with evidence > without | true > altered | both > one",
    citation=Citation(
        "Axiomatic Preference Modeling for Longform Question Answering",
        ("Corby Rosset", "Guoqing Zheng", "Victor Dibia", "Ahmed Awadallah", "Paul Bennett"),
        2023,
        "2312.02206",
    ),
)
def axiomatic(
    *,
    axioms: tuple[str, ...] = AXIOMS,
    votes: str = "score",
    least: float = 1.0,
    evidence: str = "evidence",
    balance: bool = False,
    seed: int = 0,
) -> Operator:
    """Comparisons that follow from principles of a good answer, one record per question and principle.

    The principle is the record's `domain`, in place of the one it had, so that a model is fitted and judged by
    principle; everything else of the question comes along. An axiom that has nothing to say of a question makes no
    pair, and what it makes does not depend on which others are asked for. Pairs of equal texts are not made, those that
    two axioms order in opposite ways are; both are counted.

    Usefulness: an answer with more votes over one with fewer, at least `least` apart; the gap is the margin.

    Relevance: the best answer over the best one to the nearest other question, by words that both questions have.

    Grounded relevance: of answers that carry `evidence`, more over less. Where they carry none, the best answer over
    itself without the sentence that shares most words with the question's passage (an item of role "gold").

    Truthfulness: the best answer over itself with other numbers; without numbers, with another name; without names,
    with one verb negated, or no longer negated (English).

    Combination: the two best answers, one after the other, over each of them.

    The best answer is the one with most votes, the first where there are none. Generated pairs have marks of their own:
    combinations are longer, and votes go with age and length. See how far length and words alone get on them.

    Reconstructed: that five axioms make contrastive pairs for one preference model is the abstract's. Which five they
    are, and how each makes its pairs without a language model, is inferred.

    Args:
        axioms: those that make pairs.
        votes: the column of an answer's votes. Answers without a number are not compared by it.
        evidence: the column that says what an answer was written with: 1 for a passage that is about the question, 0
            for none, -1 for one about something else.
        balance: weigh the records so that every axiom counts alike in all.
        seed: of the numbers and names that are put in.
    """
    axioms = (axioms,) if isinstance(axioms, str) else tuple(axioms)
    for axiom in axioms:
        if axiom not in AXIOMS:
            raise ConfigError(f"axiomatic: no axiom named {axiom!r}{nearest(str(axiom), AXIOMS)}")
    if not axioms or len(set(axioms)) < len(axioms):
        raise ConfigError(f"axiomatic: axioms names each of some of {', '.join(AXIOMS)} once, not {list(axioms)}")
    if not least > 0:
        raise ConfigError(f"axiomatic: least is a number of votes above 0, not {least!r}; equal votes order nothing")

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        best = {id(record): _ranked(record, votes) for record in records}
        near = _nearest_other(records, best) if "relevance" in axioms else {}
        names = sorted({n for r in records for i in responses_of(r) for n in _NAME.findall(_words_of(r.items[i]))})
        same: Counter[str] = Counter()
        crossed = 0
        makers: dict[str, Callable[[Record, list[int]], list[Pair]]] = {
            "usefulness": lambda record, order: _useful(record, votes, least),
            "relevance": lambda record, order: _relevant(record, order, near.get(id(record))),
            "grounded_relevance": lambda record, order: _grounded(record, order, evidence),
            "truthfulness": lambda record, order: _true(record, order, names, seed),
            "combination": lambda record, order: _combined(record, order, votes),
        }

        def make(record: Record) -> list[Record]:
            nonlocal crossed
            made, seen = [], {}
            for axiom in axioms:
                found = makers[axiom](record, best[id(record)]) if best[id(record)] else []
                kept = [pair for pair in found if pair[0].response != pair[1].response]
                same[axiom] += len(found) - len(kept)
                for better, worse, _ in kept:
                    crossed += seen.get((worse.response, better.response), axiom) != axiom
                    seen[better.response, worse.response] = axiom
                if kept:
                    made.append(_record(record, axiom, kept))
            if not made:
                raise LeftOut("no axiom says anything of it")
            return made

        kept, report = each("axiomatic", {}, make, changed="compared by axioms", added="pairs by a further axiom")(
            records
        )
        if balance:
            total = Counter()
            for record in kept:
                total[record.domain] += record.weight * len(record.comparisons)
            share = sum(total.values()) / max(len(total), 1)
            kept = [replace(record, weight=record.weight * share / total[record.domain]) for record in kept]
        pairs = Counter()
        for record in kept:
            pairs[record.domain] += len(record.comparisons)
        report.notes.append("Pairs by axiom: " + ", ".join(f"{axiom} {pairs[axiom]:,}" for axiom in axioms) + ".")
        if same.total():
            told = ", ".join(f"{axiom} {n:,}" for axiom, n in same.items() if n)
            report.notes.append(f"{same.total():,} pairs of equal texts were not made ({told}).")
        if crossed:
            report.notes.append(f"{crossed:,} pairs are ordered one way by an axiom and the other way by another.")
        return kept, report

    options = {
        "axioms": axioms,
        "votes": votes,
        "least": least,
        "evidence": evidence,
        "balance": balance,
        "seed": seed,
    }
    return Step("axiomatic", options, run)


def _record(record: Record, axiom: str, pairs: Sequence[Pair]) -> Record:
    """`record` with the sides of `pairs` as its responses, each text once, and the axiom for its domain."""
    items: list[Item] = []
    comparisons = []
    for better, worse, margin in pairs:
        sides = []
        for item in (better, worse):
            if item not in items:
                items.append(item)
            sides.append(items.index(item))
        comparisons.append(Comparison(*sides, margin=margin))
    others = [item for item in record.items if item.role != "response"]
    return replace(record, items=(*items, *others), comparisons=tuple(comparisons), domain=axiom)


def _ranked(record: Record, votes: str) -> list[int]:
    """The answers from most votes to fewest, in their order where votes are equal or missing."""
    return sorted(
        responses_of(record),
        key=lambda i: -v if not math.isnan(v := record.items[i].columns.get(votes, math.nan)) else math.inf,
    )


def _useful(record: Record, votes: str, least: float) -> list[Pair]:
    return [(a, b, gap) for a, b, gap in _by_column(record, votes) if gap >= least]


def _by_column(record: Record, column: str) -> list[Pair]:
    """Answers with a higher number in `column` over those with a lower one."""
    there = [i for i in responses_of(record) if not math.isnan(record.items[i].columns.get(column, math.nan))]
    numbers = {i: record.items[i].columns[column] for i in there}
    return [
        (_side(record.items[i]), _side(record.items[j]), numbers[i] - numbers[j])
        for i, j in itertools.permutations(there, 2)
        if numbers[i] > numbers[j]
    ]


def _relevant(record: Record, order: list[int], other: Text | None) -> list[Pair]:
    if other is None or isinstance(other, str) is not isinstance(record.items[order[0]].response, str):
        return []
    own = _side(record.items[order[0]])
    return [(own, Item(own.context, other), None)]


def _grounded(record: Record, order: list[int], evidence: str) -> list[Pair]:
    if any(evidence in record.items[i].columns for i in order):
        return [(a, b, None) for a, b, _ in _by_column(record, evidence)]
    passage = {
        word for item in record.items if item.role == "gold" for word in _WORD.findall(_words_of(item).casefold())
    }
    own = _side(record.items[order[0]])
    text = _words_of(own)
    parts = sentences(text)
    shared = [len(passage & set(_WORD.findall(text[start:end].casefold()))) for start, end in parts]
    if len(parts) < 2 or not max(shared):
        return []
    start, end = parts[shared.index(max(shared))]
    left = " ".join(piece for piece in (text[:start].rstrip(), text[end:].lstrip()) if piece.strip())
    return [(own, _rewritten(own, text, left), None)]


def _true(record: Record, order: list[int], names: Sequence[str], seed: int) -> list[Pair]:
    own = _side(record.items[order[0]])
    text = _words_of(own)
    altered = altered_facts(text, names, random.Random(f"axiom {seed} {digest(record, seed).hex()}"))
    return [] if altered is None else [(own, _rewritten(own, text, altered), None)]


def _combined(record: Record, order: list[int], votes: str) -> list[Pair]:
    good = [i for i in order if not math.isnan(record.items[i].columns.get(votes, math.nan))][:2]
    if len(good) < 2:
        return []
    first, second = (_side(record.items[i]) for i in good)
    text = _words_of(first)
    both = _rewritten(first, text, f"{text.rstrip()}\n\n{_words_of(second).strip()}")
    return [(both, first, None), (both, second, None)]


def altered_facts(text: str, names: Sequence[str], rng: random.Random) -> str | None:
    """`text` with other numbers, or another name, or a verb negated; None where it has none of these.

    Example:
        >>> altered_facts("It is late.", [], random.Random(0))
        'It is not late.'
    """
    others = {number: _other_number(number, rng) for number in dict.fromkeys(filter(None, _NUMBER.findall(text)))}
    if others:
        return _NUMBER.sub(lambda match: others[match[1]] if match[1] else match[0], text)
    found = list(dict.fromkeys(_NAME.findall(text)))
    strangers = [name for name in names if name not in text]
    if found and strangers:
        return re.sub(rf"\b{found[0]}\b", rng.choice(strangers), text)
    verb = _NOT.search(text)
    if verb is None:
        return None
    return text[: verb.start()] + (verb[1] if verb[2] else f"{verb[1]} not") + text[verb.end() :]


def _other_number(number: str, rng: random.Random) -> str:
    """Another number of as many digits."""
    low = 10 ** (len(number) - 1) if len(number) > 1 else 0
    drawn = rng.randrange(low, 10 ** len(number) - 1)
    return str(drawn + (drawn >= int(number))).zfill(len(number))


def _nearest_other(records: Sequence[Record], best: Mapping[int, list[int]]) -> dict[int, Text]:
    """Of every record the best answer to the question that is nearest to its own and not the same."""
    asked = [record for record in records if best[id(record)]]
    questions = [last_user_turn(record.items[best[id(record)][0]].context) for record in asked]
    keys = np.array([conversation_key(question) for question in questions], dtype=object)
    answers = [record.items[best[id(record)][0]].response for record in asked]
    vectors = hashed_tfidf(questions)
    # the nearest is the same in any order of the records: of equally near ones the first by its own words
    rank = np.argsort(np.argsort([f"{key}\x00{plain_text(a)}" for key, a in zip(keys, answers, strict=True)]))
    found = {}
    for start in range(0, len(asked), _CHUNK):
        near = np.round(vectors[start : start + _CHUNK] @ vectors.T, 9)
        for row, record in enumerate(asked[start : start + _CHUNK]):
            others = np.flatnonzero(keys != keys[start + row])
            if len(others):
                closest = others[near[row, others] == near[row, others].max()]
                found[id(record)] = answers[closest[np.argmin(rank[closest])]]
    return found


def _side(item: Item) -> Item:
    return replace(item, label=None)


def _words_of(item: Item) -> str:
    """The text that is rewritten: of a conversational response its last message."""
    return item.response if isinstance(item.response, str) else item.response[-1].content


def _rewritten(item: Item, text: str, new: str) -> Item:
    """A response of `item`'s context with `new` in place of `text`, the white space before it kept."""
    new = text[: len(text) - len(text.lstrip())] + new.lstrip()
    if isinstance(item.response, str):
        return Item(item.context, new)
    return Item(item.context, (*item.response[:-1], replace(item.response[-1], content=new)))
