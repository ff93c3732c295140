"""One repeat of a training by unipref's trainer or by TRL's, and what both are told."""

import time
import zlib
from pathlib import Path
from typing import Any

import torch
from benchmarks.speed.cases import Setting, Side

__all__ = ["STEP_END", "trl_repeat", "unipref_repeat"]

LEARNING_RATE = 1e-4  # larger than one would train with, so that equal losses mean equal training
BETA = 0.1
STEP_END = "benchmark: step end"  # between the first and the last of these a profile looks
LORA = {"r": 16, "alpha": 32}

Told = dict[str, Any]


def arguments(setting: Setting, side: Side, told: Told) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": told["output"],
        "max_steps": len(told["steps"]),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "bf16": setting.precision == "bfloat16",
        "logging_steps": 1000,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": told["device"] == "cpu",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "seed": 0,
        "data_seed": 0,
    }


def timed(trainer: Any, device: str) -> Told:
    """Train: seconds from the end of the first step, which warms up, to that of the last; loss, first gradient."""
    from transformers import TrainerCallback

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    class Clock(TrainerCallback):
        began = None

        def on_step_end(self, *_, **__):
            with torch.profiler.record_function(STEP_END):
                self.ended = now()
            self.began = self.began or self.ended

    clock = Clock()
    trainer.add_callback(clock)
    loss = trainer.train().training_loss
    first = trainer.state.log_history[0]
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return {
        "seconds": clock.ended - clock.began,
        "loss": loss,
        "gradient": float(first["grad_norm"]),
        "trained": trained,
    }


def same_adapters(model: torch.nn.Module) -> None:
    """Give every adapter's first matrix numbers that depend on its name alone, so that both sides start alike."""
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            layer = name[name.index("layers.") :].replace(".default", "")
            generator = torch.Generator().manual_seed(zlib.crc32(layer.encode()))
            values = torch.rand(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
            parameter.data.copy_(values)


def unipref_repeat(setting: Setting, side: Side, told: Told, rows: list[Told], around: Any = None) -> Told:
    """One training by unipref.

    Args:
        around: called with the training as a function without arguments, for a profile; it gives its result back.
    """
    from torch.utils.data import Sampler
    from transformers import TrainingArguments

    from unipref.core.records import Comparison, Item, Record
    from unipref.core.tries import build_trie
    from unipref.engine import Policy, load_model
    from unipref.objectives import as_objective
    from unipref.objectives.catalogue.dpo import dpo
    from unipref.training import Example, PreferenceTrainer, cache_references
    from unipref.training import trainer as module

    class FixedSteps(Sampler):
        """The harness's steps, as `train_sampling_strategy="sequential"` gives them to TRL."""

        def __init__(self, *_, **__):
            pass

        def set_epoch(self, epoch):
            pass

        def __len__(self):
            return len(told["steps"])

        def __iter__(self):
            return iter(told["steps"])

    def policy(lora: bool) -> Policy:
        adapters = LORA if lora else None
        model = load_model(told["model"], dtype=setting.weights, lora=adapters, device=told["device"])
        if lora:
            same_adapters(model)
        return Policy(model, path=side.path)

    examples = []
    for i, row in enumerate(rows):
        items = tuple(Item("prompt", str(n)) for n in range(len(row["items"])))
        record = Record(str(i), items, tuple(Comparison(a, b) for a, b in row["pairs"]))
        examples.append(Example(record, build_trie(row["items"])))
    rows.clear()  # what the harness read is no memory of the trainer
    trained = policy(setting.lora)
    references = None
    if side.reference == "cached":
        cache_references(examples, trained, adapters_off=setting.lora, precision=setting.precision)
    else:
        references = {"ref_logp": None if setting.lora else policy(False)}
    seen: list[Told] = []

    class Counting(PreferenceTrainer):
        def training_step(self, model, inputs, *rest):
            seen.append(_of_examples(inputs["examples"]))
            return super().training_step(model, inputs, *rest)

    batch = len(told["steps"][0])
    given = TrainingArguments(**arguments(setting, side, told), per_device_train_batch_size=batch)
    before, module.StepSampler = module.StepSampler, FixedSteps
    try:
        trainer = Counting(trained, as_objective(dpo(beta=BETA)), given, examples, references=references)
        found = timed(trainer, told["device"]) if around is None else around(lambda: timed(trainer, told["device"]))
    finally:
        module.StepSampler = before
    return {**found, "steps": seen, "path": trained.path}


def _of_examples(examples: list[Any]) -> Told:
    """Pairs, tokens and scored tokens of a step as this side sees them."""
    found = {"pairs": 0, "tokens": 0, "scored": 0}
    for example in examples:
        trie = example.trie
        for comparison in example.record.comparisons:
            found["pairs"] += 1
            for item in (comparison.winner, comparison.loser):
                found["tokens"] += int(trie.depth[trie.last[item]]) + 1
                found["scored"] += len(trie.scored[item])
    return found


def trl_repeat(setting: Setting, side: Side, told: Told, rows: list[Told]) -> Told:
    """One training by TRL's DPOTrainer, whose preparation of the data (tokenising) is left out."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    seen: list[Told] = []

    class TokenisedAlready(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

        def training_step(self, model, inputs, *rest):
            # Counted here, as the loader makes a batch more than is trained on where there are rows for it.
            mask, scored = inputs["attention_mask"], inputs["completion_mask"]
            seen.append({"pairs": len(mask) // 2, "tokens": int(mask.sum()), "scored": int(scored.sum())})
            return super().training_step(model, inputs, *rest)

    trained_on = [i for step in told["steps"] for i in step]
    others = sorted(set(range(len(rows))) - set(trained_on))
    pairs = [(rows[i], pair) for i in (*trained_on, *others) for pair in rows[i]["pairs"]]
    columns = {
        "prompt_ids": [row["items"][pair[0]][0] for row, pair in pairs],
        "chosen_ids": [row["items"][pair[0]][1] for row, pair in pairs],
        "rejected_ids": [row["items"][pair[1]][1] for row, pair in pairs],
    }
    batch, rows_of_trl = sum(len(rows[i]["pairs"]) for i in told["steps"][0]), Dataset.from_dict(columns)
    rows.clear()  # what the harness read is no memory of the trainer
    del pairs, columns
    adapters = None
    if setting.lora:
        from peft import LoraConfig

        adapters = LoraConfig(r=LORA["r"], lora_alpha=LORA["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = TokenisedAlready(
        model=str(Path(told["model"])),
        args=DPOConfig(
            **arguments(setting, side, told),
            per_device_train_batch_size=batch,
            gradient_checkpointing=side.checkpointing,
            beta=BETA,
            max_length=None,
            precompute_ref_log_probs=side.reference == "cached",
            train_sampling_strategy="sequential",  # the rows lie in the order of the steps
            model_init_kwargs={"dtype": setting.weights},
        ),
        train_dataset=rows_of_trl,
        processing_class=AutoTokenizer.from_pretrained(told["model"]),
        peft_config=adapters,
    )
    if setting.lora:
        same_adapters(trainer.model)
    return {**timed(trainer, told["device"]), "steps": seen}
