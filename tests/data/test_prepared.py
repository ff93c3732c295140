"""Prepared data are the encoded records, whole or absent, and known by everything that decided a token."""

import copy
import json
import math
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_templates import CHATML, LLAMA
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.core.records import Comparison, Item, Message, Record, Span
from unipref.data import DataReport, encode_records, read_records, token_columns
from unipref.data.prepared import (
    Prepared,
    _keys,
    _prepared,
    key_folder,
    open_prepared,
    prepare,
    prepared_key,
    source_key,
    stream_records,
    tokenizer_key,
)
from unipref.data.prepared._encoding import ChunkEncoder
from unipref.data.prepared._workers import Workers

KEY = {"made": "of"}


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def asked(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def records() -> list[Record]:
    """One of everything that a record can hold."""
    sky = asked("What color is the sky? " * 6)
    spans = (Span(0, 6, 0.5), Span(6, 11))
    odd = {"reward": -0.1, "rated": math.nan, "high": math.inf, "small": 1e-300, "narrow": np.float32(0.1)}
    return [
        Record("pair", (Item(sky, said("It is blue.")), Item(sky, said("No."))), (Comparison(0, 1),)),
        Record(
            "\ud800 \u2028 ünïcode",
            (Item(sky, said("It is blue."), columns=odd, spans=spans), Item(sky, said("Black."), role="response")),
            (Comparison(1, 0, 0.75, 1.25, "ann"), Comparison(0, 1, 0.5)),
            weight=2.5,
            domain="science",
            user="",
            source="d.jsonl",
            line=7,
            conversation="what color is the sky?",
        ),
        Record("list", tuple(Item("Say: ", f"word {n}", rank=n + 1) for n in range(5))),
        Record("thumb", (Item("Hi", " there", label=False),)),
        Record("text", (Item("", "plain text to learn from", score_context=True),)),
        Record("ids", (Item(asked("Hi"), said("x"), response_ids=(300, 301, 302), label=True),)),
        Record("two", (Item("One two", " three"), Item("Other", " four"), Item("One two", " gold", role="gold"))),
        Record("turns", (Item((*asked("a"), *said("b"), *asked("c")), said("d")), Item(asked("a"), said("b")))),
    ]


def in_chunks(found, size: int):
    """`found` as a stream gives them."""
    for at in range(0, len(found), size):
        part = found[at : at + size]
        yield part, DataReport(n_read=len(part), n_kept=len(part))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(found: Prepared, encoded) -> None:
    """`found` holds `encoded`, in every field and of the same types."""
    assert len(found) == len(encoded)
    for i, one in enumerate(encoded):
        trie = found.trie(i)
        for name in ("token", "parent", "depth", "end", "context", "last"):
            mine, other = getattr(trie, name), getattr(one.trie, name)
            assert mine.dtype == other.dtype
            assert mine.tolist() == other.tolist()
        assert [nodes.tolist() for nodes in trie.scored] == [nodes.tolist() for nodes in one.trie.scored]
        assert repr(found.record(i)) == repr(one.record)  # by repr, as NaN is not equal to itself
        assert found.cuts(i) == (one.n_cut_context, one.n_cut_response, one.n_response, one.boundary)
        bare = replace(
            one.record,
            items=tuple(replace(item, context="", response="", response_ids=None) for item in one.record.items),
        )
        assert repr(found.facts(i)) == repr(bare)
        assert (found.sizes[i], found.n_scored[i]) == (trie.n_nodes, sum(map(len, trie.scored)))
        visible = sum(k <= q < trie.end[k] for k in range(trie.n_nodes) for q in range(trie.n_nodes))
        assert found.costs[i] == visible


def without_numpy(found: list[Record]) -> list[Record]:
    """`found` with Python's own numbers, as files give them back."""
    return [
        replace(
            record, items=tuple(replace(i, columns={k: float(v) for k, v in i.columns.items()}) for i in record.items)
        )
        for record in found
    ]


@pytest.mark.parametrize("max_length", [None, 40, 12])
def test_a_prepared_record_is_the_encoded_record(tmp_path, make_tokenizer, max_length):
    tokenizer = make_tokenizer(CHATML)
    encoded, report = encode_records(without_numpy(records()), tokenizer, max_length=max_length)
    found = prepare(in_chunks(records(), 3), tokenizer, tmp_path / "p", key=KEY, max_length=max_length, workers=1)
    assert_same(found, encoded)
    assert found.report == report
    assert_same(open_prepared(tmp_path / "p", KEY), encoded)
    assert found.encoded(-1).ids(0) == encoded[-1].ids(0)
    with pytest.raises(IndexError, match=f"there are {len(encoded)} records, and no number {len(encoded)}"):
        found.trie(len(encoded))


def test_the_account_goes_from_the_source_to_the_tokens(tmp_path, make_tokenizer):
    tokenizer = make_tokenizer(None, bos=None)
    lines = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "", "rejected": "b"}] * 4
    lines += [{"prompt": "p" * 50, "chosen": "c" * 9 + "a", "rejected": "c" * 9 + "b"}]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read, first = read_records(path)
    _, second = encode_records(read, tokenizer, max_length=8)
    found = prepare(stream_records(path, chunk=2), tokenizer, tmp_path / "p", key=KEY, max_length=8, workers=1)
    assert found.report == first.then(second)
    assert (len(found), found.report.n_read) == (4, 9)
    assert found.report.counts == {"empty response": 4, "truncation leaves the compared responses identical": 1}


