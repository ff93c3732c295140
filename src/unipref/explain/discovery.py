"""Concepts that a language model finds in preferences, domain by domain, before anything is fitted.

A judge is shown small batches of pairs and asked what could tell winners from losers. What it names is gathered over
batches and domains: names that mean the same are joined, what turns up in half of the domains is shared, and the rest
belongs to the domains where it was found.
"""

import math
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.data import is_heldout
from unipref.data.pairs import Pairs
from unipref.explain.study import DISCOVERY_SALT, HELDOUT_SALT, Settings
from unipref.features.concepts import Concept
from unipref.features.judging import Account, Judge, in_parallel, wording

__all__ = ["FIXED", "Discovery", "discover", "stem"]

# named in half of the batches, with the request for others
FIXED = (
    "Specificity",
    "Clarity",
    "Relevance",
    "Helpfulness",
    "Empathy",
    "Accuracy",
    "Informativeness",
    "Creativity",
    "Safety",
    "Engagement",
)
MOST_KINDS = 10  # of topics and of tasks in a domain
PER_DEFINITION_CALL = 5
DESCRIPTIONS = 5  # of a concept, that its definition is made from
NAMES_PER_CALL = 20
LONGEST = 2000  # characters of a text in a batch, chosen by us; five pairs of whole documents fit no model

