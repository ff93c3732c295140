"""Facts about the score store: what it finds, what it never serves, and what it survives."""

import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.core.records import Message
from unipref.store import ScoreStore, StoreError, text_key, tokens_key

SPACE = {"kind": "logp", "fingerprint": "abc", "dtype": "float32", "version": 1}
KEY = tokens_key([1, 2], [3, 4])


def array(*values, dtype=np.float32):
    return np.array(values, dtype=dtype)


@contextmanager
def ordinary_user():
    """Run the block without root's right to write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that any user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


def test_what_was_put_comes_back_in_order_with_dtype_and_shape_and_what_was_not_is_none(tmp_path):
    store = ScoreStore(tmp_path)
    keys = [tokens_key([], [i]) for i in range(4)]
    values = [
        array(-1.5, -2.0),
        array(1e-300, dtype=np.float64),
        np.zeros((2, 0, 3), np.float32),
        array(*range(6)).reshape(2, 3),
    ]
    store.put_many(SPACE, keys, values)
    got = store.get_many(SPACE, [keys[2], KEY, keys[0], keys[3], keys[1]])
    assert got[1] is None
    for value, expected in zip([got[2], got[4], got[0], got[3]], values, strict=True):
        assert value.dtype == expected.dtype
        assert value.shape == expected.shape
        np.testing.assert_array_equal(value, expected)


def test_a_scalar_and_an_empty_array_keep_their_shapes(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [b"scalar", b"empty"], [np.float64(2.5), np.zeros(0, np.float32)])
    scalar, empty = store.get_many(SPACE, [b"scalar", b"empty"])
    assert scalar.shape == ()
    assert float(scalar) == 2.5
    assert empty.shape == (0,)


def test_not_a_number_is_a_value_and_not_a_miss(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [KEY], [array(np.nan, -np.inf)])
    (value,) = store.get_many(SPACE, [KEY])
    assert np.isnan(value[0])
    assert value[1] == -np.inf


def test_a_second_put_overwrites_the_first(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [KEY], [array(1.0)])
    store.put_many(SPACE, [KEY], [array(2.0, 3.0)])
    assert store.get_many(SPACE, [KEY])[0].tolist() == [2.0, 3.0]
    assert store.stats()["values"] == 1


def test_a_key_asked_twice_gives_two_arrays_that_do_not_share_memory(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [KEY], [array(1.0)])
    first, second = store.get_many(SPACE, [KEY, KEY])
    first[0] = 9.0
    assert second.tolist() == [1.0]


def test_thousands_of_keys_fill_in_parts(tmp_path):
    store = ScoreStore(tmp_path)
    keys = [tokens_key([7], [i]) for i in range(2500)]
    store.put_many(SPACE, keys[::2], [array(i) for i in range(0, 2500, 2)])
    got = store.get_many(SPACE, keys)
    assert [i for i, value in enumerate(got) if value is None] == list(range(1, 2500, 2))
    assert [value.item() for value in got[::2]] == list(range(0, 2500, 2))


@pytest.mark.parametrize(
    "other",
    [
        {**SPACE, "fingerprint": "abd"},
        {**SPACE, "dtype": "bfloat16"},
        {**SPACE, "version": 2},
        {**SPACE, "version": "1"},
        {**SPACE, "kind": "entropy"},
        {key: value for key, value in SPACE.items() if key != "version"},
        {**SPACE, "adapter": None},
    ],
)
def test_a_value_is_never_served_for_another_space(tmp_path, other):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [KEY], [array(1.0)])
    assert store.get_many(other, [KEY]) == [None]


def test_the_order_of_a_spaces_entries_does_not_matter(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many({"a": 1, "b": {"c": [1, 2], "d": 2}}, [KEY], [array(1.0)])
    assert store.get_many({"b": {"d": 2, "c": (1, 2)}, "a": 1}, [KEY])[0].tolist() == [1.0]


def test_another_layout_of_the_store_makes_every_value_a_miss(tmp_path, monkeypatch):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [KEY], [array(1.0)])
    monkeypatch.setattr("unipref.store._scores.LAYOUT", -1)
    assert store.get_many(SPACE, [KEY]) == [None]


def test_truncating_the_ids_or_moving_the_scored_span_changes_the_key():
    keys = {
        tokens_key([1, 2, 3], [4, 5]), tokens_key([2, 3], [4, 5]), tokens_key([1, 2, 3], [4]),
        tokens_key([1, 2], [3, 4, 5]), tokens_key([1, 2, 3, 4, 5], []), tokens_key([], [1, 2, 3, 4, 5]),
    }  # fmt: skip
    assert len(keys) == 6
    assert tokens_key((1, 2), [3]) == tokens_key([1, 2], np.array([3], dtype=np.int32))


def test_texts_that_join_to_the_same_string_have_different_keys():
    turn = (Message("user", "a"), Message("assistant", "b"))
    keys = {
        text_key("ab", ""), text_key("a", "b"), text_key("", "ab"), text_key("ab"), text_key(turn),
        text_key(turn[:1], "b"), text_key((Message("system", "a"),), "b"), text_key('[["user", "a"]]', "b"),
    }  # fmt: skip
    assert len(keys) == 8


def test_accents_emoji_and_a_lone_surrogate_have_keys_of_their_own():
    assert len({text_key("caf\u00e9 \U0001f600"), text_key("cafe \U0001f600"), text_key("caf\u00e9 \ud800")}) == 3


@pytest.mark.parametrize("change", ["data = X'00000000'", "shape = '2'", "dtype = 'float64'", "crc = crc + 1"])
def test_a_value_that_changed_on_disk_is_a_miss_and_is_overwritten(tmp_path, change):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [KEY, b"other"], [array(1.0), array(2.0)])
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE scores SET {change} WHERE key = ?", (KEY,))
    assert store.get_many(SPACE, [KEY]) == [None]
    assert store.get_many(SPACE, [b"other"])[0].tolist() == [2.0]
    store.put_many(SPACE, [KEY], [array(1.0)])
    assert store.get_many(SPACE, [KEY])[0].tolist() == [1.0]


def test_a_value_copied_to_another_key_on_disk_is_a_miss_there(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [b"a", b"b"], [array(1.0), array(2.0)])
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(
            "UPDATE scores SET (data, crc) = (SELECT data, crc FROM scores WHERE key = ?) WHERE key = ?", (b"a", b"b")
        )
    first, second = store.get_many(SPACE, [b"a", b"b"])
    assert first.tolist() == [1.0]
    assert second is None


def test_a_store_opened_again_and_a_store_that_was_pickled_find_the_values(tmp_path):
    store = ScoreStore(tmp_path / "deep" / "folder")
    store.put_many(SPACE, [KEY], [array(1.0)])
    for again in (ScoreStore(str(tmp_path / "deep" / "folder")), pickle.loads(pickle.dumps(store))):
        assert again == store
        assert again.get_many(SPACE, [KEY])[0].tolist() == [1.0]


def test_stats_count_values_and_bytes_by_space(tmp_path):
    store = ScoreStore(tmp_path)
    assert store.stats()["values"] == 0
    store.put_many(SPACE, [b"a", b"b"], [array(1.0, 2.0), array(3.0)])
    store.put_many({"kind": "reward"}, [b"a"], [array(1.0, dtype=np.float64)])
    stats = store.stats()
    assert stats["values"] == 3
    assert stats["spaces"] == [
        {"space": SPACE, "values": 2, "bytes": 12},
        {"space": {"kind": "reward"}, "values": 1, "bytes": 8},
    ]
    assert stats["bytes"] == store.path.stat().st_size > 0


def test_wrong_calls_say_what_was_expected(tmp_path):
    store = ScoreStore(tmp_path)
    with pytest.raises(ConfigError, match="2 keys, 1 values"):
        store.put_many(SPACE, [b"a", b"b"], [array(1.0)])
    with pytest.raises(ConfigError, match="float32 or float64 arrays, not int64"):
        store.put_many(SPACE, [b"a"], [np.array([1])])
    with pytest.raises(ConfigError, match="JSON values"):
        store.get_many({"model": object()}, [b"a"])
    with pytest.raises(ConfigError, match="JSON values"):
        store.get_many({"temperature": float("nan")}, [b"a"])


def test_putting_nothing_writes_nothing(tmp_path):
    store = ScoreStore(tmp_path)
    store.put_many(SPACE, [], [])
    assert store.stats()["spaces"] == []
    assert store.get_many(SPACE, []) == []


def write_many(folder, writer, ready):
    ready.wait()
    store = ScoreStore(folder)
    for start in range(0, 200, 20):
        keys = [tokens_key([writer], [i]) for i in range(start, start + 20)]
        store.put_many({"writer": writer}, keys, [array(writer, i) for i in range(start, start + 20)])
        store.put_many({"shared": True}, [tokens_key([], [start])], [array(start)])


def test_processes_that_make_and_fill_one_store_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    writers = [context.Process(target=write_many, args=(tmp_path / "new", writer, ready)) for writer in (1, 2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    store = ScoreStore(tmp_path / "new")
    for writer in (1, 2):
        got = store.get_many({"writer": writer}, [tokens_key([writer], [i]) for i in range(200)])
        assert [value.tolist() for value in got] == [[writer, i] for i in range(200)]
    assert store.stats()["values"] == 2 * 200 + 10


def test_threads_of_one_process_share_a_store(tmp_path):
    store = ScoreStore(tmp_path)
    errors = []

    def work(number):
        try:
            for i in range(10):
                store.put_many({"thread": number}, [tokens_key([], [i])], [array(i)])
                assert store.get_many({"thread": number}, [tokens_key([], [i])])[0].item() == i
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.stats()["values"] == 40


KILLED = """
import os, signal, sys
import numpy as np
from unipref.store import ScoreStore