def test_files_are_the_same_for_any_chunks_and_any_number_of_processes(tmp_path, make_tokenizer):
    tokenizer = make_tokenizer(LLAMA, add_bos=True)
    many = [replace(r, id=f"{n}") for n in range(30) for r in records() if r.items[0].response_ids is None]
    seen = []
    one = prepare(in_chunks(many, 7), tokenizer, tmp_path / "1", key=KEY, max_length=64, workers=1)
    other = prepare(
        in_chunks(many, 11), tokenizer, tmp_path / "2", key=KEY, max_length=64, workers=2, progress=seen.append
    )
    assert files(one.folder) == files(other.folder)
    assert seen == [*range(11, 210, 11), 210]
    assert one.digest == other.digest
    one.verify()


def test_a_fault_in_another_process_is_raised_here_as_it_is(make_tokenizer):
    faulty = [records()[0], replace(records()[0], id="none", items=(Item("a", ""), Item("a", "b")))]
    encode = ChunkEncoder(make_tokenizer(CHATML), 64, "context_start", strict=True, tokens=(), token="<u2")
    with Workers(encode, 1) as processes:
        found = processes.in_order(in_chunks(faulty * 4, 1))
        assert next(found)[0].report.n_kept == 1
        with pytest.raises(DataError, match="none: no response; mend or remove the row"):
            next(found)
        running = processes._processes[0]
        assert running.poll() is None
        running.kill()
        with pytest.raises(ConfigError, match=r"a process that tokenised ended with status -9.*use fewer workers"):
            list(processes.in_order(in_chunks(faulty, 1)))


def test_what_models_see_decides_the_digest_and_rows_of_one_prompt_share_a_hash(tmp_path, make_tokenizer):
    tokenizer = make_tokenizer(None)
    rows = [Record(f"{n}", (Item(prompt, " b"), Item(prompt, " c"))) for n, prompt in enumerate(["aa", "ab", "aa"])]
    found = {}
    for name, some in {
        "as is": rows,
        "weighted": [replace(row, weight=3.0, id=f"w{row.id}") for row in rows],
        "turned": [rows[1], rows[0], rows[2]],
    }.items():
        found[name] = prepare(in_chunks(some, 2), tokenizer, tmp_path / name, key=KEY, max_length=None, workers=1)
    assert found["as is"].digest == found["weighted"].digest != found["turned"].digest
    prompt = found["as is"].prompt
    assert prompt[0] == prompt[2] != prompt[1]
    assert found["turned"].prompt.tolist() == [prompt[1], prompt[0], prompt[2]]
    assert found["as is"].scored_start.tolist() == [0, 6, 12, 18]  # two responses, each a space, a letter and the end


