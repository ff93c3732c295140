"""Tiny runs that one process, two data-parallel processes and two sharding processes make alike.

Started with a folder by test_sharding.py, two ranks make all of their runs one after the other; the first writes what
came of them.
"""

import json
import os
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny_runs import examples_for, pair_examples, tiny_model, tiny_policy, with_references
from transformers import PrinterCallback, TrainingArguments

from unipref.engine import Policy, fingerprint, score
from unipref.objectives import as_objective, dpo, dr_dpo, kto, sparse_po, upo
from unipref.training import PreferenceTrainer, cache_references, leave_group, make_whole, score_shared
from unipref.training.sharding import gathered_state, is_sharded

WEIGHTS = [1, 2, 1, 1, 3, 1, 1]
LORA = "lora"
CASES = {
    "dpo": {"objective": dpo(beta=0.1), "max_grad_norm": 0.5},
    "upo": {"objective": upo(base="dpo", warmup=0.3)},  # a head of one output: a rank has nothing of it
    "kto": {"objective": kto(beta=0.1)},
    "dr_dpo": {"objective": dr_dpo()},  # all rows of the step in one loss
    "sparse_po": {"objective": sparse_po(lam_u=0.1)},  # a live reference, sharded too, and a head that reads it
    "tied": {"objective": dpo(beta=0.1), "tied": True},
    "rows": {"objective": dpo(beta=0.1), "path": "rows"},
    LORA: {"objective": dpo(beta=0.1), "lora": True},
    "bfloat16": {"objective": dpo(beta=0.1), "bf16": True, "dtype": torch.float32},
}
SAVED = ("upo", LORA)  # leave a checkpoint after two steps
RESUMED = [
    (way, "upo", origin) for way in ("alone", "sharded", "parallel") for origin in ("alone", "sharded", "parallel")
]
RESUMED += [("alone", LORA, "sharded"), ("sharded", LORA, "alone"), ("sharded", LORA, "sharded")]


def policy_for(case):
    objective, dtype = as_objective(case["objective"]), case.get("dtype", torch.float64)
    if case.get("lora"):
        torch.manual_seed(3)
        config = LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
        )
        model = get_peft_model(tiny_model(1, dtype), config)
        return Policy(model)
    if case.get("tied"):
        model = tiny_model(1, dtype)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        policy = Policy(model)
        policy.activation_checkpointing_enable()
        return policy
    return tiny_policy(1, dtype, heads=objective.heads, path=case.get("path", "auto"))


def examples_of(case):
    objective = as_objective(case["objective"])
    if objective == as_objective(dpo(beta=0.1)):
        return with_references(pair_examples(7, weights=WEIGHTS), tiny_policy(2))
    return examples_for(objective, 7, weights=WEIGHTS)


def train(name, folder, *, examples=None, resume=None, **options):
    """What a run says of itself. 7 records, 4 a step: the shares of two ranks differ, and so do their forwards."""
    case = CASES[name]
    world = int(os.environ.get("WORLD_SIZE", "1"))
    objective = as_objective(case["objective"])
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4 // world,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "log_level": "error",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "seed": 0,
        "max_grad_norm": case.get("max_grad_norm", 1.0),
        "bf16": case.get("bf16", False),
    }
    args = TrainingArguments(**{**settings, **options})
    references = {"ref_logp": tiny_policy(2)} if objective.computed else None
    examples = examples_of(case) if examples is None else examples
    trainer = PreferenceTrainer(
        policy_for(case), objective, args, examples, examples, max_tokens=40, references=references
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    evaluation = trainer.evaluate()
    evaluation.pop("epoch", None)
    policy = trainer.policy
    weights = gathered_state(policy) if is_sharded(policy) else policy.state_dict()
    held = sum((p.to_local() if is_sharded(policy) else p).numel() for p in policy.parameters())
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "tokens")} for row in trainer.state.log_history]
    told = {
        "rows": [row for row in rows if "loss" in row],
        "eval": evaluation,
        "weights": {k: v.double().pow(2).sum().item() for k, v in weights.items()},
        "held": held,
        "best": trainer.state.best_model_checkpoint and Path(trainer.state.best_model_checkpoint).name,
    }
    return trainer, told


SAVING = {"save_strategy": "steps", "save_steps": 2}
BEST = {
    **SAVING,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_rewards/chosen",
    "greater_is_better": False,  # it grows, so that the first checkpoint is the best
    "learning_rate": 0.05,
}


def saved(folder, way, name):
    return folder / way / name / "checkpoint-2"


def launched_as(way, checkpoints="SHARDED_STATE_DICT"):
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": checkpoints}
    for name, value in asked.items():
        if way == "sharded":
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def with_two_ranks(folder):
    found = {}
    for name in CASES:
        launched_as("sharded")
        trainer, found[f"sharded/{name}"] = train(name, folder / "sharded" / name, **SAVING if name in SAVED else {})
        if name in SAVED:
            trainer.save_model(str(folder / "sharded" / f"{name}-model"))
    launched_as("parallel")
    found["parallel/upo"] = train("upo", folder / "parallel" / "upo", **SAVING)[1]
    for way, name, origin in RESUMED:
        if way != "alone":
            launched_as(way)
            resume = saved(folder, origin, name)
            found[f"{way}/{name}/from {origin}"] = train(name, folder / "resumed", resume=resume)[1]
    launched_as("sharded", checkpoints="FULL_STATE_DICT")
    trainer, found["sharded/best"] = train("dpo", folder / "sharded" / "best", **BEST)
    found["scores"] = scores(trainer.policy)
    return found


def scores(policy):
    """What a sharded policy says of its examples, and what the same weights say as an ordinary module."""
    examples = pair_examples(5, seed=1)
    tries = [example.trie for example in examples]
    shared = score_shared(policy, tries, max_tokens=60)
    cache_references(examples, policy, max_tokens=60)
    kept = [example.ref_logp["ref_logp"] for example in examples]
    mark = fingerprint(policy)
    make_whole(policy)
    if int(os.environ["RANK"]) > 0:
        return None
    plain = score(policy, tries, max_tokens=60)
    told = {"shared": shared, "kept": kept, "plain": plain}
    told = {k: [[v.tolist() for v in items] for items in values] for k, values in told.items()}
    return {**told, "fingerprints": [mark, fingerprint(policy)]}


def main(words):
    torch.set_num_threads(1)
    folder = Path(words[0])
    found = with_two_ranks(folder)
    if int(os.environ["RANK"]) == 0:
        (folder / "result.json").write_text(json.dumps(found))
    leave_group()