store = ScoreStore(sys.argv[1])
store.put_many({"kind": "before"}, [b"a"], [np.ones(3, np.float32)])

with store._writing() as connection:
    connection.execute("INSERT INTO spaces (digest, space) VALUES (x'00', '{}')")
    for i in range(20000):
        connection.execute(
            "INSERT INTO scores VALUES (1, ?, 'float32', '1000', 0, zeroblob(4000))", (b"half%d" % i,)
        )
    print("half way", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_in_the_middle_of_a_put_leaves_all_before_it_and_nothing_of_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "half way\n"
    store = ScoreStore(tmp_path)
    assert store.get_many({"kind": "before"}, [b"a"])[0].tolist() == [1.0, 1.0, 1.0]
    assert store.stats()["values"] == 1
    store.put_many({"kind": "before"}, [b"b"], [array(2.0)])
    assert store.get_many({"kind": "before"}, [b"b"])[0].tolist() == [2.0]


PUTS = """
import sys
import numpy as np
from unipref.store import ScoreStore

store = ScoreStore(sys.argv[1])
for number in range(1000):
    keys = [b"%d" % i for i in range(3000)]
    store.put_many({"put": number}, keys, list(np.full((3000, 20), number, np.float32)))
    print(number, flush=True)
"""


def test_a_process_killed_at_any_time_leaves_each_put_whole_or_absent(tmp_path):
    with subprocess.Popen([sys.executable, "-c", PUTS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        done = [process.stdout.readline() for _ in range(3)]
        process.kill()
    assert done == ["0\n", "1\n", "2\n"]
    store = ScoreStore(tmp_path)
    assert {row["values"] for row in store.stats()["spaces"]} == {3000}
    for number in range(3):
        got = store.get_many({"put": number}, [b"%d" % i for i in range(3000)])
        assert all((value == number).all() for value in got)


FULL = """
import resource, signal, sys
import numpy as np
from unipref.store import ScoreStore, StoreError

store = ScoreStore(sys.argv[1])
store.put_many({"kind": "small"}, [b"a"], [np.ones(3, np.float32)])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))  # the disk takes no larger file
try:
    store.put_many({"kind": "large"}, [b"a", b"b"], [np.ones(3, np.float32), np.ones(5_000_000, np.float32)])
except StoreError as err:
    print(err)
assert store.get_many({"kind": "large"}, [b"a", b"b"]) == [None, None]
assert store.get_many({"kind": "small"}, [b"a"])[0].tolist() == [1.0, 1.0, 1.0]
store.put_many({"kind": "small"}, [b"b"], [np.ones(3, np.float32)])
"""


def test_a_full_disk_is_an_error_that_says_so_and_keeps_nothing_of_the_put(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"the score store {tmp_path / 'scores.sqlite'} cannot be written" in done.stdout
    assert "free space" in done.stdout


def test_a_folder_that_cannot_be_written_is_read_and_refuses_a_put_with_the_next_step(open_folder):
    store = ScoreStore(open_folder)
    store.put_many(SPACE, [KEY], [array(1.0)])
    store.path.chmod(0o444)
    open_folder.chmod(0o555)
    with ordinary_user():
        again = ScoreStore(open_folder)
        assert again.get_many(SPACE, [KEY])[0].tolist() == [1.0]
        assert again.stats()["values"] == 1
        with pytest.raises(StoreError, match=r"cannot be written .* choose another folder"):
            again.put_many(SPACE, [b"new"], [array(2.0)])
    assert store.get_many(SPACE, [KEY, b"new"])[1] is None


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file cannot be made"):
        ScoreStore(tmp_path / "file")


def test_a_file_that_is_no_store_is_an_error_that_says_it_can_be_deleted(tmp_path):
    (tmp_path / "scores.sqlite").write_bytes(b"not a database, " * 200)
    store = ScoreStore(tmp_path)
    with pytest.raises(StoreError, match=r"scores\.sqlite cannot be read .* delete it"):
        store.get_many(SPACE, [KEY])
