"""Facts about reading grades: what is a word, a sentence and a syllable, and each formula worked out by hand."""

import math

import pytest

from unipref.features import reading_grade, sentences, syllables, words
from unipref.features.readability import (
    TextCounts,
    automated_readability_index,
    coleman_liau,
    count_text,
    flesch_kincaid,
    flesch_reading_ease,
    grade_votes,
    gunning_fog,
    linsear_write,
    reading_ease_grade,
    smog,
)

# Counted by ear and with a dictionary, not by the code. Hard words on purpose: the plain ones are never wrong.
SPOKEN = {
    1: """the he through thought strength walked jumped makes hoped called league vague tongue choir eye eyes queue
          ache asked tried lied days joys guess guide quick squeezed clothes breathe weird build juice don't can't won't
          we're you're I'm she'd they've flour scratched stretched plagued twelve sixth""",
    2: """table little people castle wanted needed handled houses horses boxes wishes changes science quiet lion riot
          poem being doing going trying lying create react cruel fluid ruin chaos didn't wouldn't couldn't isn't safety
          careful homework lifestyle something someone sometimes basement movement lovely likely business every evening
          soldier ocean nation special patient ancient question region million union language beyond lawyer yellow
          rhythm schism purple acre maybe rescue argue issue value virtue anxious precious trial dial theory it'll
          boss's church's naked sacred hundred writer player open water hoping stated useful bottle""",
    3: """banana beautiful area idea media radio video period studio violent usual manual gradual genuine continue
          influence anyone everyone everything however remember important happier easier earliest violence diabetic
          recipe museum poetry heroic happily completely carefully racism element department government understand
          horrible terrible syllable previous serious various obvious curious opinion religious piano medium animal
          confusing excited suggestion tomorrow yesterday hospital potato computer consider""",
    4: """apostrophe catastrophe society variety anxiety material experience immediate appreciate situation education
          information America January biology psychology especially actually reality community impossible variable
          ridiculous responsible algorithm necessary usually graduation intelligent television calculator
          understanding political category development""",
    5: """university opportunity refrigerator imagination communication examination electricity hippopotamus
          vocabulary organization mathematician civilization curiosity immediately possibility""",
    6: "responsibility variability availability revolutionary enthusiastically encyclopedia",
}
TABLE = [(word, n) for n, listed in SPOKEN.items() for word in listed.split()]


def test_the_syllable_rules_agree_with_a_table_of_words_counted_by_hand():
    wrong = [(word, n, syllables(word)) for word, n in TABLE if syllables(word) != n]
    assert len(TABLE) >= 250
    assert len(wrong) / len(TABLE) <= 0.03, wrong


def test_syllables_do_not_depend_on_case_accents_or_the_form_of_the_apostrophe():
    assert syllables("CAREFUL") == syllables("careful") == 2
    assert syllables("caf\u00e9") == syllables("cafe") == 2
    assert syllables("wouldn\u2019t") == syllables("wouldn't") == 2


def test_the_parts_of_a_compound_are_counted_apart_and_a_number_or_letters_have_at_least_one():
    assert syllables("well-known") == 1 + 1
    assert syllables("mother-in-law") == 2 + 1 + 1
    assert syllables("3-day") == 1 + 1
    assert syllables("1990") == 1
    assert syllables("TV") == 2  # letters without a vowel are spelled out
    assert syllables("\u4f60\u597d") == 1
    assert syllables("'") == 1


