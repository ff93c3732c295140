"""`train.gradient_checkpointing` reaches the blocks of every step, and changes no number of a run."""

import math

import data_files
import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from unipref.core.io import read_jsonl
from unipref.recipes import load_recipe
from unipref.recipes.align import align


def of(folder, name):
    return [row[name] for row in read_jsonl(folder / "metrics.jsonl") if name in row]


def test_a_run_that_recomputes_has_the_same_curve_and_runs_its_blocks_once_more_a_step(small_model, tmp_path) -> None:
    file = data_files.write(tmp_path / "pairs.jsonl", data_files.without(data_files.pairs(), *data_files.FURTHER))
    calls = {}

    def count(module: nn.Module, _: object) -> None:
        if type(module).__name__ == "LlamaMLP":  # inside of what is repeated, which a block's own hooks are not
            calls[recomputes] = calls.get(recomputes, 0) + 1

    hook = register_module_forward_pre_hook(count)
    try:
        for recomputes in (False, True):
            made = load_recipe(
                {
                    "name": "small",
                    "model": str(small_model),
                    "model_options": {"lora": {"r": 2}},
                    "data": {"train": str(file), "eval_share": 0.3, "max_length": 80},
                    "train": {
                        "learning_rate": 5e-3,
                        "batch_size": 2,
                        "precision": "float32",
                        "logging_steps": 1,
                        "eval_steps": 1,  # the policy is in eval mode between steps, where nothing is recomputed
                        "keep_best": None,
                        "gradient_checkpointing": recomputes,
                    },
                    "stages": [{"method": "dpo"}],
                    "sampling": {"prompts": 0},
                }
            )
            align(made, output=tmp_path / str(recomputes) / "run")  # each beside a score store of its own
    finally:
        hook.remove()
    plain, again = (tmp_path / str(recomputes) / "run" / "dpo" / "dpo" for recomputes in (False, True))
    losses = of(plain, "loss")
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5)
    assert len(set(losses)) == len(losses) > 2
    for name in ("loss", "grad_norm", "eval_loss", "tokens"):
        assert of(again, name) == pytest.approx(of(plain, name), rel=1e-6)
    assert calls[True] == calls[False] + len(losses)  # one forward a step, of a model of one block
