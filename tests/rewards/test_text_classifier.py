"""Facts about the classifier that is fitted to labelled texts: its optimum, its halves, its edges."""

import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from unipref.core.errors import ConfigError
from unipref.core.records import Message
from unipref.features.terms import Vocabulary, terms_of
from unipref.rewards import make_scorer
from unipref.rewards.scorers import _logistic, text_classifier
from unipref.rewards.scorers.text_classifier import half_of

GOOD, BAD = ("fine", "warm", "bright", "deft"), ("dull", "flat", "stale", "limp")
FILLER = ("film", "plot", "scene", "actor", "camera", "ending", "story", "score", "cut", "light")

BY_CHANCE = [{"text": f"the same words {i}", "label": "up" if i % 3 else "down"} for i in range(30)]


def written(n=240, *, noise=0.0, seed=0):
    """Rows of which the label is whether a word of GOOD stands there, flipped at the rate `noise`."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        words = [*rng.choice(FILLER, 6), str(rng.choice(GOOD if i % 2 else BAD)), f"n{i}"]
        up = bool(i % 2) != (rng.random() < noise)
        rows.append({"text": " ".join(rng.permutation(words)), "label": "up" if up else "down"})
    return rows


@pytest.fixture
def file(tmp_path):
    def write(rows, name="labelled.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def scorer(data, **options):
    return make_scorer({"scorer": "text_classifier", "options": {"data": data, "positive": "up", **options}})


def score(made, *texts):
    return made.score([""] * len(texts), texts)


def test_terms_are_words_and_their_pairs_or_pieces_of_words_each_once():
    assert terms_of("Not GOOD, not good!") == {"not", "good", "not good", "good not"}
    assert terms_of("Ab", unit="characters", order=3) == {"_a", "ab", "b_", "_ab", "ab_"}


def test_a_row_holds_the_rarity_of_its_known_terms_and_has_length_one():
    texts = ["a b", "a c", "a b"]  # a in 3 of 3, b and "a b" in 2, c and "a c" in 1: too few
    known = Vocabulary.of(texts)
    assert list(known.index) == ["a", "a b", "b"]
    rare = 1 + math.log(4 / 3)
    assert known.rarity.tolist() == [1.0, rare, rare]
    row = known.rows(["a b c"])
    assert row.value.tolist() == pytest.approx(np.array([1, rare, rare]) / math.sqrt(1 + 2 * rare**2), rel=1e-15)
    assert known.rows(["c"]).value.size == 0


@pytest.mark.parametrize("penalty", [0.02, 1.0])
def test_the_fit_is_the_optimum_that_scikit_learn_finds(penalty):
    rows = written(120, noise=0.2)
    vocabulary = Vocabulary.of([row["text"] for row in rows])
    sparse = vocabulary.rows([row["text"] for row in rows])
    labels = np.array([row["label"] == "up" for row in rows])
    dense = np.zeros((len(rows), len(vocabulary.index)))
    dense[sparse.row, sparse.column] = sparse.value
    found = _logistic.fit(sparse, labels, size=dense.shape[1], penalty=penalty)
    oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(dense, labels)
    assert found.weights == pytest.approx(oracle.coef_[0], abs=1e-4)
    assert found.bias == pytest.approx(float(oracle.intercept_[0]), abs=1e-4)


def test_weight_two_is_the_row_twice():
    vocabulary = Vocabulary.of(texts := [row["text"] for row in written(40, noise=0.2)])
    labels = np.array([row["label"] == "up" for row in written(40, noise=0.2)])
    counts = np.where(np.arange(40) < 10, 2.0, 1.0)
    size = len(vocabulary.index)
    once = _logistic.fit(vocabulary.rows(texts), labels, size=size, penalty=0.5, counts=counts)
    twice = _logistic.fit(
        vocabulary.rows([*texts, *texts[:10]]), np.concatenate([labels, labels[:10]]), size=size, penalty=0.5
    )
    assert once.weights == pytest.approx(twice.weights, abs=1e-6)


def test_calibration_recovers_a_logit_that_was_stretched_and_shifted():
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 2, 40_000)
    labels = rng.random(40_000) < 1 / (1 + np.exp(-truth))
    slope, shift = _logistic.calibration((truth - 0.7) / 3, labels)
    # the fit's own standard errors are about 0.03 and 0.013; six of them: a false alarm in a thousand million runs
    assert slope == pytest.approx(3, abs=0.18)
    assert shift == pytest.approx(0.7, abs=0.08)


def test_the_two_halves_share_no_text_and_no_copy_of_one_and_leave_none_out(file):
    rows = written(200)
    copies = [{**row, "text": f"  {row['text'].upper()}\n"} for row in rows]
    halves = [half_of(row["text"]) for row in rows]
    assert halves == [half_of(row["text"]) for row in copies]
    assert 70 < halves.count("first") < 130  # 200 coins: outside in 2 of 100,000 draws
    sizes = {half: scorer(file([*rows, *copies]), half=half).facts()["texts"] for half in ("first", "second", "all")}
    assert sizes == {"first": halves.count("first"), "second": halves.count("second"), "all": 200}


def test_a_planted_rule_is_learned_and_holds_on_the_other_half(file):
    made = scorer(file(written(400)), half="first")
    facts = made.facts()["held_out"][""]
    assert facts["accuracy"] > 0.98  # a coin would be right on half; the one or two missed hinge on the other words
    assert facts["n"] == sum(half_of(row["text"]) == "second" for row in written(400))
    assert set(made.telling(4)[0]) == set(GOOD)
    assert set(made.telling(4)[1]) == set(BAD)


def test_the_order_of_the_rows_and_copies_of_them_change_nothing(file):
    rows = written(120, noise=0.1)
    first = score(scorer(file(rows)), "a deft film", "a dull plot")
    other = score(scorer(file([*rows[::-1], *rows[:30]], "turned.jsonl")), "a deft film", "a dull plot")
    assert first.tolist() == other.tolist()


def test_the_probability_is_the_logistic_function_of_the_logit(file):
    data = file(written(120, noise=0.2))
    texts = ("a deft film", "a dull and stale film", "camera")
    logits, shares = score(scorer(data), *texts), score(scorer(data, output="probability"), *texts)
    assert shares == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-12)
    assert shares[0] > 0.5 > shares[1]


def test_a_text_without_a_known_term_has_no_score_and_messages_are_read_as_their_words(file):
    made = scorer(file(written(120)))
    found = made.score(["", "", (), ""], ["", "zzz qqq", (Message("assistant", "deft"),), "deft"])
    assert np.isnan(found[:2]).all()
    assert found[2] == found[3] > 0


def test_pieces_of_words_carry_over_to_forms_that_were_never_read(file):
    data = file(written(240))
    assert np.isnan(score(scorer(data), "deftly")[0])
    assert (
        score(scorer(data, unit="characters"), "deftly")[0] > 0 > score(scorer(data, unit="characters"), "dullest")[0]
    )


def test_the_version_follows_the_texts_and_the_options_and_not_the_name_of_the_file(file):
    rows = written(60)
    made = scorer(file(rows))
    assert made.version == scorer(file(rows, "again.jsonl")).version
    assert made.version == scorer(file(rows), order=2).version
    others = [scorer(file(rows), half="first"), scorer(file(rows), output="probability"), scorer(file(rows), order=1)]
    others.append(scorer(file([*rows, *written(2, seed=9)], "more.jsonl")))
    assert made.version not in {other.version for other in others}


def test_the_bundled_texts_are_read_whole_and_half_of_them_are_positive():
    texts, _ = text_classifier._texts("bundled:movie-sentiment")
    parts = [text.part for text in texts]
    assert (parts.count("reviews"), parts.count("snippets")) == (2000, 10_662)
    assert sum(text.label == "pos" for text in texts) == 1000 + 5331


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{"text": "a", "label": "up"}] * 9, {}, "every text has the label 'up'"),
        (written(40), {"positive": "ups"}, "no text has the label 'ups'.*up"),
        ([*written(40), {"text": "b"}], {}, "line 41: expected `text` and `label`"),
        (written(6), {}, "fewer than 4 texts"),
        (BY_CHANCE, {}, "no better than chance"),
    ],
)
def test_labelled_texts_that_teach_nothing_are_refused(file, rows, options, words):
    with pytest.raises(ConfigError, match=words):
        score(scorer(file(rows), **options), "a text")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"half": "third"}, "half is one of"),
        ({"output": "logits"}, "output is one of.*logit"),
        ({"penalty": 0}, "above 0"),
        ({"unit": "characters", "order": 1}, "give order 2 or more"),
        ({"data": "bundled:movies"}, "no bundled labelled texts named 'movies'"),
        ({"data": "nowhere.jsonl"}, "there is no file 'nowhere.jsonl'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        score(make_scorer({"scorer": "text_classifier", "options": options}), "a text")
