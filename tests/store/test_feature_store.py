"""Facts about the feature store: what it finds, what it never serves, what it survives, and what it costs in memory."""

import multiprocessing
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from unipref.core.errors import ConfigError, ShapeError
from unipref.store import FeatureStore, StoreError, text_key

SPACE = {"kind": "embedding", "identity": {"embedder": "a", "recipe": 1}}
KEYS = [text_key(f"text {i}") for i in range(6)]


def rows(n, width=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def vectors_of(store, space, keys):
    found = store.find(space, keys)
    assert (found.row >= 0).all()
    return np.asarray(store.vectors(space)[found.row])


def test_what_was_put_is_found_in_order_and_what_was_not_is_a_miss(tmp_path):
    store, values = FeatureStore(tmp_path / "deep" / "folder"), rows(3)
    assert store.find(SPACE, KEYS).row.tolist() == [-1] * 6
    assert store.vectors(SPACE).shape == (0, 0)
    store.put_many(SPACE, KEYS[:3], values, cut=np.array([False, True, False]))
    found = store.find(SPACE, [KEYS[2], KEYS[5], KEYS[1], KEYS[2]])
    assert found.row.tolist() == [2, -1, 1, 2]
    assert found.cut.tolist() == [False, False, True, False]
    again = FeatureStore(str(tmp_path / "deep" / "folder"))
    np.testing.assert_array_equal(vectors_of(again, SPACE, KEYS[:3]), values)


def test_a_vector_is_never_served_for_another_identity(tmp_path):
    store = FeatureStore(tmp_path)
    store.put_many(SPACE, KEYS[:1], rows(1))
    for identity in ({"embedder": "a", "recipe": 2}, {"embedder": "b", "recipe": 1}, {"embedder": "a"}):
        assert store.find({**SPACE, "identity": identity}, KEYS[:1]).row.tolist() == [-1]


def test_thousands_fill_in_parts_and_a_key_that_is_there_keeps_its_row(tmp_path):
    store, keys, values = FeatureStore(tmp_path), [text_key(str(i)) for i in range(5000)], rows(5000)
    store.put_many(SPACE, keys[::2], values[::2])
    missing = np.flatnonzero(store.find(SPACE, keys).row < 0)
    assert missing.tolist() == list(range(1, 5000, 2))
    store.put_many(SPACE, keys, values)  # two processes may have computed the same
    np.testing.assert_array_equal(vectors_of(store, SPACE, keys), values)
    assert store.vectors(SPACE).shape == (5000, 4)
    assert store.stats()["spaces"] == [{"space": SPACE, "vectors": 5000, "width": 4, "bytes": 5000 * 16}]


def test_one_key_twice_in_a_put_is_one_row(tmp_path):
    store = FeatureStore(tmp_path)
    store.put_many(SPACE, [KEYS[0], KEYS[0]], np.ones((2, 4)))
    assert store.vectors(SPACE).tolist() == [[1, 1, 1, 1]]


def test_a_vector_that_changed_on_disk_is_a_miss_and_is_written_again_where_it_lay(tmp_path):
    store, values = FeatureStore(tmp_path), rows(6)
    store.put_many(SPACE, KEYS, values)
    (path,) = tmp_path.glob("vectors-*.f32")
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + b"\xff" + whole[21:-3])  # in row 1, and the end of row 5 is gone
    assert store.find(SPACE, KEYS).row.tolist() == [0, -1, 2, 3, 4, -1]
    store.put_many(SPACE, [KEYS[1], KEYS[5]], values[[1, 5]])
    assert path.read_bytes() == whole
    path.unlink()
    assert store.find(SPACE, KEYS).row.tolist() == [-1] * 6
    store.put_many(SPACE, KEYS, values)
    np.testing.assert_array_equal(vectors_of(store, SPACE, KEYS), values)


def test_wrong_calls_say_what_was_expected(tmp_path):
    store = FeatureStore(tmp_path)
    store.put_many(SPACE, KEYS[:1], rows(1))
    with pytest.raises(ShapeError, match=r"2 keys, values \(1, 4\)"):
        store.put_many(SPACE, KEYS[:2], rows(1))
    with pytest.raises(ShapeError, match=r"have 4 numbers, and 5 arrived; .* another identity"):
        store.put_many(SPACE, KEYS[1:2], rows(1, 5))
    with pytest.raises(ConfigError, match="JSON values"):
        store.find({"identity": object()}, KEYS)
    with pytest.raises(ShapeError, match="3 rows were expected, and 2 arrived"):
        store.matrix({"a": 1}, (3, 4), lambda: [rows(2)])
    assert not list(tmp_path.glob("*matrix*"))
    store.put_many(SPACE, [], rows(0))
    assert store.stats()["vectors"] == 1


