"""Two processes train as one: the same losses, metrics and weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks_worker import OBJECTIVES, train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two ranks say of every run, which they make one after the other."""
    folder = tmp_path_factory.mktemp("together")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(HERE)}
    words = [sys.executable, str(HERE.parent / "two_ranks.py"), "ranks_worker", str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_ranks_with_uneven_shares_follow_the_run_of_one(name, together, tmp_path):
    one, two = train(name, tmp_path), together[name]
    assert len(one["rows"]) == len(two["rows"]) == 5
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            # diagnostics are means over forwards, which the ranks cut otherwise
            if not key.startswith("upo/"):
                assert b[key] == pytest.approx(a[key], rel=1e-5, abs=1e-7), key
    assert two["eval"] == pytest.approx(one["eval"], rel=1e-5, abs=1e-7)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-5, abs=1e-5)
