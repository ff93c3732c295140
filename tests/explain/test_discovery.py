import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from worlds_of_text import records

from unipref.core.errors import ConfigError, DataError
from unipref.data import is_heldout
from unipref.data.pairs import Pairs
from unipref.explain.discovery import FIXED, discover, stem
from unipref.explain.study import DISCOVERY_SALT, HELDOUT_SALT, Settings
from unipref.features.judging import Account, AnswerCache, Budget, Judge, LanguageJudge, judged_values

OWN = {"law": "lex", "food": "ghee", "art": "hue"}
# what the scripted judge calls the word that wins, in the batches where it sees it
NAMES = {
    "zap": ("Playfulness", "Playful tone"),
    "lex": ("Legality", "Legal detail"),
    "ghee": ("Richness", "Richness"),
    "hue": ("Colour", "Colour"),
}
SAME = [{"Playfulness", "Playful tone"}]


def world(n=240):
    return Pairs.of(records(n, own=OWN))


class Scripted:
    """A judge who reads the preferred responses for the four words, and answers every question of discovery."""

    name = "scripted"
    workers = 3

    def __init__(self, *, defines=True, silent=lambda question: False):
        self.account, self.stopping = Account(), threading.Event()
        self.asked, self.defines, self.silent = [], defines, silent

    def generate(self, prompt):
        self.asked.append(prompt)
        self.account.add(requests=1, answered=1)
        if self.silent(prompt):
            self.account.miss("silent")
            return None
        return self.reply(prompt)

    def reply(self, prompt):
        if "topic or task" in prompt:
            return "topic: Asking\ntask: Advice\nnothing"
        if "of which of the topics" in prompt:
            return "1: YES\n2: NO"
        if "Case 1" in prompt:
            won = re.findall(r"<(?:preferred_)?response>\n(.*?)\n</", prompt, re.DOTALL)
            lines = [f"{NAMES[word][len(prompt) % 2]}: About {word}." for word in NAMES if f"{word} " in " ".join(won)]
            return "\n".join(f"{i}. **{line}" for i, line in enumerate([*lines, "Speed and warmth: two"], start=1))
        if "may mean the same" in prompt:
            names = re.findall(r"^\d+\. (.*?):", prompt, re.MULTILINE)
            lines = [", ".join(str(i) for i, name in enumerate(names, 1) if name in group) for group in SAME]
            return "\n".join(line for line in lines if "," in line) or "NONE"
        if "Define each property" in prompt:
            names = re.findall(r"^\d+\. (.*)$", prompt, re.MULTILINE)
            told = [f"{i}: High means much {name}; low means no {name}." for i, name in enumerate(names, 1)]
            return "\n".join(told) if self.defines else "I cannot."
        raise AssertionError(prompt)

    def score(self, *args): ...
    def compare(self, *args): ...
    def score_on(self, *args): ...
    def compare_on(self, *args): ...
    def relevant(self, *args): ...


def found_in(pairs, judge=None, **options):
    return discover(pairs, judge or Scripted(), **{"n_batches": 12, "batch": 3, **options})


def test_planted_concepts_are_found_joined_and_given_to_their_domains():
    found = found_in(world())
    at = {concept.name: concept for concept in found.concepts}
    play = [name for name in NAMES["zap"] if name in at]
    assert len(play) == 1  # the two names of one meaning are one concept
    assert at[play[0]].domains == ()
    assert at["Legality"].domains == at["Legal detail"].domains == ("law",)  # one stem, two meanings: the judge decided
    assert at["Richness"].domains == ("food",)
    assert at["Colour"].domains == ("art",)
    assert len(at) == 5
    assert found.concepts[0].name == play[0]  # shared ones first
    told = found.found[found.concepts[0].key]
    assert {*told["joined"], told["name"]} == set(NAMES["zap"])
    assert set(told["domains"]) == set(OWN)


def test_a_concept_is_defined_by_what_high_and_low_mean_and_names_where_it_is_from():
    concept = next(each for each in found_in(world()).concepts if each.name == "Colour")
    assert (concept.key, concept.high, concept.low) == ("found:colour", "much Colour", "no Colour")
    assert concept.kind == "judge"
    assert concept.source == "found by scripted as in arXiv:2505.20088"


