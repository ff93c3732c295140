"""Regularized relevance: its three terms by hand, its limits, and what each term is there to prevent."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.core.protocols import Scorer
from unipref.core.records import Message
from unipref.rewards import DesignerObjectives, make_scorer
from unipref.rewards.scorers.r3 import distinct_trigrams

TOPICS = {"egg": 0, "boil": 0, "water": 0, "minutes": 0, "pan": 0, "tax": 1, "form": 1, "law": 1}


@dataclass(frozen=True)
class Topics:
    """A planted retriever: words have a direction of their topic and one of their own, half as long."""

    name: str = "topics"
    identity: str | None = "topics 1"
    own: float = 0.5
    dimension: int = 64

    def embed(self, texts):
        found = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in text.lower().replace("?", "").replace(".", "").split():
                row[2 + sum(map(ord, word)) % (self.dimension - 2)] += self.own
                if word in TOPICS:
                    row[TOPICS[word]] += 1.0
        return found


@dataclass(frozen=True)
class Table:
    """Vectors that are written down."""

    vectors: tuple[tuple[str, tuple[float, ...]], ...]
    name: str = "table"
    identity: str = "table"
    dimension: int = 2

    def embed(self, texts):
        return np.array([dict(self.vectors).get(text, (0.0, 0.0)) for text in texts], np.float32)


def scorer(**options):
    return make_scorer({"scorer": "r3", "options": {"embedder": Topics(), **options}})


def test_an_open_prompt_gives_cosine_times_length_times_distinct_trigrams():
    table = Table((("x", (3.0, 4.0)), ("a b c a b c", (2.0, 0.0)), ("a b", (0.0, -7.0))))
    made = scorer(embedder=table)
    found = made.score(["x", "x"], ["a b c a b c", "a b"])
    assert found == pytest.approx([3 / 5 * 6 / 100 * 3 / 4, 0.0], abs=1e-7)  # a cosine of -4/5 counts 0
    assert scorer(embedder=table, per=3, cap=1.5).score(["x"], ["a b c a b c"])[0] == pytest.approx(
        3 / 5 * 1.5 * 3 / 4, abs=1e-7
    )


def test_the_share_of_distinct_trigrams_is_one_without_repetition_and_below_three_tokens():
    assert [distinct_trigrams(text.split()) for text in ("", "a", "a a", "a b c d e")] == [1.0] * 4
    assert distinct_trigrams(list("aaa")) == 1.0
    assert distinct_trigrams(["a"] * 12) == 1 / 10
    assert distinct_trigrams(list("ababab")) == 2 / 4


def test_the_score_grows_in_proportion_to_length_and_a_cap_ends_that():
    words = [f"w{k}" for k in range(400)]
    texts = [" ".join(words[:n]) for n in (50, 100, 200, 400)]
    same = Table((("x", (1.0, 0.0)), *((text, (1.0, 1.0)) for text in texts)))
    found = scorer(embedder=same).score(["x"] * 4, texts)
    np.testing.assert_allclose(found, math.sqrt(0.5) * np.array([0.5, 1, 2, 4]), rtol=1e-6)
    capped = scorer(embedder=same, cap=1.0).score(["x"] * 4, texts)
    np.testing.assert_allclose(capped, math.sqrt(0.5) * np.array([0.5, 1, 1, 1]), rtol=1e-6)


QUESTION = "How do I boil an egg?"
INFORMATIVE = (
    "Put the egg in a pan of water and bring it to the boil. Count nine minutes for a hard yolk, or six for a soft "
    "one, then cool it under the tap so that its shell comes off."
)


def test_relevance_alone_prefers_a_copy_of_the_question_and_the_whole_prefers_what_informs():
    vectors = Topics().embed([QUESTION, INFORMATIVE])
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert cosine < 1.0  # that of a copy
    copy, informative = scorer().score([QUESTION] * 2, [QUESTION, INFORMATIVE])
    assert copy < informative


def test_a_long_answer_off_the_topic_scores_below_a_short_one_on_it():
    off = " ".join(f"The tax form number {k} asks for the law of year {1900 + k}." for k in range(4))
    on = "Boil the egg in water for nine minutes."
    short, long = scorer().score([QUESTION] * 2, [on, off])
    assert len(off.split()) > 5 * len(on.split())
    assert long < short


def test_a_phrase_said_again_and_again_keeps_three_tenths_of_its_score_at_most():
    phrase = "Boil the egg in water."
    repeated = " ".join([phrase] * 12)
    n = 5 * 12
    assert distinct_trigrams(repeated.lower().replace(".", "").split()) == 5 / (n - 2)
    assert 5 / (n - 2) <= 0.3
    varied = scorer(per=n).score([QUESTION], [INFORMATIVE])[0] * n / len(INFORMATIVE.split())
    assert scorer(per=n).score([QUESTION], [repeated])[0] < varied


def test_an_empty_response_says_nothing_and_scores_zero():
    assert scorer().score([QUESTION] * 3, ["", " \n", "?!"]).tolist() == [0.0, 0.0, 0.0]


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"prompt": "How long does an egg boil?", "gold": "Nine minutes."}\n'
        '{"prompt": "How long does an egg boil?", "gold": "egg water"}\n'
        '{"prompt": [{"role": "user", "content": "Which form?"}], "reference": "The tax form"}\n'
        '{"prompt": "Tell me a story."}\n',
        encoding="utf-8",
    )
    return str(path)


def test_where_an_answer_is_known_nearness_to_it_counts_and_length_does_not(answers):
    made = scorer(references=answers)
    prompt = "how long  does an EGG boil?"
    right, second, off = made.score([prompt] * 3, ["Nine minutes.", "egg water", "tax law"])
    assert right == second == pytest.approx(1.0, abs=1e-6)  # the largest there is, at two words
    assert off < 0.3
    turns = (Message("user", "Which form?"),)
    assert made.score([turns], ["the tax form"])[0] == pytest.approx(1.0, abs=1e-6)
    story = scorer().score(["Tell me a story."], ["A pan of water."])
    assert made.score(["Tell me a story."], ["A pan of water."]) == story  # no answer is known: open


def test_the_range_of_nearness_to_an_answer_is_mapped_straight_to_zero_and_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x", "gold": "y"}\n', encoding="utf-8")
    cosines = (0.2, 0.5, 0.8, 0.95)
    table = Table((("y", (1.0, 0.0)), *((f"t{c}", (c, math.sqrt(1 - c * c))) for c in cosines)))
    made = scorer(embedder=table, references=str(path), reference_range=[0.4, 0.9])
    found = made.score(["x"] * 4, [f"t{c}" for c in cosines])
    assert found == pytest.approx([0.0, 0.2, 0.8, 1.0], abs=1e-6)


def test_tokens_are_letters_where_no_spaces_are_written():
    japanese = "\u5375\u3092\u6c34\u3067\u8339\u3067\u308b"  # seven letters
    made = scorer(embedder=Table(((QUESTION, (1.0, 0.0)), (japanese, (1.0, 0.0)))), per=7)
    assert made.score([QUESTION], [japanese])[0] == pytest.approx(1.0, abs=1e-6)


def test_a_response_is_scored_alone_and_the_last_user_turn_is_the_question(answers):
    made = make_scorer({"scorer": "r3", "options": {"embedder": "hashed", "references": answers}})
    before = (Message("system", "tax law"), Message("user", "tax?"), Message("assistant", "?"))
    turns = (*before, Message("user", QUESTION))
    prompts = [QUESTION, turns, "How long does an egg boil?", "Tell me a story."]
    texts = [INFORMATIVE, INFORMATIVE, "Nine minutes.", ""]
    found = made.score(prompts, texts)
    np.testing.assert_array_equal(found, [made.score([p], [t])[0] for p, t in zip(prompts, texts, strict=True)])
    assert found[0] == found[1] > 0
    answer = (Message("assistant", INFORMATIVE),)
    assert made.score([turns], [answer])[0] == found[0]
    assert made.score([], []).shape == (0,)


def test_the_version_follows_the_embedder_the_options_and_the_known_answers(answers):
    first = make_scorer({"scorer": "r3", "options": {"embedder": "hashed"}})
    assert isinstance(first, Scorer)
    others = [
        scorer(embedder="hashed", references=answers),
        scorer(embedder={"hashed": {"dimension": 256}}),
        scorer(embedder="hashed", cap=2),
        scorer(embedder="hashed", per=50),
        scorer(embedder="hashed", reference_range=(0, 0.9)),
        scorer(),
    ]
    assert len({first.version, *(other.version for other in others)}) == 7
    assert scorer(embedder=Topics(identity=None)).version is None


def test_it_is_an_objective_like_any_other():
    made = DesignerObjectives.from_config(
        {"relevant": {"scorer": "r3", "options": {"embedder": "hashed", "cap": 1}, "weight": 0.5}}
    )
    found = made.score_texts([QUESTION], [INFORMATIVE])
    assert 0 < found["relevant"][0] <= 1
    assert found["reward"][0] == 0.5 * found["relevant"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per": 0}, "per is a number above 0"),
        ({"cap": -1}, "cap is a number above 0"),
        ({"reference_range": [1, 0]}, "low below high"),
        ({"reference_range": 1}, r"reference_range is \[low, high\], not 1"),
        ({"embedder": "hasht"}, r"no features named 'hasht' \(did you mean 'hashed'\?\)"),
        ({"embedder": "surface"}, "'surface' makes no vectors of texts alone"),
        ({"references": 3}, "references is the path of a data file"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_scorer({"scorer": "r3", "options": {"embedder": "hashed", **options}})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"prompt": "x"}\n', "no row of .* has an answer"),
        ('{"question": "x", "gold": "y"}\n', "line 1: expected the texts `prompt` and `gold`, found question, gold"),
        ('{"prompt": "x", "gold": 3}\n', "line 1: expected the texts `prompt` and `gold`"),
        ('{"prompt": "x", "gold": "y"}\n{"prompt"\n', "line 2: "),
    ],
)
def test_a_file_of_answers_that_cannot_be_read_is_named_with_its_line(tmp_path, rows, message):
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        scorer(references=str(tmp_path / "a.jsonl")).score(["x"], ["y"])