def test_a_matrix_is_made_once_read_only_and_again_only_where_its_file_is_damaged(tmp_path):
    store, values, made = FeatureStore(tmp_path), rows(10), []

    def parts():
        made.append(1)
        yield values[:7]
        yield values[7:]

    for _ in range(2):
        matrix = store.matrix({"what": "a"}, (10, 4), parts)
        np.testing.assert_array_equal(matrix, values)
    assert len(made) == 1
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1.0
    (path,) = tmp_path.glob("matrix-*.f32")
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    np.testing.assert_array_equal(store.matrix({"what": "a"}, (10, 4), parts), values)
    assert len(made) == 2
    assert store.matrix({"what": "b"}, (0, 4), lambda: []).shape == (0, 4)


def fill(folder, writer, ready):
    ready.wait()
    store = FeatureStore(folder)
    for start in range(0, 200, 20):
        keys = [text_key("shared", str(i)) for i in range(start, start + 20)]
        store.put_many(SPACE, keys, np.array([[i, 1] for i in range(start, start + 20)]))
        store.put_many(SPACE, [text_key(str(writer), str(start))], np.array([[writer, start]]))


def test_processes_that_make_and_fill_one_store_at_once_lose_nothing_and_write_nothing_twice(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    writers = [context.Process(target=fill, args=(tmp_path / "new", writer, ready)) for writer in (1, 2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    store = FeatureStore(tmp_path / "new")
    shared = vectors_of(store, SPACE, [text_key("shared", str(i)) for i in range(200)])
    assert shared.tolist() == [[i, 1] for i in range(200)]
    own = vectors_of(store, SPACE, [text_key("2", str(i)) for i in range(0, 200, 20)])
    assert own.tolist() == [[2, i] for i in range(0, 200, 20)]
    assert len(store.vectors(SPACE)) == 200 + 2 * 10


KILLED = """
import os, signal, sys
import numpy as np
from unipref.store import FeatureStore

store = FeatureStore(sys.argv[1])
space = {"kind": "embedding"}
store.put_many(space, [b"before"], np.ones((1, 3)))
synced = os.fsync
def killed(handle):
    synced(handle)
    os.kill(os.getpid(), signal.SIGKILL)  # the vectors are on disk, and nothing says where
os.fsync = killed
store.put_many(space, [b"a", b"b"], np.full((2, 3), 7.0))
"""


def test_a_process_killed_in_the_middle_of_a_put_leaves_all_before_it_and_nothing_of_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store, space = FeatureStore(tmp_path), {"kind": "embedding"}
    assert store.find(space, [b"before", b"a", b"b"]).row.tolist() == [0, -1, -1]
    store.put_many(space, [b"b"], np.full((1, 3), 2.0))
    assert vectors_of(store, space, [b"before", b"b"]).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_full_disk_is_an_error_that_says_so_and_keeps_nothing_of_the_put(tmp_path):
    code = """
import resource, signal, sys
import numpy as np
from unipref.store import FeatureStore, StoreError

store = FeatureStore(sys.argv[1])
store.put_many({"k": 1}, [b"a"], np.ones((1, 10)))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))  # the disk takes no larger file
try:
    store.put_many({"k": 1}, [b"%d" % i for i in range(50_000)], np.ones((50_000, 10)))
except StoreError as err:
    print(err)
assert store.find({"k": 1}, [b"a", b"0"]).row.tolist() == [0, -1]
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the feature store" in done.stdout
    assert "free space on its disk" in done.stdout


def test_a_file_that_is_no_store_is_an_error_that_says_it_can_be_deleted(tmp_path):
    (tmp_path / "features.sqlite").write_bytes(b"not a database, " * 200)
    with pytest.raises(StoreError, match=r"feature store .*features\.sqlite cannot be read .* delete it"):
        FeatureStore(tmp_path).find(SPACE, KEYS)


def test_finding_and_reading_many_vectors_holds_a_block_of_them_in_memory(tmp_path):
    store = FeatureStore(tmp_path)
    keys = [text_key(str(i)) for i in range(10_000)]
    for start in range(0, 10_000, 2000):
        store.put_many(SPACE, keys[start : start + 2000], np.full((2000, 512), start, np.float32))
    tracemalloc.start()  # numpy tells it of every array; pages of a mapped file are none of them
    total = 0.0
    for start in range(0, 10_000, 1000):
        found = store.find(SPACE, keys[start : start + 1000])
        total += float(store.vectors(SPACE)[found.row].sum(dtype=np.float64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == sum(range(0, 10_000, 2000)) * 2000 * 512
    assert peak < 10e6  # all vectors are 20 MB
