"""The arithmetic page: its tables are the script's, and the script's formulas are checked by hand."""

import pytest
import scale_page
from scale_page import MODELS, PAGE, Shape, exchanged, page, state_bytes, training_flops, visible

TOY = Shape("toy", layers=2, hidden=10, inner=30, kv=5, vocabulary=100)


def test_the_page_holds_the_tables_that_the_script_makes():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text


def test_the_models_have_the_weights_that_are_published():
    small, large = MODELS
    assert small.weights == pytest.approx(8.03e9, rel=1e-3)
    assert large.weights == pytest.approx(70.55e9, rel=1e-3)


def test_a_toy_model_has_the_weights_that_a_hand_counts():
    assert TOY.block == 2 * 100 + 2 * 10 * 5 + 3 * 10 * 30  # queries and output, keys and values, the MLP
    assert TOY.weights == 2 * TOY.block + 2 * 100 * 10


def test_attention_follows_the_tree(monkeypatch):
    monkeypatch.setattr(scale_page, "PROMPT", 2)
    monkeypatch.setattr(scale_page, "RESPONSE", 1)
    assert visible(shared=True) == 3 + 2 * 3  # a prompt of two, and two tokens that see three each
    assert visible(shared=False) == 2 * 6  # two rows of three


def test_training_a_pair_takes_three_forwards(monkeypatch):
    monkeypatch.setattr(scale_page, "PROMPT", 2)
    monkeypatch.setattr(scale_page, "RESPONSE", 1)
    forward = 2 * TOY.blocks * 4 + 4 * 2 * 10 * 9 + 2 * 100 * 10 * 2
    assert training_flops(TOY) == 3 * forward
    assert training_flops(TOY, recomputed=True) == 4 * forward - 2 * 100 * 10 * 2  # all but the head twice


def test_memory_of_a_device_is_sixteen_bytes_a_weight_shared_by_all_and_what_is_gathered():
    gathered = 2 * 2 * TOY.block + 4 * TOY.block + 2 * 4 * TOY.root
    assert state_bytes(TOY, "FSDP2", 4) == 4 * TOY.weights + gathered
    assert state_bytes(TOY, "DDP", 4) == state_bytes(TOY, "DDP", 400)


def test_between_machines_hsdp_sends_an_eighth_of_the_gradients():
    inside, between = exchanged(TOY, "HSDP", 16)
    assert between == 2 * (1 / 2) * 4 * TOY.weights / 8
    assert inside == exchanged(TOY, "FSDP2", 8)[0]
