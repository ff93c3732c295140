"""What each axiom makes of a question: its own rule, by hand, and what all of them keep."""

import random
import re

import pytest

from unipref.core.errors import ConfigError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data.catalogue import axiomatic
from unipref.data.catalogue.axiomatic import AXIOMS, altered_facts

EGG, PAN, TAX = "How do I boil an egg?", "Which pan do I boil an egg in?", "When is the tax form due?"


def question(prompt, *answers, gold=None, evidence=None):
    """Answers are (text, votes); votes None where nobody voted."""
    items = [
        Item(
            prompt,
            text,
            columns={} if votes is None else {"score": votes},
        )
        for text, votes in answers
    ]
    if evidence is not None:
        items = [Item(i.context, i.response, columns={"evidence": e}) for i, e in zip(items, evidence, strict=True)]
    items += [] if gold is None else [Item(prompt, gold, role="gold")]
    return Record(prompt, tuple(items), conversation=prompt, domain="cooking", weight=2.0)


QUESTIONS = [
    question(
        EGG,
        ("Put it in water for 9 minutes. Then cool it.", 12),
        ("Ask Anna.", 3),
        ("Boil it.", 3),
        gold="An egg is hard after nine minutes in boiling water.",
    ),
    question(PAN, ("A small pan is best.", 5), ("Any pan.", 1)),
    question(TAX, ("In April, as Bert says.", 2)),
]


def made(records, axiom, **options):
    """(better, worse, margin) of the records that `axiom` makes, by question."""
    found, _ = axiomatic(axioms=(axiom,), **options)(records)
    assert {record.domain for record in found} <= {axiom}
    return {
        record.id: [
            (record.items[c.winner].response, record.items[c.loser].response, c.margin) for c in record.comparisons
        ]
        for record in found
    }


def test_usefulness_prefers_more_votes_and_the_gap_is_the_margin():
    best, anna, boil = (item.response for item in QUESTIONS[0].items[:3])
    found = made(QUESTIONS, "usefulness")
    assert found == {
        EGG: [(best, anna, 9), (best, boil, 9)],
        PAN: [("A small pan is best.", "Any pan.", 4)],
    }
    assert set(made(QUESTIONS, "usefulness", least=5)) == {EGG}


def test_relevance_prefers_the_best_answer_to_the_best_one_to_the_nearest_other_question():
    found = made(QUESTIONS, "relevance")
    assert found[EGG][0][1] == "A small pan is best."  # the questions share four words
    assert found[PAN][0][1] == QUESTIONS[0].items[0].response
    assert all(better != worse for pairs in found.values() for better, worse, _ in pairs)


def test_an_answer_to_the_same_question_is_no_answer_to_another_one():
    again = question(" how do I  boil an EGG?", ("Sous vide.", 4))
    found = made([QUESTIONS[0], again, QUESTIONS[2]], "relevance")
    assert found[EGG][0][1] == "In April, as Bert says."
    assert made([QUESTIONS[0], again], "relevance") == {}


def test_grounded_relevance_goes_by_what_answers_were_written_with():
    answers = [(text, None) for text in ("with the right passage", "alone", "with another")]
    written = question(EGG, *answers, evidence=(1, 0, -1))
    found = made([written], "grounded_relevance")[EGG]
    assert [(better, worse) for better, worse, _ in found] == [
        ("with the right passage", "alone"),
        ("with the right passage", "with another"),
        ("alone", "with another"),
    ]


def test_grounded_relevance_takes_away_the_sentence_that_the_passage_supports_most():
    found = made(QUESTIONS, "grounded_relevance")
    assert found == {EGG: [("Put it in water for 9 minutes. Then cool it.", "Then cool it.", None)]}
    lone = question(EGG, ("Water and egg.", 1), gold="egg")
    assert made([lone], "grounded_relevance") == {}  # nothing would be left
    apart = question(EGG, ("One. Two.", 1), gold="egg")
    assert made([apart], "grounded_relevance") == {}  # the passage supports none of it


def test_truthfulness_alters_numbers_else_a_name_else_a_verb_and_nothing_else():
    found = made(QUESTIONS, "truthfulness")
    better, worse, _ = found[EGG][0]
    assert re.fullmatch(r"Put it in water for [0-8] minutes\. Then cool it\.", worse)
    assert better == "Put it in water for 9 minutes. Then cool it."
    assert found[PAN] == [("A small pan is best.", "A small pan is not best.", None)]
    tax = found[TAX][0][1]
    assert tax != "In April, as Bert says."
    assert tax in ("In Anna, as Bert says.",)  # the one name of other answers
    assert made([question(EGG, ("Boil it.", 1))], "truthfulness") == {}