def test_links_list_markers_emoji_and_punctuation_are_no_words():
    text = "1. See https://example.org/a?b=c or www.example.org \U0001f600\n- mail me@example.org -- now!\n# Title (#2)"
    assert words(text) == ["See", "or", "mail", "now", "Title", "2"]
    assert words("It's the dog\u2019s 2,500 well-known e-mails.") == [
        "It's",
        "the",
        "dog\u2019s",
        "2",
        "500",
        "well-known",
        "e-mails",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two. Three four! Five? Six", ["One two.", "Three four!", "Five?", "Six"]),
        ("Dr. Lee met Mrs. Roy at St. Mary. They sat.", ["Dr. Lee met Mrs. Roy at St. Mary.", "They sat."]),
        ("i like it. it is good", ["i like it.", "it is good"]),
        ("Some fruit, e.g. apples, i.e. Malus. More", ["Some fruit, e.g. apples, i.e. Malus.", "More"]),
        ("It costs 3.50 in v2.0 of a.txt. Fine.", ["It costs 3.50 in v2.0 of a.txt.", "Fine."]),
        ("The U.S. Army is large. J. K. Rowling wrote.", ["The U.S. Army is large.", "J. K. Rowling wrote."]),
        ("Well... maybe so. Hm... No!", ["Well... maybe so.", "Hm...", "No!"]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Wait!! What?! (Yes.) Go", ["Wait!!", "What?!", "(Yes.)", "Go"]),
        ("A line that\nis wrapped. Next", ["A line that is wrapped.", "Next"]),
        ("A heading\n\nA paragraph", ["A heading", "A paragraph"]),
        ("Steps:\n1. Open it\n2) Close it\n- rest\n* sleep", ["Steps:", "Open it", "Close it", "rest", "sleep"]),
        ("... !!! ???", []),
        ("", []),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_would_end_them(text, expected):
    assert sentences(text) == expected


def test_counts_of_a_short_text_by_hand():
    # the cat sat. = 3 words, 3 syllables, 9 letters; elephants remember everything! = 3 words, 3 + 3 + 3, 9 + 8 + 10
    counts = count_text("The cat sat. Elephants remember everything!")
    assert counts == TextCounts(
        words=6, sentences=2, syllables=12, letters=36, polysyllables=3, complex_words=3, linsear_points=3 + 3 * 3,
        linsear_sentences=2.0,
    )  # fmt: skip


def test_names_and_plain_endings_are_not_hard_words():
    # a name inside a sentence; three syllables by -es, -ed, -ing alone; a hard word; the same at the beginning
    assert count_text("We met Jonathan there.").complex_words == 0
    assert count_text("It was expanded, advances, and happening now.").complex_words == 0
    assert count_text("It was considered.").complex_words == 1
    assert count_text("Elephants sleep.").complex_words == 1


def test_the_linsear_sample_ends_after_a_hundred_words_and_counts_the_cut_sentence_in_part():
    text = " ".join(["one"] * 60) + ". " + " ".join(["two"] * 80) + "."
    counts = count_text(text)
    assert counts.linsear_points == 100
    assert counts.linsear_sentences == pytest.approx(1 + 40 / 80)


COUNTS = TextCounts(
    words=100, sentences=5, syllables=150, letters=450, polysyllables=12, complex_words=10, linsear_points=120,
    linsear_sentences=5.0,
)  # fmt: skip


def test_each_formula_by_hand():
    assert flesch_kincaid(COUNTS) == pytest.approx(0.39 * 20 + 11.8 * 1.5 - 15.59)  # 9.91
    assert flesch_reading_ease(COUNTS) == pytest.approx(206.835 - 1.015 * 20 - 84.6 * 1.5)  # 59.635
    assert smog(COUNTS) == pytest.approx(1.043 * math.sqrt(30 * 12 / 5) + 3.1291)  # 11.979
    assert coleman_liau(COUNTS) == pytest.approx(0.0588 * 450 - 0.296 * 5 - 15.8)  # 9.18
    assert automated_readability_index(COUNTS) == pytest.approx(4.71 * 4.5 + 0.5 * 20 - 21.43)  # 9.765
    assert linsear_write(COUNTS) == pytest.approx(120 / 5 / 2)  # 24 is above 20: halved
    assert gunning_fog(COUNTS) == pytest.approx(0.4 * (20 + 10))  # 12


def test_linsear_takes_two_off_up_to_twenty_points_a_sentence():
    points = TextCounts(100, 6, 150, 450, 12, 10, 120, 6.0)
    assert linsear_write(points) == (20 - 2) / 2


def test_smog_has_no_opinion_under_three_sentences():
    assert math.isnan(smog(TextCounts(100, 2, 150, 450, 12, 10, 120, 2.0)))
    assert smog(TextCounts(100, 3, 150, 450, 0, 0, 100, 3.0)) == pytest.approx(3.1291)


def test_reading_ease_falls_into_fleschs_bands_and_the_easiest_is_not_the_hardest():
    bands = {
        120: (5,), 100: (5,), 90: (5,), 89.9: (6,), 70: (7,), 60: (8, 9), 50: (10,), 40: (11,), 30: (12,), 29.9: (13,),
        -50: (13,),
    }  # fmt: skip
    assert {ease: reading_ease_grade(ease) for ease in bands} == bands


def test_the_votes_are_each_grade_rounded_and_rounded_up_in_the_order_of_the_formulas():
    assert grade_votes(COUNTS) == [
        10, 10,  # Flesch-Kincaid 9.91
        10,  # reading ease 59.6
        12, 12,  # SMOG 11.979
        9, 10,  # Coleman-Liau 9.18
        10, 10,  # ARI 9.765
        12, 12,  # Linsear 12
        12, 12,  # fog 12
    ]  # fmt: skip
    # 10 and 12 have six votes each; 10 was voted for first


EASY = "The cat sat on the mat. The dog ran to the man. We had fun. It was hot, so we all had a cold drink."
HARD = (
    "Notwithstanding considerable methodological disagreements, contemporary epidemiological investigations "
    "consistently demonstrate statistically significant associations between occupational exposure to particulate "
    "contamination and cardiovascular hospitalisation, particularly among economically disadvantaged populations."
)


def test_the_grade_is_the_one_with_most_votes():
    assert reading_grade(EASY) <= 3
    assert reading_grade(HARD) >= 16
    middle = (
        "You can get a library card for free at most libraries. Bring a photo and something that shows your address. "
        "The librarian will help you fill out the form, and then you can borrow books the same day."
    )
    assert 4 <= reading_grade(middle) <= 9


def test_a_text_under_twenty_words_has_no_grade_and_an_easy_one_of_twenty_has():
    nineteen = " ".join(["dog"] * 19) + "."
    assert math.isnan(reading_grade(nineteen))
    assert not math.isnan(reading_grade("Big " + nineteen))
    assert not math.isnan(reading_grade(nineteen, min_words=19))


@pytest.mark.parametrize(
    "text", ["", "   \n", "Yes", "!!! ...", "\U0001f600\U0001f44d " * 30, "https://example.org " * 40]
)
def test_nothing_to_read_has_no_grade_even_where_no_least_length_is_asked(text):
    assert math.isnan(reading_grade(text, min_words=2))


def test_a_text_in_another_script_has_no_grade_and_one_with_some_foreign_words_has():
    russian = "\u044d\u0442\u043e \u043f\u0440\u043e\u0441\u0442\u043e\u0439 \u0442\u0435\u043a\u0441\u0442 " * 10
    chinese = "\u8fd9 \u662f \u4e00 \u4e2a \u4f8b\u5b50 " * 10
    assert math.isnan(reading_grade(russian))
    assert math.isnan(reading_grade(chinese))
    assert not math.isnan(reading_grade(EASY + " " + russian[:20]))


def test_numbers_and_emoji_among_words_leave_a_grade():
    assert reading_grade(EASY + " \U0001f600 It cost 20 or 30.") <= 3


def test_a_list_is_as_easy_as_its_items_and_not_one_long_sentence():
    items = [
        "buy some milk and bread",
        "feed the cat",
        "walk the dog in the park",
        "read a good book",
        "go to bed at ten",
    ]
    listed = "Today:\n" + "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))
    assert len(sentences(listed)) == 6
    assert reading_grade(listed) <= 3
