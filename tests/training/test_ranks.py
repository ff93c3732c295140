"""Two processes train as one: the same losses, metrics and weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "ranks_worker.py"
# a loss of all rows together, twice with a vector per prompt; states; both; and a mask trained on a live reference
COUPLED = ["dr_dpo", "rpo_relative", "alpha_dpo", "beta_dpo", "sparse_po"]


def run(name, folder, ranks):
    folder.mkdir()
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, str(WORKER), name, str(folder)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", ["bt", "dpo", "kto", "upo", *COUPLED])
def test_two_ranks_with_uneven_shares_follow_the_run_of_one(name, tmp_path):
    one = run(name, tmp_path / "one", 1)
    two = run(name, tmp_path / "two", 2)
    assert len(one["rows"]) == len(two["rows"]) == 5
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            # diagnostics are means over forwards, which the ranks cut otherwise
            if not key.startswith("upo/"):
                assert b[key] == pytest.approx(a[key], rel=1e-5, abs=1e-7), key
    assert two["eval"] == pytest.approx(one["eval"], rel=1e-5, abs=1e-7)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-5, abs=1e-5)
