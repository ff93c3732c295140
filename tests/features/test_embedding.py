"""Facts about vectors of texts that need no model."""

import hashlib
import math

import numpy as np
import pytest

from unipref.core.errors import ConfigError, MissingExtraError
from unipref.features import embedding
from unipref.features.embedding import Hashed, SurfaceVector, bag_of_words, default_embedder, make_embedder
from unipref.features.surface import SURFACE

TEXTS = ["A cat sat on the mat.", "Stock prices fell again.", "東京タワーに行く", "", "a " * 300, "caf\u00e9 \ud800"]


def by_hand(term: str, dimension: int) -> tuple[int, float]:
    digest = hashlib.blake2b(term.encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    return (number % 2**63) % dimension, -1.0 if number >> 63 else 1.0


def test_a_hashed_vector_holds_log_of_one_plus_the_count_where_the_hash_says():
    expected = np.zeros(64)
    for term, count in (("wthe", 2), ("wcat", 1), ("wsees", 1)):
        entry, sign = by_hand(term, 64)
        expected[entry] += sign * math.log1p(count)
    found = Hashed(64, words=1, letters=None, unit=False).embed(["The cat sees the"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_runs_of_letters_see_the_spaces_between_words_and_the_ends_of_the_text():
    expected = np.zeros(64)
    for term in ("c a ", "ca b", "c b "):  # of " a b "
        entry, sign = by_hand(term, 64)
        expected[entry] += sign * math.log(2)
    found = Hashed(64, words=0, letters=(3, 3), unit=False).embed(["A\n b"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_text_has_length_one_an_empty_one_has_none_and_its_neighbours_do_not_matter():
    together = Hashed().embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 1, 0, 1, 1], atol=1e-6)
    for row, text in zip(together, TEXTS, strict=True):
        np.testing.assert_array_equal(row, Hashed().embed([text])[0])


def test_case_and_width_of_letters_do_not_matter_and_scripts_without_spaces_have_words():
    a, b, c, d = Hashed().embed(["Hello \uff37\uff4f\uff52\uff4c\uff44", "hello world", "東京タワー", "東京タワーだ"])
    np.testing.assert_array_equal(a, b)
    assert c @ d > 0.5
    assert abs(a @ c) < 0.1


def test_with_signs_products_of_unrelated_texts_are_zero_on_average_and_without_they_are_not():
    # 40 texts of 30 words that no two share, in 128 entries: an unsigned product counts the entries in common, about
    # 30 * 30 / 128 terms; a signed one is a sum of as many random signs, and its mean over 780 pairs has a standard
    # deviation of about log(2)^2 * sqrt(7 / 780) = 0.05: 5 of them are 0.23
    texts = [" ".join(f"w{i}x{j}" for j in range(30)) for i in range(40)]
    upper = np.triu_indices(40, 1)
    signed, plain = (
        Hashed(128, words=1, letters=None, signed=signed, unit=False).embed(texts) for signed in (True, False)
    )
    assert abs((signed @ signed.T)[upper].mean()) < 0.23
    assert (plain @ plain.T)[upper].mean() > 2.5


def test_a_bag_of_words_grows_with_the_text_and_forgets_the_order():
    a, b, longer = bag_of_words().embed(["dogs bite men", "men bite dogs", "men bite dogs every single day"])
    np.testing.assert_array_equal(a, b)
    assert a.sum() == pytest.approx(3 * math.log(2))
    assert (longer >= a).all()
    assert longer.sum() == pytest.approx(6 * math.log(2))


def test_surface_vectors_have_the_thirty_names_and_zero_where_english_is_not_written():
    block = SurfaceVector()
    english, japanese = block.of_responses(["hi", "hi"], ["I cannot do that. Maybe try this?", "東京タワーに行く"])
    at = {name.removeprefix("surface."): j for j, name in enumerate(block.columns)}
    assert list(at) == list(SURFACE)
    assert english[at["refusals"]] == pytest.approx(math.log(2))
    assert english[at["hedges"]] == pytest.approx(math.log(2))
    assert japanese[[at["refusals"], at["hedges"], at["reading_ease"], at["long_words"]]].tolist() == [0, 0, 0, 0]
    assert japanese[at["characters"]] == pytest.approx(math.log1p(8))
    assert np.isfinite(block.of_responses(["", ""], ["", "x"])).all()


def test_an_identity_changes_with_every_option_that_changes_a_vector():
    choices = [Hashed(), Hashed(512), Hashed(words=1), Hashed(letters=(3, 5)), Hashed(letters=None),
               Hashed(signed=False), Hashed(unit=False)]  # fmt: skip
    assert len({str(choice.identity) for choice in choices}) == len(choices)
    assert Hashed(name="other").identity == Hashed().identity  # a column's name is no number


def test_names_and_options_that_are_not_known_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no features named 'hash' .*'hashed'"):
        make_embedder("hash")
    with pytest.raises(ConfigError, match=r"hashed cannot be made of .*'size': 3"):
        make_embedder({"hashed": {"size": 3}})
    with pytest.raises(ConfigError, match="one NAME: OPTIONS"):
        make_embedder({"hashed": {}, "surface": {}})
    with pytest.raises(ConfigError, match="dimension is a whole number of 1 or more, not 0"):
        make_embedder({"hashed": {"dimension": 0}})
    with pytest.raises(ConfigError, match=r"\[3, 4\], not \(4, 3\)"):
        Hashed(letters=(4, 3))
    with pytest.raises(ConfigError, match="counts nothing"):
        Hashed(words=0, letters=None)
    assert make_embedder({"hashed": {"letters": [2, 3]}}) == Hashed(letters=(2, 3))


def test_without_the_sentence_model_the_default_is_hashed_and_asking_for_it_names_the_extra(monkeypatch):
    monkeypatch.setattr(embedding._encoder, "MINILM", "no_such_package")
    assert default_embedder() == "hashed"
    assert make_embedder("default") == Hashed()
    with pytest.raises(MissingExtraError, match=r"pip install 'unipref\[embeddings\]', or take the features hashed"):
        make_embedder("minilm")