def test_token_columns_are_those_of_the_records_and_records_without_are_set_aside(tmp_path, make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    spans = (Span(0, 6, 0.5), Span(6, 11, -1.0))
    items = Item(asked("Hi"), said("It is blue."), spans=spans), Item(asked("Hi"), said("It is not."), spans=spans[:1])
    rows = [Record("spans", items, (Comparison(0, 1),)), records()[0], Record("again", items, (Comparison(1, 0),))]
    names = ("diff", "segment", "segment_score")
    found = prepare(in_chunks(rows, 2), tokenizer, tmp_path / "p", key=KEY, max_length=64, tokens=names, workers=1)
    encoded, _ = encode_records([rows[0], rows[2]], tokenizer, max_length=64)
    assert_same(found, encoded)
    for i, one in enumerate(encoded):
        for name, expected in token_columns(one, tokenizer, names).items():
            assert found.tokens(i, name).tolist() == np.concatenate(expected).tolist()
            assert found.tokens(i, name).dtype == np.float32
    assert found.report.counts == {"a response has no segments": 1}
    assert found.token_columns == names
    with pytest.raises(ShapeError, match="no token column 'fresh'"):
        found.tokens(0, "fresh")


def test_ids_above_two_bytes_are_kept_and_ids_outside_of_the_vocabulary_are_refused(tmp_path, make_tokenizer):
    words = {"</s>": 0, **{f"w{n}": n for n in range(1, 70_000)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    large = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    row = Record("r", (Item("w1", " w69999"), Item("w1", " w65536 w3")))
    found = prepare(in_chunks([row], 1), large, tmp_path / "large", key=KEY, max_length=None, workers=1)
    assert found.trie(0).token.tolist() == [1, 69999, 0, 65536, 3, 0]
    row = Record("r", (Item("w1", "w2", response_ids=(70_000,)),), source="d.jsonl", line=3)
    with pytest.raises(
        DataError, match=r"'d\.jsonl', line 3, on bring response ids of another vocabulary .*0 to 65535"
    ):
        prepare(in_chunks([row], 1), make_tokenizer(None), tmp_path / "p", key=KEY, max_length=None, workers=1)


def test_nothing_to_prepare_is_said_and_a_chunk_of_faults_alone_is_not_the_end(tmp_path, make_tokenizer):
    tokenizer = make_tokenizer(None)
    empty = [Record(f"e{n}", (Item("a", ""),)) for n in range(3)]
    how = {"key": KEY, "max_length": None, "workers": 1}
    found = prepare(in_chunks([*empty, records()[3]], 1), tokenizer, tmp_path / "p", **how)
    assert (len(found), found.report.counts) == (1, {"no response": 3})
    with pytest.raises(DataError, match=r"none of 3 records can be encoded: {'no response': 3}. The first is e0"):
        prepare(in_chunks(empty, 2), tokenizer, tmp_path / "q", **how)
    with pytest.raises(DataError, match=r"there is no record to prepare. Read 0 rows, kept 0"):
        prepare(iter([]), tokenizer, tmp_path / "q", **how)
    with pytest.raises(ConfigError, match="no chat template"):
        prepare(in_chunks(records()[:1], 1), tokenizer, tmp_path / "q", **how)
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 1}, "max_length must hold a context token and a response token: 1"),
        ({"max_length": 1, "workers": 2}, "max_length must hold a context token and a response token: 1"),
        ({"truncate": "middle"}, "truncate is 'context_start' or 'end', not 'middle'"),
        ({"workers": 0}, "workers is 1 .this process alone. or more: 0"),
        ({"tokens": ["logp"]}, "the texts give no token column 'logp'; known: segment"),
        ({"key": {"max_length": 5}}, "the key says max_length 5, but the data are prepared with None"),
        ({"key": {"a": {1}}}, "a key is made of JSON values"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(tmp_path, make_tokenizer, options, message):
    options = {"key": KEY, "max_length": None, "workers": 1, **options}
    with pytest.raises(ConfigError, match=message):
        prepare(in_chunks(records(), 1), make_tokenizer(CHATML), tmp_path / "p", **options)
    assert not (tmp_path / "p").exists()


# --------------------------------------------------------------------------------------------- whole, absent, damaged


@pytest.fixture
def made(tmp_path, make_tokenizer) -> Prepared:
    return prepare(in_chunks(records(), 3), make_tokenizer(CHATML), tmp_path / "p", key=KEY, max_length=40, workers=1)


def test_what_is_there_is_given_back_and_the_chunks_are_not_read(made, make_tokenizer):
    def untouched():
        raise AssertionError("read")
        yield

    again = prepare(untouched(), make_tokenizer(CHATML), made.folder, key=KEY, max_length=40)
    assert files(again.folder) == files(made.folder)


def test_another_key_is_a_miss_and_takes_the_place_while_open_files_stay_readable(made, make_tokenizer):
    assert open_prepared(made.folder, {**KEY, "further": 1}) is None
    assert open_prepared(made.folder.parent / "none", KEY) is None
    before = [made.record(i).id for i in range(len(made))]
    other = prepare(
        in_chunks(records()[3:4], 1), make_tokenizer(CHATML), made.folder, key={"b": 1}, max_length=40, workers=1
    )
    assert len(other) == 1
    assert [made.record(i).id for i in range(len(before))] == before
    assert open_prepared(made.folder, KEY) is None


@pytest.mark.parametrize("layout", [0, 2])
def test_another_layout_is_a_miss(made, monkeypatch, layout):
    monkeypatch.setattr(_prepared, "LAYOUT", layout)
    assert open_prepared(made.folder, KEY) is None


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "texts.bin", "report.json", "prompt.bin"])
def test_a_file_that_is_cut_or_gone_is_found_and_made_again(made, make_tokenizer, name):
    whole, sentences = files(made.folder), []
    data = whole[name]
    (made.folder / name).write_bytes(data[:-1])
    assert open_prepared(made.folder, KEY, say=sentences.append) is None
    (made.folder / name).unlink()
    assert open_prepared(made.folder, KEY, say=sentences.append) is None
    assert [sentence.split(": ", 1)[1] for sentence in sentences] == [
        f"{name} has {len(data) - 1:,} bytes of {len(data):,}.",
        f"{name} is missing.",
    ]
    with pytest.raises(DataError, match=f"{name} is missing; delete the folder and prepare the data again"):
        Prepared(made.folder)
    prepare(in_chunks(records(), 8), make_tokenizer(CHATML), made.folder, key=KEY, max_length=40, say=sentences.append)
    assert sentences[-1].endswith(f"is made again: {name} is missing.")
    assert files(made.folder) == whole