def test_two_ideas_in_one_name_are_left_out_and_counted():
    judge = Scripted()
    found = found_in(world(), judge)
    batches = sum("Case 1" in question for question in judge.asked)
    assert not any("warmth" in concept.name for concept in found.concepts)
    assert f"{batches} names hold more than one idea and are left out." in found.notes


def test_only_the_prompts_of_discovery_are_shown():
    pairs = world()
    judge = Scripted()
    settings = Settings(heldout_share=0.4, discovery_share=0.5)
    found_in(pairs, judge, settings=settings, n_batches=60)
    shown = "\n".join(question for question in judge.asked if "Case 1" in question)
    allowed = [
        not is_heldout(group, share=0.4, salt=HELDOUT_SALT) and is_heldout(group, share=0.5, salt=DISCOVERY_SALT)
        for group in pairs.group.tolist()
    ]
    seen = [first in shown or second in shown for first, second in zip(pairs.first, pairs.second, strict=True)]
    assert sum(seen) > 50
    assert not any(there and not may for there, may in zip(seen, allowed, strict=True))


def test_batches_differ_in_their_words_and_half_of_them_name_the_fixed_concepts():
    judge = Scripted()
    found_in(world(), judge, n_batches=100)
    batches = [question for question in judge.asked if "Case 1" in question]
    assert len(batches) == 300
    # binomial with p = 1/2 and n = 300: outside 110..190 once in 400,000
    assert 110 <= sum(", ".join(FIXED) in question for question in batches) <= 190
    both, one = (sum(f"<{tag}>" in question for question in batches) for tag in ("other_response", "response"))
    assert both + one == 300
    # three of five wordings show both responses; outside 135..225 once in 200,000
    assert 135 <= both <= 225
    assert len({question.split("Everything between")[0] for question in batches}) == 5


def test_the_same_seed_asks_the_same_and_a_domain_does_not_depend_on_the_others():
    pairs = world()
    first, second, other = Scripted(), Scripted(), Scripted()
    one, two = found_in(pairs, first), found_in(pairs, second)
    assert one.concepts == two.concepts
    assert sorted(first.asked) == sorted(second.asked)
    found_in(pairs, other, seed=1)
    assert sorted(other.asked) != sorted(first.asked)
    alone = Scripted()
    found_in(pairs.take(pairs.domain == "law"), alone)
    batches = {question for question in alone.asked if "Case 1" in question}
    assert batches <= set(first.asked)


def test_swapping_the_responses_changes_no_question():
    pairs = world()
    there, back = Scripted(), Scripted()
    found_in(pairs, there)
    found_in(pairs.swapped(np.arange(len(pairs)) % 2 == 0), back)
    assert sorted(there.asked) == sorted(back.asked)


def test_ties_are_not_shown():
    pairs = world()
    tied = replace(pairs, p=np.where(np.arange(len(pairs)) % 2 == 0, 0.5, pairs.p))
    judge = Scripted()
    found_in(tied, judge, n_batches=40)
    shown = "\n".join(question for question in judge.asked if "Case 1" in question)
    assert not any(text in shown for text, p in zip(tied.first, tied.p, strict=True) if p == 0.5)


def test_what_turns_up_in_half_of_the_domains_and_in_two_is_shared():
    pairs = world()
    two = found_in(pairs.take(pairs.domain != "art"))
    assert {concept.name for concept in two.concepts if not concept.domains} == {two.concepts[0].name}
    one = found_in(pairs.take(pairs.domain == "law"))
    assert all(concept.domains == () for concept in one.concepts)  # one domain: all there is, is shared


def test_a_concept_without_a_definition_keeps_a_sentence_and_is_counted():
    judge = Scripted(defines=False)
    found = found_in(world(), judge)
    assert {concept.high for concept in found.concepts} == {f"About {word}." for word in NAMES}
    assert (
        f"{len(found.concepts)} concepts got no definition and have a sentence about them in its place." in found.notes
    )
    assert sum("could not be used" in question for question in judge.asked) == 1  # five concepts, one call, one repeat


def test_silent_batches_are_counted_and_a_silent_judge_is_an_error():
    judge = Scripted(silent=lambda question: "Case 1" in question and len(question) % 2 == 0)
    found = found_in(world(), judge)
    silent = sum("Case 1" in question and len(question) % 2 == 0 for question in judge.asked)
    assert f"{silent} of 36 batches brought no readable property." in found.notes
    with pytest.raises(DataError, match="named no property in 36 batches"):
        found_in(world(), Scripted(silent=lambda question: "Case 1" in question))


