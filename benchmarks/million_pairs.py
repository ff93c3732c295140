"""From a file of many pairs to the first optimiser step: seconds, memory and disk, with everything prepared before.

python benchmarks/million_pairs.py                      # 100,000 pairs
python benchmarks/million_pairs.py --pairs 1000000      # needs some 3 GB in the temporary folder, or in --folder
python benchmarks/million_pairs.py --json

The pairs are made of the bundled ones, with words of their own in each so that no two are equal. A first process splits
and tokenises them, as `unipref align` does when it meets a file, and fills the reference's column with made-up numbers
through the store's own functions: what a model would say of a million pairs takes hours, and is not what is measured. A
second process is `unipref align` itself; what its log says and when is watched from outside. Private memory is what the
process holds without the pages of mapped files, which the system takes back at will.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.data import read_records
from unipref.engine import load_tokenizer
from unipref.recipes import load_recipe
from unipref.recipes._run import read_data
from unipref.recipes.stage import set_up
from unipref.recipes.workbench import Workbench
from unipref.store import ColumnStore, ScoreStore
from unipref.training.references import reference_space

STEPS = 200
MAX_LENGTH = 256
SEED = 0


def write_pairs(path: Path, n: int) -> None:
    """`n` pairs of short real conversations, no two alike."""
    records = [r for r in read_records("bundled:hh-harmless")[0] if r.comparisons]
    texts = []
    for record in records:
        winner, loser = (record.items[i] for i in (record.comparisons[0].winner, record.comparisons[0].loser))
        sides = [
            item.response if isinstance(item.response, str) else item.response[-1].content for item in (winner, loser)
        ]
        prompt = winner.context if isinstance(winner.context, str) else winner.context[-1].content
        if len(prompt) + sum(map(len, sides)) < 900:
            texts.append((prompt, *sides))
    rng = np.random.default_rng(SEED)
    words = sorted({word for text in texts for part in text for word in part.split() if word.isalpha()})
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, n, 10_000):
            size = min(10_000, n - start)
            which, extra = rng.integers(0, len(texts), size), rng.integers(0, len(words), (size, 6))
            for i, chosen in enumerate(which.tolist()):
                prompt, better, worse = texts[chosen]
                said = [words[k] for k in extra[i].tolist()]
                row = {
                    "prompt": f"{' '.join(said[:2])} {start + i}: {prompt}",
                    "chosen": f"{better} {' '.join(said[2:4])}",
                    "rejected": f"{worse} {' '.join(said[4:])}",
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_model(folder: Path) -> None:
    """A random Llama of hidden size 32 with the bundled tokenizer."""
    tokenizer = load_tokenizer("bundled")
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe_of(folder: Path) -> dict:
    """What both processes run."""
    return {
        "name": "million",
        "output": str(folder / "runs" / "million"),
        "model": str(folder / "model"),
        "data": {
            "train": str(folder / "pairs.jsonl"),
            "stream": True,
            "max_length": MAX_LENGTH,
            "eval_share": 0.001,
            "eval_limit": 64,
        },
        "train": {
            "batch_size": 16,
            "max_steps": STEPS,
            "logging_steps": 5,
            "precision": "float32",
            "group_by_length": True,
        },
        "stages": [{"method": "dpo"}],
        "sampling": {"prompts": 0},
    }


def prepare(folder: Path) -> dict:
    """Split, tokenise, and fill the reference's column; the seconds of each, and the memory that it took."""
    recipe = load_recipe(recipe_of(folder))
    store = ScoreStore(folder / "runs" / ".scores")
    marks = [time.perf_counter()]

    def took() -> float:
        marks.append(time.perf_counter())
        return marks[-1] - marks[-2]

    data = read_data(recipe, store, None, folder=recipe.folder)
    found = {"split_s": took()}
    ready = set_up(
        recipe,
        recipe.stages[0],
        start=recipe.model,
        folder=recipe.folder,
        seed=0,
        train=data.stream,
        validation=[],
        bench=Workbench(),
    )
    found["tokenise_s"] = took()
    rows = ready.examples.data
    space = reference_space(ready.policy, precision=ready.precision)
    column = ColumnStore(store.folder).column(space, data=rows.digest, lengths=rows.n_scored)
    rng = np.random.default_rng(SEED)
    for start in range(0, len(rows), 65_536):
        some = np.arange(start, min(start + 65_536, len(rows)))
        values = rng.normal(-9.0, 1.0, int(column.start[some[-1] + 1] - column.start[start])).astype(np.float32)
        column.put(some, np.split(values, (column.start[some[1:]] - column.start[start])))
    found["fill_s"] = took()
    found["rows"], found["tokens_per_row"] = len(rows), float(np.mean(rows.sizes))
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def watch(folder: Path) -> dict:
    """Run `unipref align`; when its first step was logged, and its private memory at every logged step."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(folder)), encoding="utf-8")
    log, steps = folder / "runs" / "million" / "dpo" / "dpo" / "metrics.jsonl", {}
    first = None
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "unipref", "align", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
            if lines:
                first = first or time.perf_counter() - began
                memory = seen.memory_info() if process.poll() is None else None
                if memory is not None and memory.rss:
                    steps.setdefault(json.loads(lines[-1])["step"], (memory.rss - memory.shared) / 2**20)
            time.sleep(0.1)
        said = process.stderr.read()
    if process.returncode or first is None:
        raise SystemExit(f"unipref align ended with {process.returncode}:\n{said[-3000:]}")
    steps = {step: value for step, value in steps.items() if step <= STEPS}
    return {"first_step_s": first, "align_s": time.perf_counter() - began, "private_mb": steps}


def growth(steps: dict[int, float]) -> float:
    """MB of private memory that the last quarter of the steps has more than the first, by their medians."""
    first, last = (
        [v for step, v in steps.items() if low < step <= low + STEPS // 4] for low in (0, STEPS - STEPS // 4)
    )
    return float(np.median(last) - np.median(first)) if first and last else float("nan")


def measure(folder: Path, pairs: int, repeats: int) -> dict:
    made = folder / f"cold-{pairs}.json"
    if not made.exists():
        began = time.perf_counter()
        write_pairs(folder / "pairs.jsonl", pairs)
        write_model(folder / "model")
        found = {"pairs": pairs, "write_s": time.perf_counter() - began}
        cold = subprocess.run([sys.executable, __file__, "--prepare", str(folder)], stdout=subprocess.PIPE, check=True)
        made.write_text(json.dumps({**found, "cold": json.loads(cold.stdout.splitlines()[-1])}))
    found = json.loads(made.read_text())
    found["warm"] = []
    for _ in range(repeats):
        found["warm"].append(watch(folder))
        shutil.rmtree(folder / "runs" / "million")
    size = {name: sum(p.stat().st_size for p in (folder / name).rglob("*") if p.is_file()) for name in ("runs",)}
    found["disk_mb"] = {"pairs": (folder / "pairs.jsonl").stat().st_size / 2**20, "prepared": size["runs"] / 2**20}
    first = [one["first_step_s"] for one in found["warm"]]
    memory = [value for one in found["warm"] for value in one["private_mb"].values()]
    ours = {
        f"{pairs} pairs: seconds to the first step, warm": float(np.median(first)),
        f"{pairs} pairs: private memory in MB, highest of {STEPS} steps": max(memory),
        f"{pairs} pairs: MB more in its last {STEPS // 4} than in its first": max(
            (growth(one["private_mb"]) for one in found["warm"]), key=abs
        ),
        f"{pairs} pairs: seconds to split and tokenise, once": found["cold"]["split_s"] + found["cold"]["tokenise_s"],
    }
    found["cases"] = [{"name": name, "ours": value, "peers": {}, "ratio": {}} for name, value in ours.items()]
    found["spread"] = {"first_step_s": [min(first), max(first)]}
    found["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="warm starts; default 3")
    parser.add_argument(
        "--folder", type=Path, help="what is made lies here, and is found again; default: a temporary folder"
    )
    parser.add_argument("--json", action="store_true", help="print all numbers")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare is not None:
        print(json.dumps(prepare(asked.prepare)))
        return
    with contextlib.ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="million-pairs-")))
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(folder, asked.pairs, asked.repeats)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for case in found["cases"]:
        print(f"{case['name']:<70}{case['ours']:>12,.2f}")
    low, high = found["spread"]["first_step_s"]
    print(f"first step between {low:.2f} and {high:.2f} s over {asked.repeats} starts")
    print(f"disk: {found['disk_mb']['pairs']:,.0f} MB of pairs, {found['disk_mb']['prepared']:,.0f} MB beside the runs")


if __name__ == "__main__":
    main()
