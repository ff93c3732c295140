"""A folder as a comparison of four methods leaves it: two better than the baseline or like it, one failed."""

import json
import random
from pathlib import Path

from example_run import HOSTILE

from unipref.core.io import write_json, write_text
from unipref.evaluate import against_baseline, calibration, selection_scores, summarise, temperature_of

RATES = [1e-6, 3e-6, 1e-5]
SEEDS = [0, 1, 2]
PULL = {"dpo": 0.1, "simpo": 2.0, "kto": 0.1}


def pair_rows(method: str, seed: int, n: int = 80) -> list[dict]:
    own, shared = random.Random(f"{method} {seed}"), random.Random("pairs")
    rows = []
    for i in range(n):
        chosen, rejected = -40 + 8 * shared.gauss(0, 1), -42 + 8 * shared.gauss(0, 1)
        rows.append({
            "id": f"r{i}", "conversation": f"c{i}", "domain": None, "weight": 1.0, "seed": seed, "aux": {},
            "logp_chosen": chosen - 2 + own.gauss(PULL[method], 1.5), "logp_rejected": rejected - 2,
            "ref_logp_chosen": chosen, "ref_logp_rejected": rejected, "len_chosen": 20, "len_rejected": 25,
            "words": [15, 18],
        })  # fmt: skip
    return rows


def write_comparison_folder(folder: Path, *, rates: list[float] | None = None) -> dict:
    """Write the folder (without its pages); its comparison."""
    rates = RATES if rates is None else rates
    rows = {name: [row for seed in SEEDS for row in pair_rows(name, seed)] for name in PULL}
    methods = {}
    for name, pairs in rows.items():
        of_seed = {seed: [row for row in pairs if row["seed"] == seed] for seed in SEEDS}
        numbers = summarise(pairs, [], designer=[], resamples=200)
        numbers["calibration"] = calibration(pairs, {s: temperature_of(of_seed[s]) for s in SEEDS}, resamples=200)
        methods[name] = {
            "method": name, "written": name, "options": {}, "status": "verified", "state": "done", "at_edge": False,
            "learning_rate": rates[len(rates) // 2], **numbers, "seed_deviation": {"accuracy": 0.012}, "seeds": SEEDS,
            "seconds": 12.5, "tokens": 216808, "steps": 26,
            "tuning": [
                {"learning_rate": rate, "state": "done", "validation": selection_scores(of_seed[0][i::3])}
                for i, rate in enumerate(rates)
            ],
        }  # fmt: skip
    failed = {"learning_rate": rates[0], "state": "failed", "reason": HOSTILE, "validation": None}
    methods["ipo"] = {
        "method": "ipo", "written": "ipo:tau=0.1", "options": {"tau": 0.1}, "status": "verified", "state": "failed",
        "reason": HOSTILE, "tuning": [failed],
    }  # fmt: skip
    unequal = "" if len(rates) > 1 else "every method had one learning rate, so nothing was tuned"
    comparison = {
        "name": "example", "created": "2026-01-02T03:04:05Z", "version": "0.1.0", "recipe": {}, "designer": {},
        "command": "unipref compare quickstart --methods dpo,simpo,kto,ipo:tau=0.1",
        "data": {"split": {"train": 819, "validation": 205, "heldout": 80, "by": "conversation"}},
        "settings": {
            "learning_rates": rates, "seeds": SEEDS, "tuning_seed": 0, "select": "accuracy", "validation_share": 0.2,
            "unequal_tuning": unequal, "shared_stages": ["sft"], "baseline": "dpo",
        },
        "methods": methods, "reference": {}, "shared": {},
        "differences": against_baseline({n: (r, []) for n, r in rows.items()}, "dpo", resamples=200),
        "left_out": [{"method": "rpo", "reason": "rpo needs `reward`: add `objectives:` with a scorer"}],
    }  # fmt: skip
    write_json(folder / "comparison.json", comparison)
    write_json(folder / "data.json", comparison["data"])
    write_text(folder / "recipe.yaml", "name: example\n")
    write_text(folder / "citations.bib", "@misc{dpo}\n")
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