def test_topics_and_tasks_are_asked_about_once_a_prompt_and_can_be_left_out():
    pairs = world()
    asked, plain = Scripted(), Scripted()
    found_in(pairs, asked)
    found_in(pairs, plain, by_kind=False)
    # every record of this world has one and the same prompt
    assert sum("of which of the topics" in question for question in asked.asked) == 3
    assert not any("topic" in question for question in plain.asked)


def test_a_domain_with_nothing_to_look_at_is_named():
    pairs = world()
    tied = replace(pairs, p=np.where(pairs.domain == "art", 0.5, pairs.p))
    assert any("'art' has no pair with a verdict" in note for note in found_in(tied).notes)
    with pytest.raises(DataError, match="give more pairs"):
        found_in(replace(pairs, p=np.full(len(pairs), 0.5)))
    with pytest.raises(ConfigError, match="n_batches"):
        discover(pairs, Scripted(), n_batches=0)


@pytest.mark.parametrize(
    "words",
    [
        ("Informative", "informativeness", "Information"),
        ("Creativity", "creative", "creatively"),
        ("accuracy", "accurate"),
        ("Empathy", "empathetic"),
        ("personalized", "personalisation", "Personal"),
        ("Helpful", "helpfulness", "HELP"),
    ],
)
def test_forms_of_a_word_have_one_stem(words):
    assert len({stem(word) for word in words}) == 1


def test_words_of_other_meanings_keep_their_stems():
    words = ("clarity", "charity", "safety", "saving", "tone", "detail", "honesty", "house", "共感", "明確さ")
    assert len({stem(word) for word in words}) == len(words)


class Chat:
    """The scripted judge behind a cache and a budget, as an endpoint is."""

    model, workers = "scripted", 1

    def __init__(self, cache, budget):
        self.script, self.cache, self.budget = Scripted(), cache, budget
        self.account, self.stopping = Account(), threading.Event()

    def answer(self, messages):
        question = messages[0]["content"]
        kept = self.cache.get(question)
        if kept is None:
            if self.account.requests >= self.budget.requests:
                self.account.add(unasked=1)
                return None
            self.account.add(requests=1, answered=1)
            self.cache.put(question, self.script.reply(question))
        return self.cache.get(question)["answer"]


def test_a_search_that_its_budget_ended_goes_on_where_it_stopped(tmp_path):
    pairs, total = world(), Scripted()
    whole = found_in(pairs, total)
    cache = AnswerCache(tmp_path / "answers.jsonl")
    first = Chat(cache, Budget(requests=20))
    with pytest.raises(ConfigError, match="after 20 requests"):
        found_in(pairs, LanguageJudge(first))
    second = Chat(AnswerCache(tmp_path / "answers.jsonl"), Budget(requests=10_000))
    again = found_in(pairs, LanguageJudge(second))
    assert again.concepts == whole.concepts
    assert first.account.requests + second.account.requests == len(set(total.asked))


def test_what_is_found_can_be_judged():
    class Counting(Scripted):
        def relevant(self, prompt, concepts):
            return [True] * len(concepts)

        def compare_on(self, prompt, a, b, concepts):
            marks = {"Playfulness": "zap", "Playful tone": "zap", "Legality": "lex", "Legal detail": "lex"}
            words = [marks.get(c.name, {"Richness": "ghee", "Colour": "hue"}.get(c.name)) for c in concepts]
            return [(word in a.split()) - (word in b.split()) for word in words]

    pairs = world(80)
    judge = Counting()
    concepts = found_in(pairs, judge).concepts
    columns = [column.tolist() for column in (pairs.prompt, pairs.first, pairs.second)]
    values = judged_values(*columns, concepts, judge, domains=pairs.domain.tolist()).values
    assert isinstance(judge, Judge)
    decided = values.difference[:, 0] != 0
    # who says the shared word wins nine times in ten, all else equal
    assert ((values.difference[:, 0] > 0) == (pairs.p > 0.5))[decided].mean() > 0.75
    law = next(j for j, concept in enumerate(concepts) if concept.domains == ("law",))
    assert not values.difference[pairs.domain != "law", law].any()
