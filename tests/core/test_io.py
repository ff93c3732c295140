"""A reader sees the old file or the whole new one."""

import json
import math
import os

import numpy as np
import pytest

from unipref.core.io import append_jsonl, read_jsonl, to_json, write_json, write_text, writing_folder


def test_numbers_that_json_lacks_become_null():
    assert json.loads(to_json({"a": math.nan, "b": [math.inf, np.float32(0.5)], "c": np.arange(2)})) == {
        "a": None, "b": [None, 0.5], "c": [0, 1],
    }  # fmt: skip


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def stop_halfway():
        with writing_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        with writing_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text(text)
    assert (tmp_path / "model" / "weights").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_jsonl(path, [{"step": 1}, {"step": 2}])
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]
