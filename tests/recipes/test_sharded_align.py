"""`accelerate launch` with the shipped FSDP2 configuration, two processes on a CPU, from the recipe to the report."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from transformers import AutoModelForCausalLM

from unipref.cli.launcher import configuration
from unipref.core.io import read_jsonl
from unipref.recipes import load_recipe
from unipref.recipes.align import align


def test_two_processes_that_share_the_weights_out_align_as_one(small_model, tmp_path):
    values = {
        "name": "small",
        "model": str(small_model),
        "data": {"train": "bundled:hh-harmless", "limit": 24, "eval_limit": 8, "max_length": 128},
        "train": {"learning_rate": 1e-3, "batch_size": 8, "precision": "float32", "logging_steps": 1, "max_steps": 3},
        "stages": [{"method": "upo", "options": {"base": "dpo"}}],
        "objectives": {"detail": {"scorer": "length", "options": {"cap": 60}}},
        "sampling": {"prompts": 0},
    }
    align(load_recipe(values), output=tmp_path / "one")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "fsdp2.yaml").write_text(configuration("fsdp2", processes=2))
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
    words = ["-m", "unipref", "align", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "two")]
    done = subprocess.run(
        [*launcher, str(tmp_path / "fsdp2.yaml"), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report:") == 1
    (stage,) = [path.parent.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("metrics.jsonl")]
    one, two = (read_jsonl(tmp_path / name / stage / "metrics.jsonl") for name in ("one", "two"))
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (one, two)]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name / stage / "model") for name in ("one", "two")]
    for (name, a), (_, b) in zip(*(model.state_dict().items() for model in models), strict=True):
        assert (a - b).abs().max() < 1e-4, name
    checkpoint = next((tmp_path / "two" / stage / "checkpoints").iterdir())
    assert (checkpoint / "shards").is_dir()  # it was sharded
    assert json.loads((checkpoint / "complete.json").read_text()) == {"step": 3}
