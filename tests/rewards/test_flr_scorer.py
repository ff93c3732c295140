"""The likelihood of a pleased follow-up: its limits, its numbers by hand, and a world where good words are thanked."""

import numpy as np
import pytest
import yaml
from toy_language_models import CHAT, SPECIAL, log_softmax, save_toy

from unipref.core.errors import ConfigError
from unipref.core.protocols import Scorer
from unipref.core.records import Message
from unipref.rewards import make_scorer
from unipref.rewards.scorers.flr import bundled_follow_ups

GOOD, BAD = [f"good{k}" for k in range(4)], [f"bad{k}" for k in range(4)]
WORDS = (*GOOD, *BAD, "q", "thanks", "great", "wrong", "no")
NAMES = [*SPECIAL, *WORDS]
PLEASED, DISPLEASED = ["thanks", "great thanks"], ["wrong", "no wrong"]
LISTS = {"correctness": {"positive": PLEASED, "negative": DISPLEASED}}


def scorer(model, follow_ups=LISTS, **options):
    return make_scorer({"scorer": "flr", "options": {"model": model, "follow_ups": follow_ups, **options}})


def planted(noise=0.0, seed=0):
    """Thanks are likelier after good words, complaints after bad ones."""
    table = noise * np.random.default_rng(seed).normal(size=(len(NAMES),) * 2)
    good, bad = ([NAMES.index(w) for w in some] for some in (GOOD, BAD))
    for words, sign in ((("thanks", "great"), 1.0), (("wrong", "no"), -1.0)):
        for word in words:
            table[NAMES.index(word), good] += 4 * sign
            table[NAMES.index(word), bad] -= 4 * sign
    return table


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A chat model that hears every word so far, with noise on every logit."""
    folder = tmp_path_factory.mktemp("follow")
    return save_toy(folder, WORDS, planted(noise=0.3), attention=5.0, chat=CHAT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model without a chat template that hears the last word alone, of a random table."""
    folder = tmp_path_factory.mktemp("plain")
    return save_toy(folder, WORDS, np.random.default_rng(7).normal(size=(len(NAMES),) * 2))


def test_the_sign_of_the_reward_is_the_planted_quality_in_ninety_five_of_a_hundred_answers(world):
    generator = np.random.default_rng(11)
    answers = [generator.choice([*GOOD, *BAD], 9) for _ in range(100)]
    quality = [sum(1 if word in GOOD else -1 for word in answer) for answer in answers]  # 9 words, never 0
    found = scorer(world).score(["q"] * 100, [" ".join(answer) for answer in answers])
    right = np.mean(np.sign(found) == np.sign(quality))
    assert right >= 0.95
    swapped = scorer(world, {"correctness": {"positive": DISPLEASED, "negative": PLEASED}})
    assert np.mean(np.sign(swapped.score(["q"] * 100, [" ".join(a) for a in answers])) == np.sign(quality)) <= 0.05


def test_the_reward_is_the_difference_of_mean_log_likelihoods_per_token_read_where_they_are_predicted(plain):
    """ "x" then "thanks": after the last word of the answer, and each later token after the one before it."""
    logp = log_softmax(np.random.default_rng(7).normal(size=(len(NAMES),) * 2))

    def after(last, *words):
        pairs = zip((last, *words), words, strict=False)
        return np.mean([logp[NAMES.index(y), NAMES.index(x)] for x, y in pairs])

    pleased = (after("bad0", "thanks") + after("bad0", "great", "thanks")) / 2
    displeased = (after("bad0", "wrong") + after("bad0", "no", "wrong")) / 2
    assert scorer(plain).score(["q"], ["good1 bad0"])[0] == pytest.approx(pleased - displeased, abs=1e-5)


def test_aspects_count_alike_however_long_their_lists(plain):
    lists = {
        "one": {"positive": ["thanks"], "negative": ["no"]},
        "two": {"positive": ["great", "thanks great", "great thanks"], "negative": ["wrong"]},
    }
    one, two, both = (
        scorer(plain, lists, aspects=aspects).score(["q"], ["good0"])[0] for aspects in (["one"], "two", None)
    )
    assert both == pytest.approx((one + two) / 2, abs=1e-6)
    doubled = {**lists, "one": {"positive": ["thanks", "thanks"], "negative": ["no"]}}
    assert scorer(plain, doubled).score(["q"], ["good0"])[0] == pytest.approx(both, abs=1e-6)


def test_equal_lists_give_exactly_zero_and_lists_exchanged_exactly_the_negative(world):
    same = {"any": {"positive": PLEASED, "negative": PLEASED[::-1]}}
    texts = ["good0 bad1", "bad0 bad0", "q"]
    assert scorer(world, same).score(["q"] * 3, texts).tolist() == [0.0, 0.0, 0.0]
    exchanged = {"correctness": {"positive": DISPLEASED, "negative": PLEASED}}
    np.testing.assert_array_equal(
        scorer(world, exchanged).score(["q"] * 3, texts), -scorer(world).score(["q"] * 3, texts)
    )


def test_a_model_that_finds_every_follow_up_alike_likely_gives_zero(tmp_path):
    flat = save_toy(tmp_path, WORDS, np.zeros((len(NAMES),) * 2), attention=1.0, chat=CHAT)
    assert scorer(flat).score(["q"], ["good0 good1"])[0] == pytest.approx(0.0, abs=1e-6)


