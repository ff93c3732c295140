"""What the bundled model was trained on: no held-out conversation, and text without its corpora's own marks."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from unipref.data.split import conversation_key, is_heldout

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))  # the script imports `ngram` from its own folder
        yield import_module("train_bundled_model")
    for name in ("train_bundled_model", "ngram"):
        sys.modules.pop(name, None)


def test_every_comparison_is_on_the_side_that_its_first_user_turn_hashes_to(script):
    pairs, n_malformed = script.read_pairs()
    assert (len(pairs), n_malformed) == (2308, 4)
    for pair in pairs:
        assert pair.chosen[0] == pair.rejected[0]
        assert pair.heldout == is_heldout(conversation_key(pair.chosen[0][1]), share=0.2)


def test_training_documents_start_with_no_heldout_conversation(script):
    tokenizer = script.AutoTokenizer.from_pretrained(script.ASSETS / "model")
    pairs, _ = script.read_pairs()
    trained, _ = script.encode(pairs, [], tokenizer, heldout=False)
    held, _ = script.encode(pairs, [], tokenizer, heldout=True)

    def first_turns(conversations) -> set[str]:
        texts = (tokenizer.decode(side.ids) for pair in conversations for side in pair)
        return {conversation_key(text.split("<|user|>", 1)[1].split("<|end|>", 1)[0]) for text in texts}

    assert all(not is_heldout(key, share=0.2) for key in first_turns(trained))
    assert all(is_heldout(key, share=0.2) for key in first_turns(held))


def test_a_rejected_answer_is_scored_from_where_it_parts_from_the_chosen_one(script):
    tokenizer = script.AutoTokenizer.from_pretrained(script.ASSETS / "model")
    opening = ("user", "Why is the sky blue?")
    pair = script.Pair((opening, ("assistant", "It scatters.")), (opening, ("assistant", "No idea.")), heldout=False)
    [(chosen, rejected)], _ = script.encode([pair], [], tokenizer, heldout=False)
    assert chosen.start == 1
    assert tokenizer.decode(rejected.ids[: rejected.start]) == "<|bos|><|user|>Why is the sky blue?<|end|><|assistant|>"


def test_a_transcript_with_an_empty_turn_is_an_error(script):
    assert script.parse_transcript("\n\nHuman: Hi\n\nAssistant: Hello ") == (("user", "Hi"), ("assistant", "Hello"))
    with pytest.raises(ValueError, match="non-empty turns"):
        script.parse_transcript("\n\nHuman: Hi\n\nAssistant:")


def test_spaces_around_punctuation_go_and_words_keep_their_apostrophes(script):
    assert script.undo_tokenization("it does n't work ( yet ) , he said .") == "it doesn't work (yet), he said."
    assert script.words_of("It\u2019s 2 o'clock") == ["it's", "o'clock"]