_SEVERAL = re.compile(r"\b(?:and|or|vs|versus)\b|[/&,;+]", re.IGNORECASE)
_SMALL = "a an the of in to for with on by from its over not no use level degree quality"
_ENDINGS = (
    "s es ed ing ness ment ity ty ly al ally ation ative ational ion ive ivity iveness ful fulness less able ability "
    "ible ibility ance ence ant ent ency ancy cy acy ic ical etic y e er or ate ated ating ize ise ized ised ization "
    "isation ous ousness ativeness"
)
_DEFINITION = re.compile(r"high\s+means\s*:?\s*(.+?)\s*[;.,]\s*low\s+means\s*:?\s*(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, eq=False)
class Discovery:
    """What was found.

    Attributes:
        concepts: shared ones first (no domains), then those of domains; the more often found the earlier.
        account: of all questions.
        found: key -> {"name", "domains": {domain: batches}, "joined": names that mean the same}.
        notes: what was left out, and how many.
    """

    concepts: tuple[Concept, ...]
    account: Account
    found: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


@dataclass
class _Named:
    """A name, where it turned up, and what was said about it."""

    name: str
    batches: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sorts the more widely found first: more domains, then more batches, then by name."""
        return -len(self.batches), -sum(self.batches.values()), self.name.casefold()


def discover(
    pairs: Pairs,
    judge: Judge,
    *,
    n_batches: int = 300,
    batch: int = 5,
    per_batch: int = 10,
    least_batches: int = 1,
    by_kind: bool = True,
    settings: Settings | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """The concepts that `judge` finds in `pairs`, of one mechanism and any number of domains.

    Only the prompts are looked at on which `study` with the same settings finds its n-grams, so that no concept is made
    from a pair that it is checked on. The questions depend on `seed` and the data alone: with a cache behind the judge,
    a run that was broken off goes on where it stopped, and the same answers give the same concepts.

    Args:
        n_batches: of each domain. batch: pairs in each. per_batch: properties asked for.
        least_batches: names of fewer are left out.
        by_kind: whether batches are drawn by topic and task, which are asked about first: one question for each prompt.
        progress: told how many questions of the present step are done, and of how many.

    Raises:
        ConfigError: a number that cannot be, or the judge's budget is spent before the end.
        DataError: there is no pair with a verdict among the prompts of discovery, or no property was named.

    Source: arXiv:2505.20088 §3.1 and App. C.1. There the Snowball stemmer makes candidates and a model decides on each
    two of them; here the stem is that of `stem`, and one question is about all names of a stem.
    """
    for name, value in (("n_batches", n_batches), ("batch", batch), ("per_batch", per_batch)):
        if value < 1:
            raise ConfigError(f"{name} is at least 1, got {value}")
    before, notes, settings = judge.account.copy(), [], settings or Settings()
    groups = pairs.group.tolist()
    rows = np.array(
        [
            not is_heldout(group, share=settings.heldout_share, salt=HELDOUT_SALT)
            and is_heldout(group, share=settings.discovery_share, salt=DISCOVERY_SALT)
            for group in groups
        ],
        dtype=bool,
    ) & (pairs.p != 0.5)
    seen: list[str] = []
    asked: list[tuple[str, str]] = []
    for domain in sorted(set(pairs.domain.tolist())):
        at = np.flatnonzero(rows & (pairs.domain == domain))
        if not at.size:
            notes.append(
                f"the domain {domain!r} has no pair with a verdict among the prompts that concepts are found on."
            )
            continue
        seen.append(domain)
        rng = np.random.default_rng([seed, zlib.crc32(domain.encode())])
        strata = _strata(pairs, at, judge, rng, batch, progress) if by_kind else {(None, None): at.tolist()}
        asked += [(domain, question) for question in _batches(pairs, strata, rng, n_batches, batch, per_batch)]
    if not seen:
        raise DataError("no pair with a verdict is among the prompts that concepts are found on; give more pairs")
    answers = in_parallel(lambda each: _named(judge, each[1]), asked, judge=judge, progress=progress)
    _paid(judge, before)
    names, several = _gathered([domain for domain, _ in asked], answers, per_batch)
    silent = sum(not answer for answer in answers)
    if silent:
        notes.append(f"{silent} of {len(answers)} batches brought no readable property.")
    if several:
        notes.append(f"{several} names hold more than one idea and are left out.")
    joined = _joined(names, judge, progress)
    kept = [each for each in joined if sum(each.batches.values()) >= least_batches]
    if len(kept) < len(joined):
        rare = len(joined) - len(kept)
        notes.append(f"{rare} names turned up in fewer than {least_batches} batches and are left out.")
    if not kept:
        raise DataError(
            f"{judge.name} named no property in {len(answers)} batches ({judge.account.since(before)}); look at its "
            "answers, or ask a larger model"
        )
    concepts, undefined = _defined(kept, seen, judge, progress)
    _paid(judge, before)
    if undefined:
        notes.append(f"{undefined} concepts got no definition and have a sentence about them in its place.")
    concepts.sort(key=lambda concept: bool(concept.domains))
    told = {_key(each.name): {"name": each.name, "domains": dict(each.batches), "joined": each.joined} for each in kept}
    return Discovery(tuple(concepts), judge.account.since(before), told, tuple(notes))


def _paid(judge: Judge, before: Account) -> None:
    """Stop where the budget stopped: concepts of a part of the batches would be paid for again in judging them."""
    account = judge.account.since(before)
    if account.unasked:
        raise ConfigError(
            f"the budget ended the search for concepts after {account.requests:,} requests, with {account.unasked:,} "
            "questions of this step unasked; give a larger one and run again: what was answered is kept with a cache"
        )


def stem(word: str) -> str:
    """A word without its endings, for finding names that may mean the same; who decides is the judge.

    The longest ending of a list is taken off again and again, as long as four letters stay.

    Example:
        >>> {stem(word) for word in ("Informative", "informativeness", "Information", "inform")}
        {'inform'}
    """
    word = unicodedata.normalize("NFKC", word).casefold()
    endings = _ENDINGS.split()
    while fits := [ending for ending in endings if word.endswith(ending) and len(word) - len(ending) >= 4]:
        word = word.removesuffix(max(fits, key=len))
    return word


# ---- what is asked ----


def _strata(
    pairs: Pairs,
    at: np.ndarray,
    judge: Judge,
    rng: np.random.Generator,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> dict[tuple[str | None, str | None], list[int]]:
    """(topic, task) -> the pairs that carry both; None where no topic or no task fits."""
    places: dict[str, list[int]] = {}
    for i in at.tolist():
        places.setdefault(pairs.prompt[i], []).append(i)
    prompts = list(places)
    n = min(len(prompts), max(batch, math.ceil(0.1 * len(prompts))))
    drawn = [prompts[i] for i in rng.permutation(len(prompts))[:n].tolist()]
    samples = [[_cut(prompt) for prompt in drawn[i : i + batch]] for i in range(0, n, batch)]
    lists: dict[str, Counter[str]] = {"topic": Counter(), "task": Counter()}
    answers = in_parallel(lambda some: judge.generate(wording.kinds(some)), samples, judge=judge, progress=progress)
    for answer in answers:
        for word, name in dict.fromkeys(wording.read_named(answer or "")):
            if word.casefold() in lists:
                lists[word.casefold()][name.strip(" .").casefold()] += 1
    topics, tasks = (
        [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_KINDS]]
        for counts in lists.values()
    )
    if not topics and not tasks:
        return {(None, None): at.tolist()}

    def of(prompt: str) -> list[bool | None]:
        answer = judge.generate(wording.applies(_cut(prompt), topics, tasks))
        fits, fault = wording.read_numbered(answer or "", len(topics) + len(tasks), _yes)
        if answer and fault:
            judge.account.miss("unreadable", example=answer)
        return fits

    strata: dict[tuple[str | None, str | None], list[int]] = {}
    for prompt, fits in zip(prompts, in_parallel(of, prompts, judge=judge, progress=progress), strict=True):
        mine = [name for name, yes in zip(topics, fits, strict=False) if yes] or [None]
        asks = [name for name, yes in zip(tasks, fits[len(topics) :], strict=True) if yes] or [None]
        for topic in mine:
            for task in asks:
                strata.setdefault((topic, task), []).extend(places[prompt])
    return strata


def _yes(text: str) -> bool | None:
    return {"YES": True, "NO": False}.get(text.upper().strip(" .*"))


def _batches(
    pairs: Pairs,
    strata: Mapping[tuple[str | None, str | None], Sequence[int]],
    rng: np.random.Generator,
    n_batches: int,
    batch: int,
    per_batch: int,
) -> list[str]:
    """The questions of one domain: strata by their size, wordings and the list of known concepts at random."""
    keys = sorted(strata, key=lambda pair: (pair[0] or "", pair[1] or ""))
    sizes = np.array([len(strata[key]) for key in keys], dtype=float)
    views, questions = list(wording.VIEWS), []
    for _ in range(n_batches):
        members = strata[keys[int(rng.choice(len(keys), p=sizes / sizes.sum()))]]
        drawn = rng.permutation(len(members))[:batch].tolist()
        view = views[int(rng.integers(len(views)))]
        known = FIXED if rng.random() < 0.5 else ()
        shown = []
        for i in (members[k] for k in drawn):
            sides = (pairs.first[i], pairs.second[i])
            winner, loser = sides if pairs.p[i] > 0.5 else sides[::-1]
            shown.append((_cut(pairs.prompt[i]), _cut(winner), _cut(loser)))
        questions.append(wording.ideas(shown, view, per_batch, known))
    return questions


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " [...]"


def _named(judge: Judge, question: str) -> list[tuple[str, str]]:
    """Names and sentences; asked for once more where none can be read."""
    answer = judge.generate(question)
    if answer is None:
        return []
    found = wording.read_named(answer)
    if not found:
        fault = wording.again("no line has a name, a colon and a sentence")
        found = wording.read_named(judge.generate(f"{question}\n\n{fault}") or "")
        if not found:
            judge.account.miss("unreadable", example=answer)
    return found


# ---- what comes of it ----


def _gathered(
    domains: Sequence[str], answers: Sequence[Sequence[tuple[str, str]]], per_batch: int
) -> tuple[list[_Named], int]:
    """The distinct names with their domains and sentences, and how many names hold several ideas."""
    found: dict[str, _Named] = {}
    several = 0
    for domain, answer in zip(domains, answers, strict=True):
        seen: set[str] = set()
        for name, sentence in answer[:per_batch]:
            name = " ".join(name.split())
            if _SEVERAL.search(name):
                several += 1
                continue
            each = found.setdefault(_key(name), _Named(name))
            each.batches[domain] += _key(name) not in seen
            each.sentences.append(sentence)
            seen.add(_key(name))
    return sorted(found.values(), key=lambda each: each.rank), several


def _key(name: str) -> str:
    return "found:" + re.sub(r"[\s\-_]+", "_", unicodedata.normalize("NFKC", name).casefold())


def _joined(names: Sequence[_Named], judge: Judge, progress: Callable[[int, int], None] | None) -> list[_Named]:
    """One for each meaning, the more widely found name standing for those that the judge calls the same."""
    by_stem: dict[str, list[int]] = defaultdict(list)
    small = set(_SMALL.split())
    for i, each in enumerate(names):
        for word in {stem(word) for word in re.findall(r"[^\W\d_]+", each.name) if word.casefold() not in small}:
            by_stem[word].append(i)
    groups = {
        tuple(members[k : k + NAMES_PER_CALL])
        for members in by_stem.values()
        for k in range(0, len(members), NAMES_PER_CALL)
    }
    candidates = sorted(group for group in groups if len(group) > 1)

    def decided(group: tuple[int, ...]) -> list[list[int]]:
        answer = judge.generate(wording.same([(names[i].name, names[i].sentences[0]) for i in group])) or ""
        lines = [[int(n) for n in re.findall(r"\d+", line)] for line in wording.plain(answer).splitlines()]
        # a number that is no name's makes the whole line doubtful
        return [
            [group[n - 1] for n in line] for line in lines if len(line) > 1 and all(1 <= n <= len(group) for n in line)
        ]

    above = list(range(len(names)))

    def top(i: int) -> int:
        while above[i] != i:
            i = above[i]
        return i

    for lines in in_parallel(decided, candidates, judge=judge, progress=progress):
        for line in lines:
            for other in line[1:]:
                high, low = sorted((top(line[0]), top(other)))  # names are in the order of their rank
                above[low] = high
    kept = [
        _Named(each.name, Counter(each.batches), list(each.sentences)) for i, each in enumerate(names) if top(i) == i
    ]
    at = {each.name: each for each in kept}
    for i, each in enumerate(names):
        if top(i) != i:
            one = at[names[top(i)].name]
            one.batches.update(each.batches)
            one.sentences += each.sentences
            one.joined.append(each.name)
    return sorted(kept, key=lambda each: each.rank)


def _defined(
    names: Sequence[_Named], domains: Sequence[str], judge: Judge, progress: Callable[[int, int], None] | None
) -> tuple[list[Concept], int]:
    """The concepts, and how many have no definition of the judge's."""
    size = PER_DEFINITION_CALL
    calls = [names[i : i + size] for i in range(0, len(names), size)]

    def read(text: str) -> tuple[str, str] | None:
        match = _DEFINITION.search(text)
        return (match[1].strip(), match[2].strip(" .")) if match else None

    def of(some: Sequence[_Named]) -> list[tuple[str, str] | None]:
        told = [(each.name, list(dict.fromkeys(each.sentences))[:DESCRIPTIONS]) for each in some]
        question = wording.definitions(told)
        values, fault = wording.read_numbered(judge.generate(question) or "", len(some), read)
        if fault:
            second = judge.generate(f"{question}\n\n{wording.again(fault)}") or ""
            repeated, _ = wording.read_numbered(second, len(some), read)
            values = [new or old for old, new in zip(values, repeated, strict=True)]
        return values

    meanings = [value for values in in_parallel(of, calls, judge=judge, progress=progress) for value in values]
    shared_from = max(2, math.ceil(len(domains) / 2))
    concepts = []
    for each, meaning in zip(names, meanings, strict=True):
        high, low = meaning or (each.sentences[0], "")
        shared = len(domains) == 1 or len(each.batches) >= shared_from
        concepts.append(
            Concept(
                _key(each.name),
                each.name,
                high,
                low,
                kind="judge",
                domains=() if shared else tuple(sorted(each.batches)),
                source=f"found by {judge.name} as in arXiv:2505.20088",
            )
        )
    return concepts, sum(meaning is None for meaning in meanings)
