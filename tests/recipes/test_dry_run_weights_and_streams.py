"""A dry run knows weights of few bits, and rows that are not held in memory."""

import json

import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.engine import load_model, weight_bytes
from unipref.recipes import load_recipe, streamed
from unipref.recipes._meters import Ledger, Peek
from unipref.recipes.align import align
from unipref.recipes.estimate import estimate

WORDS = ["tea", "milk", "rain", "bread", "stone", "river", "lamp", "paper", "glass", "wool", "salt", "moon", "field"]


def n_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def recipe(model, **changes):
    values = {
        "name": "small",
        "model": str(model),
        "train": {"learning_rate": 1e-3, "batch_size": 8, "precision": "float32", "logging_steps": 1},
        "stages": [{"method": "dpo"}],
        "sampling": {"prompts": 0},
    }
    return load_recipe({**values, **changes})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    draw = np.random.default_rng(0)

    def words(least, most):
        return " ".join(draw.choice(WORDS, draw.integers(least, most)))

    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"{words(2, 12)} {i}?", "chosen": f" {words(3, 9)}.", "rejected": f" {words(1, 6)}!"}
        for i in range(90)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---- weights of few bits ----


@pytest.fixture(scope="module")
def quantised(small_model, file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised") / "small"
    data = {"train": str(file), "max_length": 64, "limit": 16, "eval_limit": 6}
    made = recipe(small_model, data=data, model_options={"lora": {"r": 4}, "quantize": "nf4"})
    return estimate(made, output=folder, device="L4"), align(made, output=folder)


def test_the_bytes_of_quantised_weights_are_those_of_the_loaded_model(quantised, small_model) -> None:
    found, _ = quantised
    real = weight_bytes(load_model(small_model, lora={"r": 4}, quantize="nf4"))
    said = json.loads(json.dumps(found.to_dict()))["model"]
    assert said["weight_bytes"] == {"packed": real.packed, "constants": real.constants, "whole": real.whole}
    block = 4 * 16 * 16 + 3 * 16 * 32  # q, k, v, o and the three of the MLP
    adapters = 4 * (4 * (16 + 16) + 3 * (16 + 32))
    assert real.packed == block / 2
    assert said["matrix"] == block + adapters  # what is computed does not depend on how it is held
    assert said["trained"] == adapters


def test_what_a_quantised_run_writes_is_the_unpacked_model_and_is_foreseen(quantised) -> None:
    found, folder = quantised
    disk = found.to_dict()["totals"]["disk"]
    assert disk["models"] == pytest.approx(sum(n_bytes(path) for path in folder.rglob("model")), rel=0.05)
    assert disk["checkpoints"] == pytest.approx(sum(n_bytes(path) for path in folder.rglob("checkpoints")), rel=0.05)


def test_that_merging_unpacks_and_what_is_not_known_of_a_device_is_said(quantised) -> None:
    found, _ = quantised
    assert set(found.memory) == {"training", "merging", "evaluation"}
    notes = " ".join(found.notes)
    assert "Weights: 1 kB in nf4 with " in notes
    # 2,560 weights in float32, as the checkpoint has them
    assert "At the end merging unpacks the quantised weights, once: 10 kB instead of 1 kB." in notes
    assert "L4: how long unpacking quantised weights takes there is not known." in notes


# ---- rows that are not in memory ----


def of_a_stream(model, file, **changes):
    data = {"train": str(file), "max_length": 64, "stream": True, "eval_limit": 6}
    stages = [{"method": "sft", "train": {"epochs": 1}}]
    objectives = {"detail": {"scorer": "length", "options": {"cap": 60}, "normalise": "zscore"}}  # measured on all rows
    runs = {"dpo": [{"method": "dpo", "train": {"epochs": 2}}], "ipo": [{"method": "ipo"}]}
    return recipe(model, **{"data": data, "stages": stages, "runs": runs, "objectives": objectives, **changes})


@pytest.fixture(scope="module")
def streamed_run(small_model, file, tmp_path_factory):
    """The estimate of a streamed run, what lay beside its folder after it, the folder of the run."""
    folder = tmp_path_factory.mktemp("streamed") / "small"
    made = of_a_stream(small_model, file)
    found = estimate(made, output=folder)
    left = list(folder.parent.iterdir())
    return found, left, align(made, output=folder)


def test_steps_and_tokens_of_a_stream_are_those_of_the_run_where_the_sample_is_all_of_it(streamed_run) -> None:
    found, left, folder = streamed_run
    assert left == []
    assert len(found.stages) == 3
    for cost in found.stages:
        done = json.loads((folder / cost.place / "done.json").read_text())
        logged = max(row.get("tokens", 0) for row in read_jsonl(folder / cost.place / "metrics.jsonl"))
        assert (cost.left, cost.tokens["policy"], cost.tokens["shared"]) == (done["steps"], done["tokens"], logged)


def test_files_of_prepared_rows_and_columns_are_foreseen(streamed_run) -> None:
    found, _, folder = streamed_run
    disk = found.to_dict()["totals"]["disk"]
    assert disk["prepared rows"] == pytest.approx(n_bytes(folder.parent / ".prepared"), rel=0.1)
    columns = sum(path.stat().st_size for path in (folder.parent / ".scores").glob("column-*.f32"))
    assert 0 < columns <= disk["score store"]
    assert "is not looked for" in " ".join(found.notes)


def test_rows_are_prepared_once_for_stages_that_need_the_same(streamed_run) -> None:
    found, _, _ = streamed_run
    encoding = {cost.stage: cost.seconds["encoding"] for cost in found.stages}
    assert encoding["sft"] > 0  # the preferred responses alone
    assert encoding["dpo"] > 0
    assert encoding["ipo"] == 0


def test_of_a_sample_steps_are_those_of_all_rows_and_the_rest_is_so_many_times_the_samples(
    small_model, file, tmp_path, monkeypatch, streamed_run
) -> None:
    monkeypatch.setattr(streamed, "SAMPLE", 24)
    found = estimate(of_a_stream(small_model, file), output=tmp_path / "run")
    for part, whole in zip(found.stages, streamed_run[0].stages, strict=True):
        assert (part.steps, part.records, part.forwards) == (whole.steps, whole.records, whole.forwards)
        # 24 rows of 75: prompts of 2 to 11 words differ by 2.9 from row to row, a mean of 24 by a tenth of itself
        assert part.tokens["shared"] == pytest.approx(whole.tokens["shared"], rel=0.3)
    disk, exact = (each.to_dict()["totals"]["disk"] for each in (found, streamed_run[0]))
    assert disk["prepared rows"] == pytest.approx(exact["prepared rows"], rel=0.3)
    assert disk["score store"] == pytest.approx(exact["score store"], rel=0.3)
    assert "streamed rows 24 were measured" in " ".join(found.notes)


def test_a_column_is_found_for_the_same_rows_alone_and_its_bytes_are_those_of_all_rows(tmp_path) -> None:
    ledger = Ledger(Peek(tmp_path), row=70)
    space = {"kind": "logp", "weights": "w"}
    keys, lengths = [[b"a", b"b"], [b"c", b"d"]], [[3, 4], [5, 6]]
    assert ledger.missing(space, keys, lengths, times=10.0) == [0, 1]
    assert ledger.bytes == 10 * 4 * (3 + 4 + 5 + 6)  # float32, and no table beside
    assert ledger.missing(space, keys, lengths, times=10.0) == []
    assert ledger.missing(space, [[b"a"], [b"c", b"d"]], [[3], [5, 6]], times=10.0) == [0]
    assert ledger.missing(space, keys, lengths) == [0, 1]  # what lies in a column is in no score store


def test_what_a_stream_refuses_a_dry_run_of_it_refuses(small_model, file, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"the operator degrade.* looks at all rows together"):
        estimate(
            of_a_stream(small_model, file, stages=[{"method": "dpo", "operators": ["degrade"]}], runs={}),
            output=tmp_path / "run",
        )
