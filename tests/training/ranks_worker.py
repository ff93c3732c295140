"""Runs that one process and two ranks make alike; in ranks, the first writes losses and weights' checksums."""

import json
import os
from pathlib import Path

import torch
from tiny_runs import examples_for, pair_examples, tiny_policy, with_references
from transformers import TrainingArguments

from unipref.objectives import alpha_dpo, as_objective, beta_dpo, bt, dpo, dr_dpo, kto, rpo_relative, sparse_po, upo
from unipref.training import PreferenceTrainer, leave_group
from unipref.training.sharding import gathered_state, is_sharded

OBJECTIVES = {
    "bt": bt(),  # nothing reads the language-model head, which is untied and would keep DDP waiting for its gradient
    "dpo": dpo(beta=0.1),
    "kto": kto(beta=0.1),
    "upo": upo(base="dpo", warmup=0.3),
    "dr_dpo": dr_dpo(),
    "rpo_relative": rpo_relative(),
    "alpha_dpo": alpha_dpo(),
    "beta_dpo": beta_dpo(),
    "sparse_po": sparse_po(lam_u=0.1),
}
WEIGHTS = [1, 2, 1, 1, 3, 1, 1]


def weights_of(policy):
    """All weights, on the first rank at least."""
    return gathered_state(policy) if is_sharded(policy) else policy.state_dict()


def train(name: str, folder: Path) -> dict:
    """What came of the run `name`: its losses, its evaluation and the sums of its weights."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    # 7 records, 4 a step: the last step of an epoch has 3, so the two ranks have different shares of it; the budget of
    # 40 tokens cuts them into different numbers of forwards
    objective = as_objective(OBJECTIVES[name])
    if name in ("dpo", "kto", "upo"):
        examples = with_references(pair_examples(7, weights=WEIGHTS), tiny_policy(2))
    else:
        examples = examples_for(objective, 7, weights=WEIGHTS)
    policy = tiny_policy(1, heads=objective.heads)
    references = {"ref_logp": tiny_policy(2)} if objective.computed else None
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4 // world,
        max_steps=5,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        ddp_backend="gloo" if world > 1 else None,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=0,
    )
    trainer = PreferenceTrainer(policy, objective, args, examples, examples, max_tokens=40, references=references)
    trainer.train()
    evaluation = trainer.evaluate()
    evaluation.pop("epoch", None)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    for row in rows:
        row.pop("seconds")
        row.pop("tokens")  # of this rank
    weights = {key: value.sum().item() for key, value in weights_of(trainer.policy).items()}
    return {"rows": rows, "eval": evaluation, "weights": weights}


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    folder = Path(words[0])
    found = {name: train(name, folder / name) for name in OBJECTIVES}
    if os.environ["RANK"] == "0":
        (folder / "result.json").write_text(json.dumps(found))
    leave_group()