def test_the_follow_up_stands_in_the_users_turn_of_the_chat_template(world):
    made = scorer(world)
    expected = "[BOS] user : q [EOS] [BOS] assistant : good0 [EOS] [BOS] user : "
    assert made._before("q", "good0", "thanks") == expected
    turns = (Message("system", "no"), Message("user", "q"))
    answer = (Message("assistant", "good0"),)
    assert made._before(turns, answer, "thanks") == "[BOS] system : no [EOS] " + expected
    assert made.score([(Message("user", "q"),)], [answer]).tolist() == made.score(["q"], ["good0"]).tolist()


def test_equal_responses_are_equal_and_each_is_scored_alone(world, monkeypatch):
    monkeypatch.setattr("unipref.rewards.scorers.flr._AT_ONCE", 2)
    made = scorer(world)
    texts = ["good0 bad1", "", "bad0 bad1 good3 q q q", "good0 bad1", "  ", "good3"]
    found = made.score(["q"] * 6, texts)
    alone = [made.score(["q"], [text])[0] for text in texts]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert found[0] == found[3]
    assert np.isnan(found).tolist() == [False, True, False, False, True, False]
    np.testing.assert_allclose(scorer(world, max_tokens_per_forward=1).score(["q"] * 6, texts), alone, atol=1e-5)
    assert made.score([], []).shape == (0,)


def test_a_conversation_longer_than_the_model_reads_has_no_score(world):
    long = " ".join(["good0"] * 20)
    whole = 5 + (3 + 20 + 1) + 3 + 2  # the user's turn, the answer's, the next turn's opening, the longest follow-up
    assert np.isnan(scorer(world, max_length=whole - 1).score(["q"], [long])).all()
    assert not np.isnan(scorer(world, max_length=whole).score(["q"], [long])).any()


def test_lists_may_come_from_a_file_and_the_version_follows_the_words_and_not_where_they_lie(world, tmp_path):
    path = tmp_path / "lists.yaml"
    path.write_text(yaml.safe_dump(LISTS), encoding="utf-8")
    from_file = scorer(world, str(path))
    assert from_file.version == scorer(world).version
    np.testing.assert_array_equal(from_file.score(["q"], ["good0"]), scorer(world).score(["q"], ["good0"]))
    other = {"correctness": {"positive": ["thanks"], "negative": DISPLEASED}}
    versions = {scorer(world, lists).version for lists in (LISTS, other, None)}
    assert len({*versions, scorer(world, max_length=64).version, scorer(world, None, aspects="relevance").version}) == 5
    assert isinstance(from_file, Scorer)


def test_the_packages_own_lists_have_six_aspects_of_five_and_five_and_no_text_on_both_sides():
    lists = bundled_follow_ups()
    assert len(lists) == 6
    positive = {text for sides in lists.values() for text in sides["positive"]}
    negative = {text for sides in lists.values() for text in sides["negative"]}
    assert len(positive) == len(negative) == 30
    assert not positive & negative
    for sides in lists.values():  # length alone tells the sides apart as little as may be
        words = [np.mean([len(text.split()) for text in sides[side]]) for side in ("positive", "negative")]
        assert abs(words[0] - words[1]) <= 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "model is a hub id, a folder or 'bundled', not None"),
        ({"follow_ups": "missing.yaml"}, "missing.yaml cannot be read"),
        ({"follow_ups": {}}, "is a mapping from aspects"),
        ({"follow_ups": ["thanks"]}, "is a mapping from aspects"),
        ({"follow_ups": {"tone": {"positive": ["a"]}}}, "'tone' has a list `positive` and a list `negative`"),
        ({"follow_ups": {"tone": {"positive": ["a"], "negative": []}}}, "'tone' has an empty list"),
        ({"follow_ups": {"tone": {"positive": ["a"], "negative": [3]}}}, "a text or a list of texts, not"),
        ({"aspects": ["relevanse"]}, r"no aspect 'relevanse' \(did you mean 'relevance'\?\)"),
        ({"dtype": "fp8"}, "no dtype named 'fp8'"),
    ],
)
def test_a_wrong_option_is_refused_before_a_model_is_loaded(options, message):
    with pytest.raises(ConfigError, match=message):
        make_scorer({"scorer": "flr", "options": {"model": "org/model", **options}})


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "lists.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"lists\.yaml is no YAML"):
        make_scorer({"scorer": "flr", "options": {"model": "org/m", "follow_ups": str(tmp_path / "lists.yaml")}})


def test_a_template_that_changes_a_follow_ups_words_is_named(tmp_path):
    shouting = CHAT.replace("m['content']", "m['content'] | upper")
    folder = save_toy(tmp_path, WORDS, planted(), chat=shouting)
    with pytest.raises(ConfigError, match="changes the words of the follow-up 'thanks'"):
        scorer(folder).score(["q"], ["good0"])


def test_a_response_that_the_chat_template_refuses_has_no_score_beside_one_that_has(tmp_path):
    strict = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    folder = save_toy(tmp_path, WORDS, planted(), chat=strict + CHAT)
    refused = (Message("system", "q"), Message("user", "q"))
    found = scorer(folder).score([refused, (Message("user", "q"),)], ["good0", "good0"])
    assert np.isnan(found).tolist() == [True, False]
