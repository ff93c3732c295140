"""Training speed and peak memory of a DPO step: unipref beside TRL, on the same records of every optimiser step.

Each line runs in a process of its own; the lines take turns, repeat by repeat, so that a slow minute of the machine
falls on all of them. The parent process stays light, because a child's peak memory starts from its parent's.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BATCH = 8
LEARNING_RATE = 1e-4  # larger than one would train with, so that equal losses mean equal training
VOCABULARY, HIDDEN, LAYERS, INTERMEDIATE, HEADS = 32000, 384, 6, 1024, 6  # 22.9 million parameters, head tied
LOSS_TOLERANCE = 1e-4  # relative, between two lines that see the same records in the same order


@dataclass(frozen=True)
class Line:
    """One way of running the same training.

    Attributes:
        side: "unipref" or "trl".
        order: "given" (random), or "by length" (records of similar size share a step).
        reference: "live", or "cached": computed before the clock starts.
        path: of unipref's engine.
    """

    key: str
    title: str
    side: str
    order: str = "given"
    reference: str = "live"
    path: str = "tries"


LINES = (
    Line("trl", "TRL, live reference", "trl"),
    Line("trl_cached", "TRL, precomputed reference", "trl", reference="cached"),
    Line("trl_bucketed", "TRL, length buckets, live reference", "trl", "by length"),
    Line("trl_bucketed_cached", "TRL, length buckets, precomputed reference", "trl", "by length", "cached"),
    Line("rows", "unipref, padded rows, live reference", "unipref", path="rows"),
    Line("tries", "unipref, tries, live reference", "unipref"),
    Line("tries_bucketed", "unipref, tries, length buckets, live reference", "unipref", "by length"),
    Line("tries_cached", "unipref, tries, cached reference", "unipref", reference="cached"),
    Line("tries_bucketed_cached", "unipref, tries, length buckets, cached reference", "unipref", "by length", "cached"),
)
PEERS = [line for line in LINES if line.side == "trl"]


# ---- the two trainers, each in a process of its own ----


def prepare(folder: Path, steps: int) -> None:
    """Write the model, the tokenizer and the records' token ids to `folder`; both sides read these and nothing else."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from unipref.data import encode_records, read_records
    from unipref.engine import load_tokenizer
    from unipref.training.sampler import StepSampler

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer = load_tokenizer("bundled")
    tokenizer.save_pretrained(folder / "model")
    encoded, _ = encode_records(read_records("bundled:hh-harmless")[0], tokenizer, max_length=1024)
    whole = [e for e in encoded if not any(e.n_cut_context) and not any(e.n_cut_response)]
    picked = [whole[i] for i in np.random.default_rng(0).permutation(len(whole))[: BATCH * steps]]
    if len(picked) < BATCH * steps:
        raise SystemExit(f"--steps: {steps} steps need {BATCH * steps} records, and the corpus has {len(whole)}")
    rows = []
    for e in picked:
        pair = e.record.comparisons[0]
        (prompt, chosen), (_, rejected) = e.ids(pair.winner), e.ids(pair.loser)
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "nodes": e.trie.n_nodes})
    orders = {}
    for name, by_length in (("given", False), ("by length", True)):
        sampler = StepSampler([r["nodes"] for r in rows], BATCH, seed=0, rank=0, world=1, by_length=by_length)
        orders[name] = [i for step in sampler for i in step]
    (folder / "records.json").write_text(json.dumps({"rows": rows, "orders": orders}))


def _arguments(folder: Path, steps: int) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "bf16": False,
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "seed": 0,
        "data_seed": 0,
    }


