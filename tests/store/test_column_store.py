"""Facts about columns of prepared data: what they find, what they never serve, and what they survive."""

import multiprocessing
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

from unipref.core.errors import ConfigError, ShapeError
from unipref.store import ColumnStore, ScoreStore

SPACE = {"kind": "logp", "weights": "abc", "precision": "float32", "path": "trie"}
LENGTHS = np.array([3, 0, 2, 5, 1])


def column_of(folder, space=SPACE, data="d1", lengths=LENGTHS):
    return ColumnStore(folder).column(space, data=data, lengths=lengths)


def numbers(rows, lengths=LENGTHS, factor=1.0):
    return [factor * (100.0 * row + np.arange(lengths[row])) for row in rows]


def test_rows_put_in_any_order_come_back_and_the_others_are_missing(tmp_path):
    column = column_of(tmp_path)
    assert column.missing().tolist() == [0, 1, 2, 3, 4]
    column.put([4, 0], numbers([4, 0]))
    assert column.missing().tolist() == [1, 2, 3]
    column.put([1, 3], numbers([1, 3]))
    again = column_of(tmp_path)
    assert again.missing().tolist() == [2]
    assert [again.values(row).tolist() for row in (0, 1, 3, 4)] == [[0, 1, 2], [], [300, 301, 302, 303, 304], [400]]
    assert again.values(0).dtype == np.float32


@pytest.mark.parametrize(
    "other",
    [
        {"space": {**SPACE, "weights": "abd"}},
        {"space": {**SPACE, "precision": "bfloat16"}},
        {"space": {**SPACE, "path": "rows"}},
        {"data": "d2"},
        {"lengths": np.array([3, 0, 2, 1, 5])},
    ],
)
def test_a_column_is_never_served_for_another_model_precision_path_or_data(tmp_path, other):
    column_of(tmp_path).put(range(5), numbers(range(5)))
    assert column_of(tmp_path).missing().tolist() == []
    assert column_of(tmp_path, **other).missing().tolist() == [0, 1, 2, 3, 4]


def test_thousands_of_rows_fill_in_parts_over_several_blocks(tmp_path):
    lengths = np.random.default_rng(0).integers(0, 6, 5000)
    column = column_of(tmp_path, lengths=lengths)
    order = np.random.default_rng(1).permutation(5000)
    for part in np.array_split(order[:4000], 7):
        column.put(part, numbers(part, lengths))
    again = column_of(tmp_path, lengths=lengths)
    assert again.missing().tolist() == sorted(order[4000:].tolist())
    for row in order[:4000].tolist():
        assert again.values(row).tolist() == numbers([row], lengths)[0].tolist()


def test_a_number_that_changed_on_disk_makes_its_block_missing_and_no_other(tmp_path):
    lengths = np.full(3000, 2)
    column = column_of(tmp_path, lengths=lengths)
    column.put(range(3000), numbers(range(3000), lengths))
    with open(column.path, "r+b") as file:
        file.seek(1500 * 2 * 4)
        file.write(b"\x01")
    damaged = column_of(tmp_path, lengths=lengths)
    assert damaged.missing().tolist() == list(range(1024, 2048))
    damaged.put([1500], numbers([1500], lengths))  # the rest of the block does not come back to life with it
    assert damaged.missing().tolist() == [row for row in range(1024, 2048) if row != 1500]
    damaged.put(damaged.missing(), numbers(damaged.missing(), lengths))
    again = column_of(tmp_path, lengths=lengths)
    assert again.missing().tolist() == []
    assert again.values(1500).tolist() == [150000, 150001]


@pytest.mark.parametrize("left", [0, 7, 3000 * 8 - 4, None])
def test_a_file_that_was_cut_or_lost_is_computed_again_where_it_ends(tmp_path, left):
    lengths = np.full(3000, 2)
    column = column_of(tmp_path, lengths=lengths)
    column.put(range(3000), numbers(range(3000), lengths))
    if left is None:
        column.path.unlink()
    else:
        with open(column.path, "r+b") as file:
            file.truncate(left)
    missing = column_of(tmp_path, lengths=lengths).missing()
    first = {0: 0, 7: 0, None: 0}.get(left, 2048)
    assert missing.tolist() == list(range(first, 3000))
    column_of(tmp_path, lengths=lengths).put(missing, numbers(missing, lengths))
    assert column_of(tmp_path, lengths=lengths).missing().tolist() == []


def test_a_sound_row_stays_as_it_is_when_it_is_put_again(tmp_path):
    column = column_of(tmp_path)
    column.put([0], [np.array([1.0, 2.0, 3.0])])
    column.put([0, 4], [np.array([7.0, 7.0, 7.0]), np.array([7.0])])  # another batch may differ in the last bit
    assert column.values(0).tolist() == [1.0, 2.0, 3.0]
    assert column.values(4).tolist() == [7.0]


