"""A linear reward head on a million cached pairs: time, memory, and what it finds, beside two plain fits of the same.

    python benchmarks/reward_head.py --json

Two responses per pair, 384 numbers each, correlated as those of a sentence model are, lie in one file of float32 that
is mapped into memory. The choices are drawn from a planted weighting.

- ours: `make_model("bt").fit(table)`: scaling, the choice of the ridge inside the data, and the fit to its optimum.
- torch: the same loss in a plain loop, Adam on batches of 1,024 in random order, one epoch; the best of three rates.
- sgd: scikit-learn's SGDClassifier, logistic loss, averaged, `partial_fit` on differences, one epoch; the best of three
  penalties.

"seconds" leave out the making of the file, and count the peers' best setting alone. Of 20,000 new pairs, "right" is the
share on which the fit names the response that the planted weighting prefers, "agrees" the share of new choices that it
names, "ceiling" the share that the planted weighting names. "anonymous_mib" is the peak of memory that is no mapped
file, above what the process held before the fit. Each measurement is a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 384
FRESH = 20_000
CASES = ("ours", "torch", "sgd")
CHUNK = 50_000
STRENGTH = 2.0  # standard deviation of the planted log-odds
RATES = (1e-3, 3e-3, 1e-2)
PENALTIES = (1e-6, 1e-5, 1e-4)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", action="store_true", help="print JSON")
    words.add_argument("--pairs", type=int, default=1_000_000)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--only", choices=CASES, nargs="*", default=CASES)
    words.add_argument("--folder", type=Path, help="where the file of vectors is made; default: a temporary folder")
    words.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # one measurement in a process of its own
    args = words.parse_args()
    if args.case:
        print(json.dumps({"ours": ours, "torch": plain, "sgd": sgd}[args.case](args.folder, args.pairs)))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "OPENBLAS_NUM_THREADS": str(args.threads)}
    found: dict[str, Any] = {"pairs": args.pairs, "width": WIDTH, "threads": args.threads, "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found["file_mib"] = round(make(Path(folder), args.pairs) / 2**20)
        for case in args.only:
            command = [sys.executable, __file__, "--case", case, "--pairs", str(args.pairs), "--folder", folder]
            found[case] = json.loads(subprocess.check_output(command, env=environment, text=True))
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for case in args.only:
        print(f"{case:<6}", *(f"{key} {value:.4g}" for key, value in found[case].items()), sep="  ")


def make(folder: Path, pairs: int) -> int:
    """Write `features.f32` (two rows per pair, new pairs last) and `first.npy` (who was chosen); the size in bytes."""
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0] * np.geomspace(1.0, 0.05, WIDTH)[:, None]
    mixing = (mixing @ np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]).astype(np.float32)
    weights = rng.standard_normal(WIDTH)
    covariance = 2 * mixing.T.astype(np.float64) @ mixing  # of a difference
    weights *= STRENGTH / np.sqrt(weights @ covariance @ weights)
    total = pairs + FRESH
    features = np.memmap(folder / "features.f32", dtype=np.float32, mode="w+", shape=(2 * total, WIDTH))
    logits = np.empty(total)
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        rows = rng.standard_normal((2 * (stop - start), WIDTH), dtype=np.float32) @ mixing
        features[2 * start : 2 * stop] = rows
        logits[start:stop] = (rows[0::2] - rows[1::2]) @ weights
    features.flush()
    np.save(folder / "first.npy", rng.random(total) < 1 / (1 + np.exp(-logits)))
    np.save(folder / "logits.npy", logits)
    return features.nbytes


def ours(folder: Path, pairs: int) -> dict[str, float]:
    from unipref.rewards import PreferenceTable, make_model

    features, first = _given(folder, pairs)
    rows = np.arange(pairs)
    table = PreferenceTable(features, 2 * rows, 2 * rows + 1, first[:pairs].astype(float))
    with Memory() as memory:
        began = time.perf_counter(), time.process_time()
        model = make_model("bt").fit(table)
        taken = _since(began)
    new = np.arange(pairs, pairs + FRESH)
    fresh = PreferenceTable(features, 2 * new, 2 * new + 1, first[pairs:].astype(float))
    told = {"ridge": model.told_["ridge"], "steps": model.told_["steps"]}
    return {**taken, **memory.peaks(), **_judged(folder, pairs, model.decision_function(fresh)), **told}


def plain(folder: Path, pairs: int) -> dict[str, float]:
    import torch

    features, first = _given(folder, pairs)
    pair = features.reshape(-1, 2, WIDTH)
    sign = torch.from_numpy(2.0 * first - 1).float()
    new = torch.from_numpy(np.array(pair[pairs:]))
    scale = torch.from_numpy(np.array(pair[:CHUNK])).flatten(0, 1).std(0)
    best: dict[str, float] = {}
    for rate in RATES:
        with Memory() as memory:
            began = time.perf_counter(), time.process_time()
            w = torch.zeros(WIDTH, requires_grad=True)
            optimiser = torch.optim.Adam([w], lr=rate)
            order = np.random.default_rng(1).permutation(pairs)
            for start in range(0, pairs, 1024):
                rows = np.sort(order[start : start + 1024])
                both = torch.from_numpy(pair[rows])
                loss = torch.nn.functional.softplus(-sign[rows] * (((both[:, 0] - both[:, 1]) / scale) @ w)).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            taken = _since(began)
        logits = ((new[:, 0] - new[:, 1]) / scale) @ w.detach()
        found = {**taken, **memory.peaks(), **_judged(folder, pairs, logits.numpy()), "rate": rate}
        best = max(best, found, key=lambda one: one.get("right", 0.0))
    return best


def sgd(folder: Path, pairs: int) -> dict[str, float]:
    from sklearn.linear_model import SGDClassifier

    features, first = _given(folder, pairs)
    pair = features.reshape(-1, 2, WIDTH)
    new = pair[pairs:, 0] - pair[pairs:, 1]
    scale = pair[:CHUNK].reshape(-1, WIDTH).std(0)
    best: dict[str, float] = {}
    for penalty in PENALTIES:
        with Memory() as memory:
            began = time.perf_counter(), time.process_time()
            model = SGDClassifier(loss="log_loss", alpha=penalty, fit_intercept=False, random_state=0, average=True)
            for start in range(0, pairs, CHUNK):
                stop = min(start + CHUNK, pairs)
                rows = (pair[start:stop, 0] - pair[start:stop, 1]) / scale
                model.partial_fit(rows, first[start:stop], classes=[False, True])
            taken = _since(began)
        logits = model.decision_function(new / scale)
        found = {**taken, **memory.peaks(), **_judged(folder, pairs, logits), "penalty": penalty}
        best = max(best, found, key=lambda one: one.get("right", 0.0))
    return best


class Memory:
    """The peak of this process's own memory while a block runs, the pages of mapped files not counted."""

    def __enter__(self) -> "Memory":
        self.before = self.peak = self._now()
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.watcher.join()

    def peaks(self) -> dict[str, float]:
        return {"anonymous_mib": (self.peak - self.before) / 1024}

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        """KiB that belong to this process alone (Linux)."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def _since(began: tuple[float, float]) -> dict[str, float]:
    return {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}


def _given(folder: Path, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (2 * (pairs + FRESH), WIDTH)
    return np.memmap(folder / "features.f32", dtype=np.float32, mode="r", shape=shape), np.load(folder / "first.npy")


def _judged(folder: Path, pairs: int, logits: np.ndarray) -> dict[str, float]:
    planted, chosen = np.load(folder / "logits.npy")[pairs:], np.load(folder / "first.npy")[pairs:]
    return {
        "right": float(((logits > 0) == (planted > 0)).mean()),
        "agrees": float(((logits > 0) == chosen).mean()),
        "ceiling": float(((planted > 0) == chosen).mean()),
    }


if __name__ == "__main__":
    main()