def test_altered_facts_leave_list_marks_and_words_with_digits_alone_and_alter_a_number_alike_throughout():
    rng = random.Random(3)
    text = "1. Take 20 eggs.\n2. Boil 20 of them as mp3s."
    altered = altered_facts(text, [], rng)
    numbers = re.fullmatch(r"1\. Take (\d\d) eggs\.\n2\. Boil (\d\d) of them as mp3s\.", altered)
    assert numbers[1] == numbers[2] != "20"
    assert altered_facts("He did not go.", [], rng) == "He did go."
    assert altered_facts("Hm.", ["Anna"], rng) is None


def test_combination_prefers_the_two_best_together_to_each_and_needs_two_that_were_voted_on():
    best, anna = (item.response for item in QUESTIONS[0].items[:2])
    both = f"{best}\n\n{anna}"
    assert made(QUESTIONS, "combination")[EGG] == [(both, best, None), (both, anna, None)]
    assert TAX not in made(QUESTIONS, "combination")
    assert made([question(EGG, ("a", None), ("b", 3))], "combination") == {}


def test_a_further_axiom_never_changes_the_pairs_of_another():
    together, _ = axiomatic()(QUESTIONS)
    for axiom in AXIOMS:
        alone, _ = axiomatic(axioms=(axiom,))(QUESTIONS)
        assert [(r.items, r.comparisons, r.weight) for r in alone] == [
            (r.items, r.comparisons, r.weight) for r in together if r.domain == axiom
        ]


def test_every_made_pair_has_two_texts_and_its_account_says_how_many_there_are_and_what_was_not_made():
    twin = question("What is it?", ("The same.", 5), ("The same.", 1))
    found, report = axiomatic()([*QUESTIONS, twin])
    for record in found:
        for c in record.comparisons:
            assert record.items[c.winner].response != record.items[c.loser].response
        assert len({id(item) for item in record.items}) == len(record.items)
    assert "Pairs by axiom: usefulness 3, relevance 4, grounded_relevance 1, truthfulness 3, combination 6." in (
        report.notes
    )
    assert "1 pairs of equal texts were not made (usefulness 1)." in report.notes
    assert report.n_read + sum(report.added.values()) == report.n_kept + sum(report.left_out.values())


def test_a_question_of_which_no_axiom_says_anything_is_left_out_and_counted():
    _, report = axiomatic(axioms=("usefulness",))(QUESTIONS)
    assert report.left_out == {"no axiom says anything of it": 1}
    nothing = Record("empty", (Item(EGG, "known", role="gold"),))
    assert axiomatic()([nothing])[1].left_out == {"no axiom says anything of it": 1}


def test_pairs_that_two_axioms_order_in_opposite_ways_are_counted():
    """The answer with fewer votes was the one written with evidence."""
    items = (
        Item(EGG, "a", columns={"score": 9.0, "evidence": 0.0}),
        Item(EGG, "b", columns={"score": 1.0, "evidence": 1.0}),
    )
    found, report = axiomatic(axioms=("usefulness", "grounded_relevance"))([Record("r", items)])
    assert len(found) == 2
    assert "1 pairs are ordered one way by an axiom and the other way by another." in report.notes


def test_balance_makes_every_axiom_count_alike_and_keeps_the_whole_weight():
    plain, balanced = (axiomatic(balance=flag)(QUESTIONS)[0] for flag in (False, True))
    totals = {}
    for record in balanced:
        totals[record.domain] = totals.get(record.domain, 0.0) + record.weight * len(record.comparisons)
    whole = sum(record.weight * len(record.comparisons) for record in plain)
    assert list(totals.values()) == pytest.approx([whole / 5] * 5)
    assert whole == 2.0 * (3 + 3 + 1 + 3 + 4)


def test_a_conversations_last_message_is_rewritten_and_what_else_is_known_comes_along():
    context = (Message("user", EGG),)
    answers = (
        (Message("assistant", "Hm."), Message("assistant", "Wait 9 minutes. Cool it.")),
        (Message("assistant", "Boil it."),),
    )
    items = tuple(Item(context, a, label=True, columns={"score": 3.0 - k}) for k, a in enumerate(answers))
    record = Record("r", items, (Comparison(0, 1),), user="ann", source="file", line=3, conversation="egg")
    found, _ = axiomatic(axioms=("truthfulness", "combination"))([record])
    altered = found[0].items[1].response
    assert altered[0] == Message("assistant", "Hm.")
    assert re.fullmatch(r"Wait [0-8] minutes\. Cool it\.", altered[1].content)
    assert found[1].items[0].response[1].content == "Wait 9 minutes. Cool it.\n\nBoil it."
    for each in found:
        assert (each.user, each.source, each.line, each.conversation) == ("ann", "file", 3, "egg")
        assert all(item.label is None for item in each.items)  # sides of a comparison carry none


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axioms": ("usefullness",)}, r"no axiom named 'usefullness' \(did you mean 'usefulness'\?\)"),
        ({"axioms": ()}, "names each of some of"),
        ({"axioms": ("relevance", "relevance")}, "once"),
        ({"least": 0}, "least is a number of votes above 0"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        axiomatic(**options)
