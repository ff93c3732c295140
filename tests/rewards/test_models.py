"""Facts about the scorers that run a model: what they read, and that batching leaves their numbers alone."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from unipref.core.errors import ConfigError
from unipref.core.protocols import Scorer
from unipref.core.records import Message
from unipref.rewards import make_scorer

TEXTS = ["the cat sat", "you are rude", "", "kind dogs and a cat sat on the mat so we like you", "hello", "  \n"]


def classifier(model, **options):
    return make_scorer({"scorer": "classifier", "options": {"model": model, **options}})


def reward_model(model, **options):
    return make_scorer({"scorer": "reward_model", "options": {"model": model, **options}})


def score(scorer, texts, context="hello"):
    return scorer.score([context] * len(texts), texts)


def plain_logits(folder, text, pair=None, **options):
    """The slow twin: one text, no padding, no batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, pair, return_tensors="pt", **options)
    with torch.inference_mode():
        return model(**inputs).logits[0].double().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_safety_is_one_minus_the_greatest_probability_of_its_labels(toxic):
    p = sigmoid(plain_logits(toxic, "you are rude"))
    assert score(classifier(toxic), ["you are rude"])[0] == pytest.approx(1 - max(p), abs=1e-6)
    assert score(classifier(toxic, aggregation="max"), ["you are rude"])[0] == pytest.approx(max(p), abs=1e-6)
    assert score(classifier(toxic, aggregation="mean"), ["you are rude"])[0] == pytest.approx(sum(p) / 3, abs=1e-6)
    mean = score(classifier(toxic, aggregation="one_minus_mean"), ["you are rude"])[0]
    assert mean == pytest.approx(1 - sum(p) / 3, abs=1e-6)


def test_the_papers_printed_safety_is_one_minus_the_least_probability(toxic):
    p = sigmoid(plain_logits(toxic, "you are rude"))
    printed = score(classifier(toxic, aggregation="paper_printed"), ["you are rude"])[0]
    assert printed == pytest.approx(max(1 - x for x in p), abs=1e-6)
    assert printed == pytest.approx(1 - min(p), abs=1e-6)


def test_named_labels_are_the_ones_that_count(toxic):
    p = sigmoid(plain_logits(toxic, "the cat"))
    got = score(classifier(toxic, labels=["threat", "toxic"]), ["the cat"])[0]
    assert got == pytest.approx(1 - max(p[2], p[0]), abs=1e-6)
    assert score(classifier(toxic, labels="insult", aggregation="max"), ["the cat"])[0] == pytest.approx(p[1], abs=1e-6)


def test_a_single_label_model_gives_softmax_and_needs_to_be_told_which_label_counts(save_bert):
    folder = save_bert(["negative", "positive"])
    z = plain_logits(folder, "we like dogs")
    expected = math.exp(z[1]) / (math.exp(z[0]) + math.exp(z[1]))
    positive = classifier(folder, labels=["positive"], aggregation="max")
    assert score(positive, ["we like dogs"])[0] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigError, match="sum to 1, so labels must say which count: negative, positive"):
        score(classifier(folder), ["we like dogs"])