@pytest.mark.parametrize(
    "change", [lambda text: text.replace('"n": 8', '"n": 7'), lambda text: text[:50], lambda _: "1"]
)
def test_a_description_that_was_changed_is_not_believed(made, change):
    meta = made.folder / "meta.json"
    text = meta.read_text()
    assert change(text) != text
    meta.write_text(change(text))
    assert open_prepared(made.folder, KEY) is None


def test_a_changed_byte_is_found_by_its_hash(made):
    made.verify()
    data = bytearray((made.folder / "tokens.bin").read_bytes())
    data[5] ^= 1
    (made.folder / "tokens.bin").write_bytes(data)
    with pytest.raises(DataError, match=r"tokens.bin is not what was written"):
        open_prepared(made.folder, KEY).verify()


def test_it_can_be_sent_to_another_process_as_the_name_of_its_folder(made):
    data = pickle.dumps(made)
    assert len(data) < 300
    again = pickle.loads(data)
    assert [again.record(i).id for i in range(len(again))] == [made.record(i).id for i in range(len(made))]
    assert not again.sizes.flags.writeable


def test_an_error_on_the_way_leaves_no_file(tmp_path, make_tokenizer):
    def failing():
        yield from in_chunks(records(), 4)
        raise DataError("the stream is cut off")

    with pytest.raises(DataError, match="cut off"):
        prepare(failing(), make_tokenizer(CHATML), tmp_path / "p", key=KEY, max_length=40, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [".p.lock"]


KILLED = """
import os, pickle, signal, sys
from unipref.data.prepared import prepare

def chunks(found):
    yield found
    yield found
    os.kill(os.getpid(), signal.SIGKILL)

tokenizer, found, folder, key = pickle.loads(sys.stdin.buffer.read())
prepare(chunks(found), tokenizer, folder, key=key, max_length=40, workers=1)
"""


def test_what_a_killed_run_left_is_not_trusted_and_the_next_one_says_so_and_starts_again(tmp_path, make_tokenizer):
    tokenizer, folder = make_tokenizer(CHATML), tmp_path / "p"
    (chunk,) = in_chunks(records(), 8)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], input=pickle.dumps((tokenizer, chunk, folder, KEY)), env=os.environ
    )
    assert ended.returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert left.name.startswith(".p.")
    assert open_prepared(folder, KEY) is None
    sentences = []
    found = prepare(iter([chunk]), tokenizer, folder, key=KEY, max_length=40, workers=1, say=sentences.append)
    assert len(found) == 8
    assert sentences == [
        f"An earlier run was stopped while it prepared p; {left.name} is removed, and the work starts again."
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".p.lock", "p"]


# --------------------------------------------------------------------------------------------- what it was made of


