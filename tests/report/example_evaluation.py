"""An `evaluation.json` as `unipref reward eval` writes it, from synthetic pairs through the real evaluation."""

from functools import cache
from pathlib import Path

import numpy as np
from example_run import HOSTILE

from unipref.core.io import write_json
from unipref.evaluate import HeldOutPairs, Judgement, evaluate_preferences

MODELS = ("per user", "bt", HOSTILE)
SECTIONS = {"Chat": {"easy": 100, "hard": 300}, "Safety": {"refuse": 50, "absent": 10}, "Reasoning": {"none": 1}}


def named(values) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


@cache
def example(*, whole: bool = True) -> dict:
    """Three models, the first the best and too sure of itself; without `whole`, one model and nothing but pairs."""
    rng = np.random.default_rng(0)
    n = 600
    logit = rng.normal(0, 1.3, n)
    share = 1 / (1 + np.exp(-logit))
    p = np.where(np.arange(n) % 3 == 0, rng.binomial(10, share) / 10, rng.random(n) < share)
    domain = rng.choice(["law", "food", HOSTILE], n, p=[0.5, 0.4, 0.1])
    user = rng.choice([f"reader {i}" for i in range(16)] + [HOSTILE], n, p=[0.002, *[0.998 / 16] * 16])
    pairs = HeldOutPairs(
        p=p,
        conversation=named(np.arange(n) // 2),
        domain=named(domain) if whole else None,
        user=named(user) if whole else None,
        subset=named(rng.choice(["easy", "hard", "refuse", "other"], n)) if whole else None,
        length_difference=np.round(30 * logit + rng.normal(0, 60, n)) if whole else None,
    )
    if not whole:
        return evaluate_preferences(pairs, {"bt": Judgement(logit)}, resamples=200)
    noisy = logit + rng.normal(0, 1.5, n)
    gold = rng.normal(size=(120, 64))
    turned = gold + rng.standard_cauchy(gold.shape)
    models = {
        "bt": Judgement(np.where(np.arange(n) % 40 == 0, 0, noisy), swapped=-noisy + 0.3, left_out=noisy - 0.2,
                        best_of=(turned, gold), seconds=1.25),
        "per user": Judgement(2.5 * logit, swapped=-2.5 * logit, seconds=20.0,
                              left_out=np.where(domain == "law", np.nan, logit + rng.normal(0, 1, n)),
                              fallback=named(np.where(rng.random(n) < 0.05, "unseen user", "")),
                              best_of=(gold + rng.normal(0, 0.5, gold.shape), gold)),
        HOSTILE: Judgement(rng.normal(0, 0.2, n)),
    }  # fmt: skip
    about = {
        "name": "small", "created": "2026-01-02T03:04:05Z", "version": "0.1.0",
        "split": {"train": 1234, "heldout": n, "by": "conversation"},
        "notes": ["17 held-out pairs stand in the training data too and are left out."],
        "fit": {"bt": {"iterations": 12}},
    }  # fmt: skip
    rules = {"bag of words": logit + rng.normal(0, 4, n)}
    return evaluate_preferences(
        pairs, models, baselines=rules, main="per user", baseline="bt", sections=SECTIONS, about=about, resamples=200
    )


def write_example(folder: Path, **options) -> dict:
    """Write it into a folder."""
    told = example(**options)
    write_json(folder / "evaluation.json", told)
    return told