def test_the_configuration_of_the_model_decides_between_sigmoid_softmax_and_none(save_bert):
    one = save_bert(["toxic"])
    z = plain_logits(one, "a mat")[0]
    assert score(classifier(one, aggregation="max"), ["a mat"])[0] == pytest.approx(sigmoid(z), abs=1e-6)
    regression = save_bert(["quality"], problem_type="regression")
    z = plain_logits(regression, "a mat")[0]
    assert score(classifier(regression, aggregation="max"), ["a mat"])[0] == pytest.approx(z, abs=1e-6)
    two = save_bert(["negative", "positive"])
    z = plain_logits(two, "a mat")
    got = score(classifier(two, activation="sigmoid", aggregation="max"), ["a mat"])[0]
    assert got == pytest.approx(max(sigmoid(z)), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batching_and_order_leave_each_classification_as_it_is_alone(toxic, batch_size):
    alone = [score(classifier(toxic), [text])[0] for text in TEXTS]
    np.testing.assert_allclose(score(classifier(toxic, batch_size=batch_size), TEXTS), alone, atol=1e-6)
    backwards = score(classifier(toxic, batch_size=batch_size), TEXTS[::-1])[::-1]
    np.testing.assert_allclose(backwards, alone, atol=1e-6)


def test_an_empty_response_has_no_score_and_not_zero(toxic, reward):
    assert np.isnan(score(classifier(toxic), TEXTS)).tolist() == [False, False, True, False, False, True]
    assert np.isnan(score(reward_model(reward), TEXTS)).tolist() == [False, False, True, False, False, True]
    assert np.isnan(score(classifier(toxic), ["", " "])).all()
    assert score(classifier(toxic), []).shape == (0,)


def test_a_longer_response_is_cut_at_what_the_model_can_read(save_bert):
    folder = save_bert(["toxic"], positions=8)  # [CLS] + 6 words + [SEP]
    six, more = "the cat sat on a mat", "the cat sat on a mat and you are rude"
    assert score(classifier(folder), [more]) == score(classifier(folder), [six])
    short = save_bert(["toxic"], positions=32)
    assert score(classifier(short, max_length=8), [more]) == score(classifier(short, max_length=8), [six])
    assert score(classifier(short), [more]) != score(classifier(short), [six])


def test_a_conversation_is_classified_by_its_response_alone(toxic):
    turns = (Message("user", "you are rude"),)
    answer = (Message("assistant", "the cat sat"),)
    assert classifier(toxic).score([turns], [answer]) == classifier(toxic).score(["hello"], ["the cat sat"])


def test_the_reward_is_the_models_output_on_its_own_chat_template(reward):
    text = "[BOS] user : hello you [EOS] [BOS] assistant : the cat sat [EOS] "
    expected = plain_logits(reward, text, add_special_tokens=False)[0]
    turns = (Message("user", "hello you"),)
    assert score(reward_model(reward), ["the cat sat"], "hello you")[0] == pytest.approx(expected, abs=1e-6)
    got = reward_model(reward).score([turns], [(Message("assistant", "the cat sat"),)])[0]
    assert got == pytest.approx(expected, abs=1e-6)
    assert score(reward_model(reward), ["the cat sat"], "you")[0] != pytest.approx(expected, abs=1e-3)


def test_a_system_turn_and_earlier_turns_are_read(reward):
    turns = (Message("system", "kind"), Message("user", "a"), Message("assistant", "mat"), Message("user", "you"))
    text = (
        "[BOS] system : kind [EOS] [BOS] user : a [EOS] [BOS] assistant : mat [EOS] [BOS] user : you [EOS] "
        "[BOS] assistant : hello [EOS] "
    )
    expected = plain_logits(reward, text, add_special_tokens=False)[0]
    assert reward_model(reward).score([turns], ["hello"])[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batching_leaves_each_reward_as_it_is_alone_with_and_without_a_padding_token(save_llama, pad, batch_size):
    folder = save_llama(pad=pad)
    alone = [score(reward_model(folder), [text])[0] for text in TEXTS]
    np.testing.assert_allclose(score(reward_model(folder, batch_size=batch_size), TEXTS), alone, atol=1e-6)


def test_a_model_without_a_chat_template_reads_context_and_response_as_a_pair(save_bert):
    folder = save_bert(["reward"])
    expected = plain_logits(folder, "hello you", "the cat sat")[0]
    assert score(reward_model(folder), ["the cat sat"], "hello you")[0] == pytest.approx(expected, abs=1e-6)
    alone = [score(reward_model(folder), [text], "hello you")[0] for text in TEXTS]
    np.testing.assert_allclose(score(reward_model(folder), TEXTS, "hello you"), alone, atol=1e-6)


def test_where_it_is_too_long_the_beginning_of_the_context_is_cut_and_the_response_read(save_bert, save_llama):
    pair = save_bert(["reward"], positions=8)  # [CLS] 2 words [SEP] 3 words [SEP]
    long = score(reward_model(pair), ["the cat sat"], "rude rude rude rude hello you")
    assert long == score(reward_model(pair), ["the cat sat"], "hello you")
    assert np.isfinite(score(reward_model(pair), ["the cat sat on a mat and a mat and a mat"], "hello you")).all()
    chat = save_llama()
    text = "you [EOS] [BOS] assistant : the cat sat [EOS]"  # the last nine
    expected = plain_logits(chat, text, add_special_tokens=False)[0]
    got = score(reward_model(chat, max_length=9), ["the cat sat"], "rude rude hello you")[0]
    assert got == pytest.approx(expected, abs=1e-6)


def test_a_reward_model_with_more_than_one_output_is_refused(save_llama):
    with pytest.raises(ConfigError, match="has 3 outputs, and 1 was expected; use the scorer classifier"):
        score(reward_model(save_llama(outputs=3)), ["hello"])


def test_a_base_model_without_a_trained_head_is_refused(tmp_path, toxic):
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(toxic).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no trained classification model: its files lack \['classifier\.bias'"):
        score(classifier(str(tmp_path), labels="LABEL_0"), ["hello"])


def test_a_model_that_is_not_there_is_refused_before_anything_is_scored(tmp_path):
    for name in (str(tmp_path / "missing"), str(tmp_path), "./missing"):
        with pytest.raises(ConfigError, match="there is no model at"):
            classifier(name)


def test_an_unknown_label_names_the_nearest(toxic):
    with pytest.raises(ConfigError, match=r"no label 'thread' \(did you mean 'threat'\?\)"):
        score(classifier(toxic, labels=["thread"]), ["hello"])


def test_the_version_follows_the_weights_and_the_options_that_decide_the_number(save_bert, toxic):
    labels = ["toxic", "insult", "threat"]
    other = save_bert(labels, problem_type="multi_label_classification", seed=1)
    same = save_bert(labels, problem_type="multi_label_classification")
    version = classifier(toxic).version
    assert classifier(same).version == version
    assert classifier(toxic, batch_size=1).version == version
    assert classifier(toxic, labels=labels).version == version
    different = [
        classifier(other),
        classifier(toxic, aggregation="max"),
        classifier(toxic, labels=labels[:2]),
        classifier(toxic, max_length=16),
        classifier(toxic, activation="none"),
        classifier(toxic, dtype="bfloat16"),
    ]
    assert len({version, *(scorer.version for scorer in different)}) == 7


def test_another_chat_template_is_another_version(save_llama):
    first = reward_model(save_llama())
    assert reward_model(save_llama()).version == first.version
    assert reward_model(save_llama(chat="{{ messages[-1]['content'] }}")).version != first.version


def test_the_model_scorers_are_scorers(toxic, reward):
    assert isinstance(classifier(toxic), Scorer)
    assert isinstance(reward_model(reward), Scorer)