def _timed(trainer: Any) -> tuple[float, float]:
    """(seconds from the first step's start to the last step's end, mean loss)."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *_, **__):
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.ended = time.perf_counter()

    clock = Clock()
    trainer.add_callback(clock)
    loss = trainer.train().training_loss
    return clock.ended - clock.began, loss


def unipref_repeat(line: Line, folder: Path, data: dict, steps: int) -> dict[str, Any]:
    """One training by unipref."""
    from transformers import TrainingArguments

    from unipref.core.records import Comparison, Item, Record
    from unipref.core.tries import build_trie
    from unipref.engine import Policy, load_model
    from unipref.objectives import as_objective
    from unipref.objectives.catalogue.dpo import dpo
    from unipref.training import Example, PreferenceTrainer, cache_references

    def policy() -> Policy:
        return Policy(load_model(folder / "model", dtype="float32"), path=line.path)

    examples = []
    for i, row in enumerate(data["rows"]):
        record = Record(str(i), (Item("prompt", "chosen"), Item("prompt", "rejected")), (Comparison(0, 1),))
        trie = build_trie([(row["prompt_ids"], row["chosen_ids"]), (row["prompt_ids"], row["rejected_ids"])])
        examples.append(Example(record, trie))
    trained = policy()
    references = None
    if line.reference == "cached":
        cache_references(examples, trained)
    else:
        references = {"ref_logp": policy()}
    seen: list[list[int]] = []

    class Counting(PreferenceTrainer):
        def training_step(self, model, inputs, *rest):
            tries = [example.trie for example in inputs["examples"]]
            seen.append([sum(t.n_row_tokens for t in tries), sum(len(s) for t in tries for s in t.scored)])
            return super().training_step(model, inputs, *rest)

    trainer = Counting(
        trained,
        as_objective(dpo(beta=0.1)),
        TrainingArguments(**_arguments(folder, steps)),
        examples,
        references=references,
        by_length=line.order == "by length",
    )
    seconds, loss = _timed(trainer)
    return {"seconds": seconds, "loss": loss, "steps": seen, "path": trained.path}


def trl_repeat(line: Line, folder: Path, data: dict, steps: int) -> dict[str, Any]:
    """One training by TRL's DPOTrainer, whose preparation of the data (tokenising) is left out."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class TokenisedAlready(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    rows = [data["rows"][i] for i in data["orders"][line.order]]
    columns = {name: [row[name] for row in rows] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    trainer = TokenisedAlready(
        model=str(folder / "model"),
        args=DPOConfig(
            **_arguments(folder, steps),
            beta=0.1,
            precompute_ref_log_probs=line.reference == "cached",
            train_sampling_strategy="sequential",  # the rows lie in the order that unipref's sampler deals
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
    )
    seen: list[list[int]] = []
    collate = trainer.data_collator

    def counting(examples: list[dict]) -> dict:
        batch = collate(examples)
        seen.append([int(batch["attention_mask"].sum()), int(batch["completion_mask"].sum())])
        return batch

    trainer.data_collator = counting
    seconds, loss = _timed(trainer)
    return {"seconds": seconds, "loss": loss, "steps": seen}


def _resident_mb(*, peak: bool) -> float:
    """Memory of this process in MB (2**20 bytes): the most it ever held, or what it holds."""
    import resource

    if peak:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def work(line: Line, folder: Path, steps: int, threads: int) -> None:
    """Answer every line on stdin with one repeat, as JSON on stdout; libraries print to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(threads)
    importlib.import_module("trl.trainer.dpo_trainer" if line.side == "trl" else "unipref.training")
    repeat = trl_repeat if line.side == "trl" else unipref_repeat
    data = json.loads((folder / "records.json").read_text())
    libraries = _resident_mb(peak=False)
    answers.write("ready\n")
    for _ in sys.stdin:
        found = repeat(line, folder, data, steps)
        answers.write(json.dumps({**found, "libraries_mb": libraries, "peak_mb": _resident_mb(peak=True)}) + "\n")


# ---- the parent ----


class Worker:
    """The process of one line."""

    def __init__(self, line: Line, folder: Path, steps: int, threads: int) -> None:
        self.line = line
        self.errors = open(folder / f"{line.key}.log", "w+", encoding="utf-8")  # noqa: SIM115  # as long as the process
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment |= {"TRL_TELEMETRY": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"HF_DATASETS_CACHE": str(folder / "datasets"), "TQDM_DISABLE": "1"}
        options = [f"--line={line.key}", f"--folder={folder}", f"--steps={steps}", f"--threads={threads}"]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def wait_until_ready(self) -> None:
        self._read()

    def _read(self) -> str:
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise SystemExit(f"{self.line.title} failed:\n{self.errors.read()[-3000:]}")
        return answer

    def repeat(self) -> dict[str, Any]:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def machine() -> dict[str, Any]:
    """Where this was measured."""
    from importlib.metadata import version

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [row.split(":", 1)[1].strip() for row in info.read_text().splitlines() if row.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "trl", "unipref")},
    }


def check(found: dict[str, list[dict]]) -> None:
    """Lines of one order saw the same tokens in every step and trained alike.

    Raises:
        SystemExit: they did not, so that no speed is reported for unequal work.
    """
    for line in LINES:
        other = next(other for other in LINES if other.order == line.order)
        ours, expected = found[line.key][0], found[other.key][0]
        if ours["steps"] != expected["steps"]:
            raise SystemExit(f"{line.title} and {other.title} saw different tokens in some step; nothing is compared")
        if abs(ours["loss"] - expected["loss"]) > LOSS_TOLERANCE * expected["loss"]:
            raise SystemExit(
                f"{line.title} has a mean loss of {ours['loss']:.6f} and {other.title} one of {expected['loss']:.6f}; "
                "nothing is compared"
            )


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def summarise(found: dict[str, list[dict]], setting: dict[str, Any], where: dict[str, Any]) -> dict[str, Any]:
    """The JSON that is printed."""
    measured = {}
    for line in LINES:
        runs = found[line.key]
        measured[line.key] = {
            "pairs_per_second": spread([setting["pairs"] / run["seconds"] for run in runs]),
            "peak_memory_mb": round(max(run["peak_mb"] for run in runs)),
            "memory_above_libraries_mb": round(max(run["peak_mb"] - run["libraries_mb"] for run in runs)),
            "mean_loss": runs[0]["loss"],
        }

    def speed(key: str) -> float:
        return measured[key]["pairs_per_second"]["median"]

    cases = [
        {
            "name": line.key,
            "title": line.title,
            "order": line.order,
            "reference": line.reference,
            "ours": measured[line.key],
            "peers": {peer.key: measured[peer.key] for peer in PEERS},
            "ratio": {peer.key: round(speed(line.key) / speed(peer.key), 2) for peer in PEERS},
        }
        for line in LINES
        if line.side == "unipref"
    ]
    return {"machine": where, "setting": setting, "lines": [asdict(line) for line in LINES], "cases": cases}


def table(result: dict[str, Any]) -> str:
    """The same for reading."""
    setting, where = result["setting"], result["machine"]
    peers = result["cases"][0]["peers"]
    rows = [(peer.title, peers[peer.key]) for peer in PEERS] + [(c["title"], c["ours"]) for c in result["cases"]]
    base, base_memory = peers["trl"]["pairs_per_second"]["median"], peers["trl"]["memory_above_libraries_mb"]
    lines = [
        f"{where['cpu']}, {setting['threads']} threads; torch {where['torch']}, TRL {where['trl']}; load before: "
        f"{where['load_before']}",
        f"DPO, {setting['model']}, float32, batch {setting['batch']}, {setting['steps']} steps, "
        f"{setting['repeats']} repeats; {setting['pairs']} pairs of {setting['data']}",
        "",
        f"{'':50} {'pairs/s':>8} {'min':>7} {'max':>7} {'x TRL':>6} {'peak MB':>8} {'above libs':>11} {'x TRL':>6}",
    ]
    for title, values in rows:
        speed, memory = values["pairs_per_second"], values["memory_above_libraries_mb"]
        lines.append(
            f"{title:50} {speed['median']:8.2f} {speed['min']:7.2f} {speed['max']:7.2f} {speed['median'] / base:6.2f} "
            f"{values['peak_memory_mb']:8d} {memory:11d} {memory / base_memory:6.2f}"
        )
    lines.append("")
    lines.append("The pass that computes cached or precomputed references is not in the time.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps per repeat, 8 pairs each")
    parser.add_argument("--repeats", type=int, default=3, help="repeats per line")
    parser.add_argument("--threads", type=int, default=2, help="arithmetic threads")
    parser.add_argument("--line", choices=[line.key for line in LINES], help=argparse.SUPPRESS)  # a worker
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.line:
        work(next(x for x in LINES if x.key == options.line), options.folder, options.steps, options.threads)
        return
    if options.prepare:
        prepare(options.folder, options.steps)
        return
    require_trl()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = machine()
        command = [sys.executable, __file__, "--prepare", "--folder", name, "--steps", str(options.steps)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        workers = [Worker(line, folder, options.steps, options.threads) for line in LINES]
        for worker in workers:
            worker.wait_until_ready()
        found: dict[str, list[dict]] = {line.key: [] for line in LINES}
        for _ in range(options.repeats):
            for worker in workers:
                found[worker.line.key].append(worker.repeat())
        for worker in workers:
            worker.close()
        check(found)
        rows = json.loads((folder / "records.json").read_text())["rows"]
    setting = {
        "model": "Llama of 22.9 M parameters, random weights",
        "data": "HH harmless-base, median tokens {} of prompt, {} of response".format(
            round(statistics.median(len(r["prompt_ids"]) for r in rows)),
            round(statistics.median(len(r[side]) for r in rows for side in ("chosen_ids", "rejected_ids"))),
        ),
        "precision": "float32",
        "gradient_checkpointing": False,
        "batch": BATCH,
        "steps": options.steps,
        "repeats": options.repeats,
        "pairs": BATCH * options.steps,
        "threads": options.threads,
    }
    result = summarise(found, setting, where)
    print(json.dumps(result, indent=1) if options.json else table(result))


def require_trl() -> None:
    """Stop with the extra's name if the packages that are compared with are not installed."""
    missing = [name for name in ("trl", "datasets", "psutil") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"this benchmark needs {', '.join(missing)}; install with: pip install 'unipref[bench]'")


if __name__ == "__main__":
    main()
