"""Finished run folders as `unipref align` leaves them, without training: rows whose means are known."""

import json
import random
from pathlib import Path

from unipref.core.io import append_jsonl, write_json
from unipref.recipes import load_recipe

GOAL = {"scorer": "length", "weight": 1.0, "options": {"cap": 60}}
DESCRIBED = {"description": "Length(cap=60)", "scorer": "length", "weight": 1.0, "clip": [None, None],
             "normalise": "none", "scale": None}  # fmt: skip


def write_run(
    folder: Path,
    runs: dict,
    *,
    start: int = 0,
    n: int = 30,
    n_prompts: int | None = None,
    designer: dict | None = None,
    seeds: tuple[int, ...] = (0,),
    before: str = "once upon a time",
    **changes,
) -> Path:
    """Write `folder` with conversations `start` to `start + n` held out.

    Args:
        runs: per run (stage, margin, goal, kl): what is trained, and the means of its rows.
        n_prompts: conversations with a generation; default: all.
        designer: the summary's designer objectives; each is scored with the run's goal.
        before: what the model before alignment wrote.
        changes: keys of the recipe.
    """
    designer = {"goal": DESCRIBED} if designer is None else designer
    values = {
        "name": folder.name, "model": "bundled", "data": {"train": "bundled:hh-harmless", "limit": 16},
        "objectives": {name: GOAL for name in designer}, "runs": {run: [each[0]] for run, each in runs.items()},
        "seeds": list(seeds), **changes,
    }  # fmt: skip
    recipe = load_recipe(values).resolved()
    of = range(start, start + n)
    prompts = of if n_prompts is None else of[:n_prompts]
    entries = {}
    for run, (stage, margin, goal, kl) in runs.items():
        for seed in seeds:
            own = random.Random(f"{folder.name} {run} {seed}")
            place = folder / run / (f"seed-{seed}" if len(seeds) > 1 else "")
            rows = {
                "seed": seed,
                "pairs": [_pair(i, margin + own.gauss(0, 1), designer, seed) for i in of],
                "generations": [
                    _text(i, f"{run} {seed}", goal + own.gauss(0, 0.1), kl + own.gauss(0, 0.1), designer, seed)
                    for i in prompts
                ],
            }
            write_json(place / "evaluation.json", rows)
            logs = [{"step": step, "loss": 1 / step, "tokens": 7 * step} for step in (1, 2, 3)]
            append_jsonl(place / stage["method"] / "metrics.jsonl", logs)
        entries[run] = {"method": stage["method"], "options": stage.get("options", {}), "seeds": list(seeds),
                        "seconds": 1.0, "alarms": []}  # fmt: skip
    first = random.Random("start")
    texts = [_text(i, before, first.gauss(0, 0.1), 0.0, designer, None) for i in prompts]
    write_json(folder / "shared" / "reference.json", {"pairs": [], "generations": texts})
    data = {"train": {"sources": {"bundled:hh-harmless": {"sha256": "0f"}}}, "split": {"train": 16}}
    summary = {"name": folder.name, "created": "2026-01-02T03:04:05Z", "version": "0.1.0", "recipe": recipe,
               "data": data, "designer": designer, "runs": entries, "differences": [], "reference": {}}  # fmt: skip
    write_json(folder / "summary.json", summary)
    return folder


def _pair(i, margin, designer, seed):
    hard = random.Random(f"pair {i}").gauss(0, 2)
    row = {
        "id": f"r{i}", "conversation": f"c{i}", "domain": None, "weight": 1.0, "logp_chosen": -20.0 + margin + hard,
        "logp_rejected": -20.0, "ref_logp_chosen": -20.0, "ref_logp_rejected": -20.0, "len_chosen": 10,
        "len_rejected": 12, "words": [8, 9], "aux": {name: [0.1 * (i % 7), 0.3] for name in designer},
    }  # fmt: skip
    return {**row, "seed": seed}


def _text(i, text, goal, kl, designer, seed):
    easy = random.Random(f"prompt {i}").gauss(0, 1)
    row = {
        "id": f"r{i}", "conversation": f"c{i}", "prompt": f"Question {i}?", "text": f"{text} {i}",
        "n_tokens": 10 + i % 3, "stopped": True, "logp": -30.0 + kl, "ref_logp": -30.0,
        "aux": {**{name: goal + easy for name in designer}, "reward": goal + easy},
    }  # fmt: skip
    return row if seed is None else {**row, "seed": seed}


def read(folder: Path) -> dict:
    return json.loads((folder / "runs.json").read_text(encoding="utf-8"))
