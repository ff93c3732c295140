"""Say whether DeepSpeed ZeRO-1 and ZeRO-2 train as one process does, on this machine.

    python scripts/check_deepspeed.py

Trains a tiny random model for a few steps: once alone, then in two processes under each stage, where the steps are cut
into several forwards and the two have different shares of them. Prints the largest difference of losses, gradient norms
and final weights, and "equal" or "not equal". Exit code 1 where one is not equal. Needs DeepSpeed, on two GPUs or on a
CPU; nothing of unipref's own tests does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STAGES = ("0", "1", "2")
TOLERANCE = 1e-4  # relative, float32


def train(folder: Path, stage: str) -> None:
    """One process' part of a run; the first writes its losses and weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, TrainingArguments

    from unipref.core.records import Comparison, Item, Record
    from unipref.core.tries import build_trie
    from unipref.engine import Policy
    from unipref.objectives import dpo
    from unipref.training import Example, PreferenceTrainer, cache_references, processes

    def policy(seed: int) -> Policy:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
        )  # fmt: skip
        return Policy(LlamaForCausalLM(config))

    def example(rng: np.random.Generator, i: int) -> Example:
        context, *responses = (rng.integers(3, 64, rng.integers(2, 12)).tolist() for _ in range(3))
        items = tuple(Item("context", f"response {i} {side}") for side in range(2))
        record = Record(f"r{i}", items, (Comparison(0, 1),), conversation=f"c{i}")
        return Example(record, build_trie([(context, response) for response in responses]))

    world = int(os.environ.get("WORLD_SIZE", "1"))
    processes()  # without a GPU, accelerate would not see the other process otherwise
    rng = np.random.default_rng(0)
    examples = [example(rng, i) for i in range(7)]
    cache_references(examples, policy(2))
    args = TrainingArguments(
        output_dir=str(folder / f"stage{stage}"),
        per_device_train_batch_size=4 // world,
        max_steps=5,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=stage == "0" and not torch.cuda.is_available(),
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=0,
        accelerator_config={"use_configured_state": True},
    )
    trainer = PreferenceTrainer(policy(1), dpo(beta=0.1), args, examples, examples, max_tokens=40)
    trainer.remove_callback(PrinterCallback)
    if stage != "0" and not trainer.is_deepspeed_enabled:
        raise SystemExit("accelerate did not start DeepSpeed; is it installed?")
    trainer.train()
    evaluation = trainer.evaluate()
    if trainer.is_world_process_zero():
        rows = [[row["loss"], row["grad_norm"]] for row in trainer.state.log_history if "loss" in row]
        weights = {name: value.double().pow(2).sum().item() for name, value in trainer.policy.state_dict().items()}
        told = {"rows": rows, "eval": evaluation["eval_loss"], "weights": weights}
        (folder / f"stage{stage}.json").write_text(json.dumps(told), encoding="utf-8")


def launch(folder: Path, stage: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", stage, "--folder", str(folder)]
    if stage != "0":
        environment |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}
        environment |= {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1", "ACCELERATE_MIXED_PRECISION": "no"}
        command = [command[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command[1:]]
    subprocess.run(command, env=environment, check=True)


def difference(one: dict, two: dict) -> float:
    """The largest relative difference of anything that two runs say."""
    pairs = [(a, b) for x, y in zip(one["rows"], two["rows"], strict=True) for a, b in zip(x, y, strict=True)]
    pairs += [(one["eval"], two["eval"]), *((one["weights"][k], two["weights"][k]) for k in one["weights"])]
    return max(abs(a - b) / max(abs(a), 1e-6) for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        train(args.folder, args.worker)
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for stage in STAGES:
            launch(folder, stage)
        found = {stage: json.loads((folder / f"stage{stage}.json").read_text(encoding="utf-8")) for stage in STAGES}
    for stage in STAGES[1:]:
        apart = difference(found["0"], found[stage])
        failed |= apart > TOLERANCE
        print(f"ZeRO-{stage}: {'equal' if apart <= TOLERANCE else 'not equal'} (largest difference {apart:.2g})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