def test_a_pickled_column_reads_what_is_there(tmp_path):
    column = column_of(tmp_path)
    column.put(range(5), numbers(range(5)))
    column.values(0)
    copied = pickle.dumps(column)
    assert len(copied) < 1000
    assert pickle.loads(copied).values(3).tolist() == [300, 301, 302, 303, 304]


def test_stats_count_rows_that_are_done(tmp_path):
    column_of(tmp_path).put([0, 2, 3], numbers([0, 2, 3]))
    column_of(tmp_path, data="d2").put([1], numbers([1]))
    stats = ColumnStore(tmp_path).stats()
    assert [(row["data"], row["rows"], row["done"], row["bytes"]) for row in stats["columns"]] == [
        ("d1", 5, 3, 44),
        ("d2", 5, 1, 44),
    ]
    assert stats["columns"][0]["space"] == SPACE


def test_wrong_calls_say_what_was_expected(tmp_path):
    column = column_of(tmp_path)
    with pytest.raises(ShapeError, match="row 3 has 5 numbers, and an array of shape \\(4,\\) arrived"):
        column.put([3], [np.zeros(4)])
    with pytest.raises(ShapeError, match="2 rows, 1 arrays"):
        column.put([0, 1], [np.zeros(3)])
    with pytest.raises(ShapeError, match="rows are 0 to 4"):
        column.put([5], [np.zeros(3)])
    with pytest.raises(ConfigError, match="made of JSON values"):
        column_of(tmp_path, space={"kind": {1}})
    assert column.missing().tolist() == [0, 1, 2, 3, 4]


def fill(folder, writer, ready):
    ready.wait()
    lengths = np.full(2200, 3)
    column = column_of(folder, lengths=lengths)
    for start in range(0, 2200, 100):
        rows = list(range(start + writer, start + 100, 2))
        column.put(rows, numbers(rows, lengths))
        column.put([start], numbers([start], lengths))


def test_processes_that_fill_one_column_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    writers = [context.Process(target=fill, args=(tmp_path / "new", writer, ready)) for writer in (0, 1)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    lengths = np.full(2200, 3)
    column = column_of(tmp_path / "new", lengths=lengths)
    assert column.missing().tolist() == []
    assert [column.values(row).tolist() for row in range(2200)] == [v.tolist() for v in numbers(range(2200), lengths)]


def test_a_store_of_which_another_process_has_made_the_file_but_not_yet_its_tables_is_made_whole(tmp_path):
    (tmp_path / "columns.sqlite").touch()
    (tmp_path / "scores.sqlite").touch()
    assert column_of(tmp_path).missing().tolist() == [0, 1, 2, 3, 4]
    assert ScoreStore(tmp_path).get_many({}, [b"key"]) == [None]


KILLED = """
import os, signal, sys
import numpy as np
from unipref.store import ColumnStore

column = ColumnStore(sys.argv[1]).column({"kind": "logp"}, data="d", lengths=np.full(4, 2))
column.put([0], [np.ones(2)])
synced = os.fsync
def killed(handle):
    synced(handle)
    os.kill(os.getpid(), signal.SIGKILL)  # the numbers are on disk, and nothing says that they are
os.fsync = killed
column.put([1, 2], [np.full(2, 7.0), np.full(2, 7.0)])
"""


def test_a_process_killed_in_the_middle_of_a_put_leaves_all_before_it_and_nothing_of_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    column = column_of(tmp_path, space={"kind": "logp"}, data="d", lengths=np.full(4, 2))
    assert column.missing().tolist() == [1, 2, 3]
    column.put([1], [np.full(2, 2.0)])
    assert column.missing().tolist() == [2, 3]
    assert [column.values(row).tolist() for row in (0, 1)] == [[1, 1], [2, 2]]


FULL = """
import resource, signal, sys
import numpy as np
from unipref.store import ColumnStore, StoreError

store = ColumnStore(sys.argv[1])
small = store.column({"k": 1}, data="d", lengths=np.full(1, 2))
small.put([0], [np.ones(2)])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))  # the disk takes no larger file
large = store.column({"k": 2}, data="d", lengths=np.full(100, 10_000))
try:
    large.put(range(100), [np.ones(10_000)] * 100)
except StoreError as err:
    print(err)
assert len(large.missing()) == 100
assert small.missing().tolist() == []
"""


def test_a_full_disk_is_an_error_that_says_so_and_keeps_nothing_of_the_put(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the column store" in done.stdout
    assert "free space on its disk" in done.stdout