def test_every_option_that_decides_a_token_or_a_record_changes_the_key_and_nothing_else_does(make_tokenizer):
    source = {"name": "d.jsonl", "sha256": "0"}
    bases = {"source": source, "tokenizer": make_tokenizer(CHATML), "max_length": 64}

    def folder(**changes) -> Path:
        options = {**bases, **changes}
        return key_folder("root", prepared_key(options.pop("source"), options.pop("tokenizer"), **options))

    spoken = make_tokenizer(CHATML)
    spoken.add_tokens(["qux"])
    ended = make_tokenizer(CHATML)
    ended.eos_token = "<|im_end|>"
    unspecial = make_tokenizer(CHATML)
    unspecial.add_tokens(["<|mark|>"])
    special = make_tokenizer(CHATML)
    special.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    changes = [
        {},
        {"source": {**source, "sha256": "1"}},
        {"source": {**source, "name": "e.jsonl"}},
        {"tokenizer": make_tokenizer(LLAMA)},
        {"tokenizer": make_tokenizer(CHATML, add_bos=True)},
        {"tokenizer": make_tokenizer(CHATML, bos=None)},
        {"tokenizer": spoken},
        {"tokenizer": ended},
        {"tokenizer": unspecial},
        {"tokenizer": special},
        {"max_length": 63},
        {"max_length": None},
        {"truncate": "end"},
        {"format": "preference"},
        {"domain_field": "topic"},
        {"user_field": "who"},
        {"tokens": ["diff"]},
        {"further": {"operators": ["as_pairs"]}},
    ]
    assert len({folder(**change) for change in changes}) == len(changes)
    padded = make_tokenizer(CHATML)
    padded(["a", "a b"], padding=True, truncation=True, max_length=5)  # a call leaves its options in the backend
    assert folder(tokenizer=padded) == folder(tokenizer=copy.deepcopy(bases["tokenizer"])) == folder()
    assert folder(tokens=["fresh", "diff"]) == folder(tokens=("diff", "fresh", "diff"))


@pytest.mark.parametrize("name", ["ENCODING", "READING", "LAYOUT"])
def test_another_version_of_reading_encoding_or_files_is_another_key(make_tokenizer, monkeypatch, name):
    tokenizer = make_tokenizer(CHATML)
    before = prepared_key({}, tokenizer, max_length=9)
    monkeypatch.setattr(_keys, name, -1)
    assert prepared_key({}, tokenizer, max_length=9) != before


def test_a_tokenizer_is_known_again_after_it_was_saved(tmp_path, make_tokenizer):
    tokenizer = make_tokenizer(LLAMA, add_bos=True)
    key = tokenizer_key(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    first, second = (PreTrainedTokenizerFast.from_pretrained(tmp_path) for _ in range(2))
    assert tokenizer_key(first) == tokenizer_key(second)
    assert tokenizer_key(first) == key


def test_a_file_is_known_by_its_bytes_wherever_it_lies(tmp_path):
    (tmp_path / "a").mkdir()
    first, moved = tmp_path / "d.jsonl", tmp_path / "a" / "d.jsonl"
    first.write_text("a")
    moved.write_text("a")
    assert source_key(first) == source_key(str(moved)) == source_key(first, folder=tmp_path / "memo")
    assert source_key([first, moved]) == {"sources": [source_key(first)] * 2}
    moved.write_text("b")
    assert source_key(moved) != source_key(first)
    before = source_key(str(tmp_path / "a"))
    (tmp_path / "a" / "e").write_text("c")
    assert source_key(str(tmp_path / "a")) != before
    with pytest.raises(ConfigError, match=r"gone\.jsonl"):
        source_key(tmp_path / "gone.jsonl")


def test_rows_in_memory_are_known_by_what_they_say_and_bundled_data_by_their_hash():
    assert source_key([{"text": "a"}]) == source_key([{"text": "a"}]) != source_key([{"text": "b"}])
    bundled = source_key("bundled:hh-harmless")
    assert bundled["sha256"] == read_records("bundled:hh-harmless")[1].sources["bundled:hh-harmless"]["sha256"]


def test_a_source_without_bytes_needs_a_version():
    with pytest.raises(ConfigError, match=r"a source of type generator has no bytes here.*give a version"):
        source_key(row for row in [])
    with pytest.raises(ConfigError, match="the data set 'org/name' has no bytes here"):
        source_key("org/name")
    assert source_key("org/name", version="1") != source_key("org/name", version="2")


def test_a_file_is_read_again_only_when_the_file_system_says_that_it_changed(tmp_path):
    path, memo = tmp_path / "d.jsonl", tmp_path / "prepared" / "sources.json"
    path.write_text("a")
    key = source_key(path, folder=memo.parent)
    assert not memo.exists()  # written a moment ago: another write may leave the same time stamp
    os.utime(path, ns=(0, 10**15))
    assert source_key(path, folder=memo.parent) == key
    (entry,) = json.loads(memo.read_text()).values()
    assert entry == [1, 10**15, path.stat().st_ino, key["sha256"]]
    memo.write_text(json.dumps({str(path): [*entry[:3], "remembered"]}))
    assert source_key(path, folder=memo.parent)["sha256"] == "remembered"
    path.write_text("b")
    os.utime(path, ns=(0, 10**15 + 1))
    assert source_key(path, folder=memo.parent)["sha256"] not in ("remembered", key["sha256"])
    memo.write_text("{broken")
    assert source_key(path, folder=memo.parent) == source_key(path)
