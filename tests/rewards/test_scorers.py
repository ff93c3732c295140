"""Facts about the scorers that need no model: their numbers by hand, their edges, and what they refuse."""

import math

import numpy as np
import pytest

from unipref.core.cards import list_methods
from unipref.core.errors import ConfigError
from unipref.core.protocols import Scorer
from unipref.core.records import Item, Message
from unipref.features import reading_grade
from unipref.rewards import make_scorer
from unipref.rewards.scorers import Column

EASY = "The cat sat on the mat. The dog ran to the man. We had fun. It was hot, so we all had a cold drink."


def scorer(name, **options):
    return make_scorer({"scorer": name, "options": options})


def score(made, *responses):
    return made.score(["a prompt"] * len(responses), list(responses)).tolist()


def graded(monkeypatch, grades):
    monkeypatch.setattr("unipref.rewards.scorers.reading_level.reading_grade", lambda text, min_words: grades[text])


def test_reading_level_is_one_to_grade_four_zero_from_nine_and_straight_between(monkeypatch):
    graded(monkeypatch, {"a": 1.0, "b": 4.0, "c": 5.0, "d": 7.0, "e": 9.0, "f": 15.0})
    assert score(scorer("reading_level"), *"abcdef") == [1.0, 1.0, (9 - 5) / 5, (9 - 7) / 5, 0.0, 0.0]
    assert score(scorer("reading_level", easiest=5, hardest=15), *"abcdef") == [1.0, 1.0, 1.0, 8 / 10, 6 / 10, 0.0]


def test_a_response_without_a_grade_has_no_reading_level_and_not_the_best_or_worst():
    assert reading_grade(EASY) <= 4
    values = score(scorer("reading_level"), EASY, "Too short.", "", "\u8fd9\u662f\u4e2d\u6587\u3002" * 20)
    assert values[0] == 1.0
    assert all(math.isnan(value) for value in values[1:])
    assert not math.isnan(score(scorer("reading_level", min_words=2), "Too short.")[0])


def test_length_counts_words_or_characters_and_an_empty_response_has_none():
    assert score(scorer("length"), "one two three", "It's well-known.", "\U0001f600")[:2] == [3.0, 2.0]
    assert score(scorer("length"), "\U0001f600") == [0.0]
    assert score(scorer("length", unit="characters"), " caf\u00e9 \U0001f600 ") == [6.0]
    assert np.isnan(score(scorer("length"), "", " \n")).all()


def test_a_capped_length_rises_to_one_and_a_target_is_a_tent():
    texts = ["one", "one two three four", "one two three four five six"]
    assert score(scorer("length", cap=4), *texts) == [1 / 4, 1.0, 1.0]
    assert score(scorer("length", cap=4, inverted=True), *texts) == [3 / 4, 0.0, 0.0]
    assert score(scorer("length", target=4), *texts) == [1 - 3 / 4, 1.0, 1 - 2 / 4]
    assert score(scorer("length", target=4, width=2), *texts) == [0.0, 1.0, 0.0]
    assert score(scorer("length", target=4, width=2, inverted=True), *texts) == [1.0, 0.0, 1.0]


def test_a_pattern_is_present_absent_or_counted_per_hundred_words():
    pattern = [r"\bsorry\b", "apolog(y|ise)"]
    texts = ["Sorry, I am so sorry!", "I apologise.", "No regrets, a sorryless text"]
    assert score(scorer("regex", pattern=pattern), *texts) == [1.0, 1.0, 0.0]
    assert score(scorer("regex", pattern=pattern, measure="absence"), *texts) == [0.0, 0.0, 1.0]
    assert score(scorer("regex", pattern=pattern, inverted=True), *texts) == [0.0, 0.0, 1.0]
    assert score(scorer("regex", pattern=pattern, measure="absence", inverted=True), *texts) == [1.0, 1.0, 0.0]
    assert score(scorer("regex", pattern=pattern, measure="per_100_words"), *texts) == [100 * 2 / 5, 100 / 2, 0.0]
    negative = scorer("regex", pattern=pattern, measure="per_100_words", inverted=True)
    assert score(negative, *texts) == [-40.0, -50.0, 0.0]
    assert score(scorer("regex", pattern="sorry", ignore_case=False), texts[0], "Sorry") == [1.0, 0.0]


def test_a_pattern_finds_nothing_in_an_empty_response_and_has_no_rate_without_words():
    assert np.isnan(score(scorer("regex", pattern="x", measure="absence"), "", "  ")).all()
    assert np.isnan(score(scorer("regex", pattern="!", measure="per_100_words"), "!!!")).all()
    assert score(scorer("regex", pattern="!"), "!!!") == [1.0]


def test_a_word_list_gives_the_share_of_words_that_are_in_it():
    made = scorer("word_list", words=["Please", "don't", "thank"])
    assert score(made, "please DON\u2019T go", "Thank you", "thanks") == [2 / 3, 1 / 2, 0.0]
    assert score(scorer("word_list", words=["a"], inverted=True), "a b c") == [1 - 1 / 3]
    assert np.isnan(score(made, "", "...")).all()


