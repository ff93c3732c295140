"""What a training step of every method costs beside DPO's: the same pairs, model and machine, in one run.

python benchmarks/method_steps.py            # a table, after some ten minutes on two cores
python benchmarks/method_steps.py --json
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
from transformers import TrainingArguments
from transformers.utils import logging

import unipref.rewards  # noqa: F401 (fills the registry, with unipref.objectives)
from unipref.core.cards import list_methods
from unipref.core.records import Record
from unipref.data import as_pairs, limit_records, read_records
from unipref.data.catalogue import segment
from unipref.engine import Policy, load_model, load_tokenizer, make_head
from unipref.objectives import Objective, as_objective
from unipref.recipes.columns import add_columns
from unipref.recipes.stage import examples_of
from unipref.training import PreferenceTrainer, cache_references

OWN = frozenset({"len", "label", "weight", "group", "role", "rank", "uid", "embedding"})


def pairs(n: int) -> list[Record]:
    """`n` real pairs, cut into sentences, each response with every number that some method reads."""
    records, _ = limit_records(as_pairs(read_records("bundled:hh-harmless")[0])[0], n)
    rng = np.random.default_rng(0)
    numbers = {
        name
        for card in list_methods("objective")
        for name in as_objective(card.build()).needs
        if not name.startswith("ref_logp")
    }
    known = [
        replace(
            record,
            items=tuple(
                replace(item, rank=i + 1, columns={name: float(rng.random()) for name in sorted(numbers - OWN)})
                for i, item in enumerate(record.items)
            ),
        )
        for record in records
    ]
    return segment(score="reward")(known)[0]


def why_not(objective: Objective) -> str:
    """Empty where plain pairs with numbers are enough, else what is missing."""
    if objective.roles:
        return "needs a further text: " + ", ".join(objective.roles)
    further = sorted(n for n in objective.needs if n.startswith("ref_logp."))
    return f"needs a further reference: {', '.join(further)}" if further else ""


class Runner:
    """One method's step on the shared examples, from the same weights each time."""

    def __init__(self, key: str, objective: Objective, records: list[Record], folder: str) -> None:
        self.key, self.objective = key, objective
        tokenizer = load_tokenizer("bundled")
        mismatched = 0 if objective.statistics else None
        self.examples, _ = examples_of(
            records, tokenizer, max_length=384, mismatched_seed=mismatched, tokens=objective.token_needs
        )
        model = load_model("bundled", dtype="float32")
        size, layers = model.config.hidden_size, model.config.num_hidden_layers
        heads = {n: make_head(n, size, n_layers=layers, n_classes=4) for n in objective.heads}
        self.policy = Policy(model, heads=heads, longest=384)
        if any(name.startswith("ref_logp") for name in objective.needs | objective.token_needs):
            cache_references(self.examples, self.policy)
        add_columns(self.examples, objective, self.policy, max_tokens=16384)
        live = objective.computed or set(objective.heads) & objective.token_needs
        references = {"ref_logp": Policy(load_model("bundled", dtype="float32"), longest=384)} if live else None
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=len(records),
            max_steps=10,
            report_to="none",
            use_cpu=True,
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        self.trainer = PreferenceTrainer(
            self.policy, objective, arguments, self.examples, max_tokens=65536, references=references
        )
        self.trainer.model_wrapped = self.policy
        self.trainer.state.max_steps, self.trainer.state.global_step = 10, 5

    def seconds(self) -> float:
        """Of one step: loss and gradients, without the optimiser."""
        self.policy.zero_grad(set_to_none=True)
        start = time.perf_counter()
        self.trainer.training_step(self.policy, {"examples": self.examples})
        return time.perf_counter() - start


def measure(n_pairs: int, repeats: int) -> dict[str, object]:
    """Seconds of every repeat by method; the methods take turns, so that a slow minute falls on all of them."""
    records = pairs(n_pairs)
    left_out, runners = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for card in list_methods("objective"):
            objective = as_objective(card.build())
            reason = why_not(objective)
            if reason:
                left_out[card.key] = reason
            else:
                runners.append(Runner(card.key, objective, records, folder))
        taken: dict[str, list[float]] = {runner.key: [] for runner in runners}
        for runner in runners:
            runner.seconds()  # the first step compiles kernels
        for _ in range(repeats):
            for runner in runners:
                taken[runner.key].append(runner.seconds())
    return {
        "pairs": n_pairs,
        "tokens": sum(example.trie.n_nodes for example in runners[0].examples),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "load_before": os.getloadavg()[0],
        "seconds": taken,
        "left_out": left_out,
    }


def table(found: dict[str, object]) -> str:
    """Median step, its range, and the ratio to DPO's step of the same repeat."""
    dpo = found["seconds"]["dpo"]
    rows = []
    for key, values in found["seconds"].items():
        ratios = [a / b for a, b in zip(values, dpo, strict=True)]
        rows.append((statistics.median(ratios), key, values, ratios))
    lines = [f"{'method':<16}{'ms, median [min, max]':>28}   x dpo, median [min, max]"]
    for ratio, key, values, ratios in sorted(rows):
        ms = [1000 * v for v in (statistics.median(values), min(values), max(values))]
        lines.append(
            f"{key:<16}{ms[0]:>10.0f} [{ms[1]:.0f}, {ms[2]:.0f}]".ljust(47)
            + f"{ratio:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
    lines += [f"left out: {key}: {reason}" for key, reason in found["left_out"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16, help="pairs of a step")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps per method")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    result = measure(args.pairs, args.repeats)
    print(json.dumps(result, indent=1) if args.json else table(result))
