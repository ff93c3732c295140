"""Unpaired labelled rows that are streamed are trained on exactly as in memory, their strangers included."""

import json
import math

import numpy as np
import pytest

from unipref.core.io import read_jsonl
from unipref.recipes import load_recipe
from unipref.recipes._run import read_data
from unipref.recipes.align import align
from unipref.recipes.stage import prepare, set_up
from unipref.recipes.workbench import Workbench

WORDS = ["tea", "milk", "rain", "bread", "stone", "river", "lamp", "paper", "glass", "wool", "salt", "moon", "field"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Sixty labelled responses to fifty prompts, ups and downs in no order, and one that cannot be trained on."""
    draw = np.random.default_rng(0)

    def words(least, most):
        return " ".join(draw.choice(WORDS, draw.integers(least, most)))

    prompts = [f"{words(2, 12)} {i}?" for i in range(50)]
    rows = [
        {"prompt": prompts[i % 50], "completion": f" {words(1, 9)}.", "label": bool(draw.random() < 0.6)}
        for i in range(60)
    ]
    rows.insert(7, {"prompt": "empty", "completion": "", "label": True})
    path = tmp_path_factory.mktemp("data") / "thumbs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(model, file, *, stream):
    return load_recipe(
        {
            "name": "thumbs",
            "model": str(model),
            "data": {"train": str(file), "max_length": 64, "stream": stream, "eval_limit": 20},
            "train": {
                "learning_rate": 5e-3,
                "batch_size": 8,
                "precision": "float32",
                "logging_steps": 1,
                "eval_steps": 3,
                "keep_best": None,
            },
            "stages": [{"method": "kto", "train": {"epochs": 2}}],
            "sampling": {"prompts": 0},
        }
    )


@pytest.fixture(scope="module")
def both(small_model, file, tmp_path_factory):
    """The folders of the same stage, on rows in memory and on streamed ones."""
    folder = tmp_path_factory.mktemp("runs")
    for stream in (False, True):
        align(recipe(small_model, file, stream=stream), output=folder / str(stream))
    return [folder / str(stream) / "kto" / "kto" for stream in (False, True)]


def column(folder, name):
    rows = read_jsonl(folder / "metrics.jsonl")
    return [math.nan if row[name] is None else row[name] for row in rows if name in row]  # of a step without a thumb up


@pytest.mark.parametrize("name", ["loss", "eval_loss", "grad_norm", "rewards/chosen", "rewards/rejected"])
def test_streamed_thumbs_train_exactly_as_thumbs_in_memory(both, name):
    one, other = (column(folder, name) for folder in both)
    assert len(one) > 3
    # References are scored in other batches, which moves their last bit.
    assert other == pytest.approx(one, rel=1e-5, abs=1e-5 if "rewards" in name else 1e-6, nan_ok=True)


def test_a_streamed_thumb_has_the_stranger_that_it_has_in_memory(small_model, file, tmp_path):
    found = []
    for stream in (False, True):
        made = recipe(small_model, file, stream=stream)
        data = read_data(made, None, None, folder=tmp_path / "run")
        (stage,) = made.run_plan()["kto"]
        train = data.stream or prepare(stage, data.train)[0]
        ready = set_up(
            made, stage, start=made.model, folder=tmp_path, seed=3, train=train, validation=[], bench=Workbench()
        )
        tries = [(example.trie, example.mismatched.trie) for example in ready.examples]
        found.append([(own.token.tolist(), other.token.tolist()) for own, other in tries])
    assert len(found[0]) > 30
    assert found[1] == found[0]
    assert all(own != other for own, other in found[0])