def test_a_word_list_may_come_from_a_file_and_its_version_follows_the_words(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("# plain words\ncat\n\n  Dog  \n", encoding="utf-8")
    made = scorer("word_list", file=str(file))
    assert score(made, "the cat and the dog") == [2 / 5]
    assert made.version == scorer("word_list", words=["dog", "cat"]).version
    file.write_text("cat\n", encoding="utf-8")
    assert scorer("word_list", file=str(file)).version != made.version
    assert score(scorer("word_list", file=str(file), words=["the"]), "the cat and the dog") == [3 / 5]


def test_a_column_is_read_from_the_items_and_unknown_for_new_texts():
    items = [Item("p", "r", columns={"helpful": 2.5}), Item("p", "s"), Item("p", "t", columns={"helpful": math.nan})]
    made = scorer("column", column="helpful")
    assert isinstance(made, Column)
    np.testing.assert_array_equal(made.of_items(items), [2.5, np.nan, np.nan])
    assert np.isnan(score(made, "a", "b")).all()


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Write a module into the working directory; its name is of this test alone."""
    monkeypatch.chdir(tmp_path)
    name = f"scores_{abs(hash(request.node.name))}"

    def write(code):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        return name

    return write


def test_a_python_function_gets_plain_values_and_none_becomes_missing(module):
    name = module(
        "def shout(contexts, responses):\n"
        "    assert contexts == ['a prompt', [{'role': 'user', 'content': 'hi'}]], contexts\n"
        "    return [None if r == 'no' else r.count('!') for r in responses]\n"
    )
    made = scorer("python", function=f"{name}:shout")
    turns = (Message("user", "hi"),)
    values = made.score(["a prompt", turns], ["no", (Message("assistant", "yes!!"),)])
    assert values.dtype == np.float64
    assert math.isnan(values[0])
    assert values[1] == 2.0


@pytest.mark.parametrize(
    "returned", ["np.array([1, 2])", "torch.tensor([1., 2.], dtype=torch.bfloat16)", "(1, True + 1)"]
)
def test_a_python_function_may_return_arrays_tensors_and_tuples(module, returned):
    name = module(f"import numpy as np, torch\ndef f(contexts, responses):\n    return {returned}\n")
    assert score(scorer("python", function=f"{name}:f"), "a", "b") == [1.0, 2.0]


def test_a_python_function_is_stored_only_where_it_says_its_version(module):
    name = module("def f(c, r):\n    return [0.0] * len(r)\ndef g(c, r):\n    return [0.0] * len(r)\ng.version = 3\n")
    assert scorer("python", function=f"{name}:f").version is None
    assert scorer("python", function=f"{name}:g").version == "3"
    assert scorer("python", function=f"{name}:g", version="4").version == "4"
    assert scorer("python", function=f"{name}:f").name != scorer("python", function=f"{name}:g").name


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0]", r"returned values of shape \(1,\) for 2 responses"),
        ("return [[1.0], [2.0]]", r"returned values of shape \(2, 1\) for 2 responses"),
        ("return None", "must return one number per response, .* it returned a NoneType"),
        ("return ['good', 'bad']", "it returned a list"),
        ("return 0.5", "it returned a float"),
        ("return [1.0, float('inf')]", "returned an infinite score; return None where there is none"),
    ],
)
def test_what_a_python_function_must_not_return_is_named(module, body, message):
    name = module(f"def f(contexts, responses):\n    {body}\n")
    with pytest.raises(ConfigError, match=message):
        score(scorer("python", function=f"{name}:f"), "a", "b")


def test_a_python_function_that_cannot_be_imported_is_named_when_the_recipe_is_read(module):
    name = module("threshold = 1\ndef politeness(contexts, responses):\n    return [0.0]\n")
    with pytest.raises(ConfigError, match=r"has no 'politness' \(did you mean 'politeness'\?\)"):
        scorer("python", function=f"{name}:politness")
    with pytest.raises(ConfigError, match="is a int, not a function"):
        scorer("python", function=f"{name}:threshold")
    with pytest.raises(ConfigError, match=r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere'\)"):
        scorer("python", function="nowhere.at_all:f")
    with pytest.raises(ConfigError, match="is an import path like"):
        scorer("python", function="politeness")


def test_an_error_in_the_users_own_module_is_passed_on_with_its_cause(module):
    name = module("import math\nvalue = math.lg(1)\n")
    with pytest.raises(ConfigError, match=r"AttributeError: .*'lg'") as caught:
        scorer("python", function=f"{name}:f")
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"scorer": "readinglevel"}, r"no scorer named 'readinglevel' \(did you mean 'reading_level'\?\)"),
        ({"scorer": None}, "no scorer named None"),
        ({}, "no scorer named None"),
        ({"scorer": "dpo"}, "no scorer named 'dpo'"),
        ({"scorer": "length", "option": {}}, r"no key 'option' \(did you mean 'options'\?\)"),
        ({"scorer": "length", "options": ["cap"]}, "options are a mapping"),
        ({"scorer": "length", "options": {"capp": 3}}, r"length has no option 'capp' \(did you mean 'cap'\?\)"),
        ({"scorer": "length", "options": {"unit": "word"}}, r"unit is one of words, characters, not 'word' \(did you"),
        ({"scorer": "length", "options": {"cap": "3"}}, "cap is a number, not '3'"),
        ({"scorer": "length", "options": {"cap": 0}}, "cap is a number above 0"),
        ({"scorer": "length", "options": {"cap": 3, "target": 3}}, "cap or target, not both"),
        ({"scorer": "length", "options": {"width": 3}}, "width belongs to target"),
        ({"scorer": "length", "options": {"inverted": True}}, "inverted needs cap or target"),
        ({"scorer": "length", "options": {"inverted": "yes"}}, "inverted is true or false"),
        ({"scorer": "regex"}, "missing 1 required"),
        ({"scorer": "regex", "options": {"pattern": "("}}, r"'\(' is no regular expression"),
        ({"scorer": "regex", "options": {"pattern": []}}, "empty list"),
        ({"scorer": "regex", "options": {"pattern": 3}}, "a text or a list of texts, not 3"),
        ({"scorer": "regex", "options": {"pattern": "a", "measure": "absense"}}, r"did you mean 'absence'\?"),
        ({"scorer": "word_list"}, "the list is empty"),
        ({"scorer": "word_list", "options": {"words": ["of course"]}}, "'of course' is not one word"),
        ({"scorer": "word_list", "options": {"file": "missing.txt"}}, "missing.txt cannot be read"),
        ({"scorer": "reading_level", "options": {"easiest": 9, "hardest": 4}}, "easiest must lie below hardest"),
        ({"scorer": "column", "options": {"column": ""}}, "column is a name"),
        (
            {"scorer": "classifier", "options": {"model": "a/b", "aggregation": "most"}},
            "aggregation is one of max, mean",
        ),
        ({"scorer": "classifier", "options": {"model": "a/b", "batch_size": 0}}, "batch_size is a whole number from 1"),
        ({"scorer": "classifier", "options": {"model": "a/b", "dtype": "fp16"}}, "no dtype named 'fp16'"),
        ({"scorer": "reward_model", "options": {"model": ""}}, "model is a hub id or a folder"),
        ({"scorer": "reward_model", "options": {"model": "a/b", "max_length": 2}}, "max_length is a number of tokens"),
        (
            {"scorer": "reward_model", "options": {"model": "a/b", "template": "chatml"}},
            "template is one of auto, chat",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_what_was_expected(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_scorer(spec)


def test_a_word_list_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ConfigError, match=r"words\.txt is not UTF-8"):
        scorer("word_list", file=str(tmp_path / "words.txt"))


EVERY = {
    "reading_level": {},
    "length": {},
    "regex": {"pattern": "a"},
    "word_list": {"words": ["a"]},
    "column": {"column": "x"},
    "python": {"function": "builtins:len"},
    "classifier": {"model": "hub/id"},
    "reward_model": {"model": "hub/id"},
    "text_classifier": {},
    "cpm": {"model": "model.json"},
    "cdr": {"strong": "hub/id", "weak": "hub/other"},
    "flr": {"model": "hub/id"},
    "metametrics": {"model": "metrics.json"},
    "preference_model": {"model": "folder"},
    "r3": {"embedder": "hashed"},
}


NEED_THEIR_MODEL = ("classifier", "reward_model", "cpm", "cdr", "flr", "metametrics", "preference_model")


def test_every_scorer_has_a_card_and_is_a_scorer():
    assert {card.key for card in list_methods("scorer")} == set(EVERY)
    for name, options in EVERY.items():
        made = scorer(name, **options)
        assert made == scorer(name, **options)
        if name not in NEED_THEIR_MODEL:  # its version does
            assert isinstance(made, Scorer)


@pytest.mark.parametrize("name", ["reading_level", "length", "regex", "word_list"])
def test_a_scorers_version_follows_its_options(name):
    changed = {
        "reading_level": {"hardest": 8},
        "length": {"cap": 9},
        "regex": {"pattern": "b"},
        "word_list": {"words": ["b"]},
    }
    first = scorer(name, **EVERY[name]).version
    assert scorer(name, **EVERY[name]).version == first
    assert scorer(name, **{**EVERY[name], **changed[name]}).version != first


@pytest.mark.parametrize("name", ["reading_level", "length", "regex", "word_list"])
def test_a_response_is_scored_alone_whatever_stands_beside_it(name):
    made = scorer(name, **EVERY[name])
    texts = [EASY, "", "a b c", "\U0001f600", "12 34", "e.g. this", EASY + " And more of a kind."]
    alone = [made.score(["x"], [text])[0] for text in texts]
    np.testing.assert_array_equal(made.score(["y"] * len(texts), texts), alone)
    np.testing.assert_array_equal(made.score(["y"] * len(texts), texts[::-1])[::-1], alone)
    turns = [(Message("assistant", text),) for text in texts]
    np.testing.assert_array_equal(made.score([(Message("user", "y"),)] * len(texts), turns), alone)
