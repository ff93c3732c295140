"""Times of the hierarchical pair regression, beside a plain PyTorch-Adam fit of the same objective.

    python benchmarks/explain.py --json

- grid: 8 domains x 400 pairs x 800 concepts, five-fold cross-validation over nine settings.
- million: one million pairs x 64 concepts in 8 domains, one fit; peak memory of the process, data included.
- adam: one setting of the first; Adam on all weights until its objective is within a share of the optimum's, with the
  best of some learning rates, and how many of its weights are exactly zero.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CASES = ("grid", "million", "adam")
SHARE = 1e-3
RATES = (3e-3, 1e-2, 3e-2)
LONGEST = 20.0  # seconds for Adam at one rate


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", action="store_true", help="print JSON")
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # one measurement in a process of its own
    args = words.parse_args()
    if args.case:
        print(json.dumps({"grid": grid, "million": million, "adam": adam}[args.case]()))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "OPENBLAS_NUM_THREADS": str(args.threads)}
    found: dict[str, Any] = {"threads": args.threads, "repeats": args.repeats, "cpus": os.cpu_count()}
    for case in CASES:
        runs = []
        for _ in range(args.repeats):
            command = [sys.executable, __file__, "--case", case]
            runs.append(json.loads(subprocess.check_output(command, env=environment, text=True)))
        found[case] = {key: [statistics.median(run[key] for run in runs), min(run[key] for run in runs),
                             max(run[key] for run in runs)] for key in runs[0]}  # fmt: skip
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for case in CASES:
        for key, (middle, low, high) in found[case].items():
            print(f"{case:<8} {key:<28} {middle:12.5g}   [{low:.5g}, {high:.5g}]")


def grid() -> dict[str, float]:
    from unipref.explain import choose_penalties, penalty_grid

    X, y, domains = _votes()
    seconds, found = _timed(lambda: choose_penalties(X, y, domains, grid=penalty_grid(8)))
    return {"seconds": seconds, "accuracy": found.table[found.chosen]["accuracy"]}


def million() -> dict[str, float]:
    from unipref.explain import HierarchicalPairRegressor

    rng = np.random.default_rng(0)
    X = rng.standard_normal((1_000_000, 64), dtype=np.float32)
    domains = rng.integers(0, 8, len(X))
    truth = rng.normal(0, 0.2, 64)
    y = (rng.random(len(X)) < 1 / (1 + np.exp(-(X @ truth)))).astype(float)
    seconds, model = _timed(
        lambda: HierarchicalPairRegressor(lambda_shared=0.02, lambda_specific=0.01).fit(X, y, domains)
    )
    return {"seconds": seconds, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "gap": model.gap_}  # fmt: skip


def adam() -> dict[str, float]:
    from unipref.explain import HierarchicalPairRegressor

    X, y, domains = _votes()
    settings = {"lambda_shared": 1 / 16, "lambda_specific": 1 / 32}
    seconds, model = _timed(lambda: HierarchicalPairRegressor(**settings).fit(X, y, domains))
    goal = model.objective_ * (1 + SHARE)
    tries = [_adam(X, y, domains, goal, rate, **settings) for rate in RATES]
    best = min(tries, key=lambda found: (found["over"], found["seconds"]))
    zeros = float(np.mean(np.concatenate([model.shared_, model.specific_.ravel()]) == 0))
    return {
        "ours_seconds": seconds,
        "ours_gap": model.gap_,
        "ours_zeros": zeros,
        "adam_seconds": best["seconds"],
        "adam_over_optimum": best["over"],
        "adam_zeros": best["zeros"],
        "ratio": best["seconds"] / seconds,
    }


def _adam(
    X: np.ndarray, y: np.ndarray, domains: np.ndarray, goal: float, rate: float, lambda_shared: float,
    lambda_specific: float,
) -> dict[str, float]:  # fmt: skip
    """Full-batch Adam on the penalised objective until `goal`, or for LONGEST seconds."""
    import torch

    n = len(np.unique(domains))
    x = torch.tensor(np.stack([X[domains == d] for d in range(n)]))
    signs = torch.tensor(np.stack([2 * y[domains == d] - 1 for d in range(n)]))
    b = torch.zeros(x.shape[2], dtype=x.dtype, requires_grad=True)
    s = torch.zeros(n, x.shape[2], dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([b, s], lr=rate)
    began, lowest = time.perf_counter(), float("inf")
    while time.perf_counter() - began < LONGEST and lowest > goal:
        optimiser.zero_grad()
        together = torch.nn.functional.softplus(-signs * torch.einsum("dnc,dc->dn", x, b + s)).mean(1).sum()
        alone = torch.nn.functional.softplus(-signs * (x @ b)).mean(1).sum() / n
        loss = together + alone + lambda_shared * b.abs().sum() + lambda_specific * s.abs().sum()
        lowest = min(lowest, loss.item())
        loss.backward()
        optimiser.step()
    zeros = float((torch.cat([b, s.ravel()]) == 0).double().mean())
    return {"seconds": time.perf_counter() - began, "over": lowest * (1 + SHARE) / goal - 1, "zeros": zeros}


def _votes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """8 domains x 400 pairs x 800 concepts voted -1, 0 or 1; 15 shared weights and 8 of each domain."""
    rng = np.random.default_rng(0)
    b, rows, labels = np.zeros(800), [], []
    b[rng.choice(800, 15, replace=False)] = rng.normal(0, 0.8, 15)
    for _ in range(8):
        s = np.zeros(800)
        s[rng.choice(800, 8, replace=False)] = rng.normal(0, 0.8, 8)
        rows.append(rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.6, 0.2], size=(400, 800)))
        labels.append(rng.random(400) < 1 / (1 + np.exp(-rows[-1] @ (b + s))))
    return np.concatenate(rows), np.concatenate(labels).astype(float), np.repeat(np.arange(8), 400)


def _timed(make: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = make()
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
