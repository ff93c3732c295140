"""Facts about recipes on streamed rows: the same training as on rows in memory, found again, and refused where not."""

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from transformers import AutoTokenizer

import unipref.data.catalogue  # noqa: F401 (fills the registry)
from unipref.core.cards import list_methods
from unipref.core.errors import ConfigError, DataError
from unipref.core.io import read_jsonl
from unipref.core.records import Comparison, Item, Message, Record, Span
from unipref.data import limit_records, read_records
from unipref.engine import score
from unipref.recipes import load_recipe, streamed
from unipref.recipes._run import read_data
from unipref.recipes.align import align
from unipref.recipes.compare import compare
from unipref.recipes.stage import fill, prepare, set_up
from unipref.recipes.streamed import Smallest
from unipref.recipes.workbench import Workbench
from unipref.store import ColumnStore, ScoreStore
from unipref.training import cache_references, references

TWO_RANKS = str(Path(__file__).parents[1] / "two_ranks.py")
WORDS = ["tea", "milk", "rain", "bread", "stone", "river", "lamp", "paper", "glass", "wool", "salt", "moon", "field"]


def rows(n, seed=0):
    rng = np.random.default_rng(seed)

    def words(least, most):
        return " ".join(rng.choice(WORDS, rng.integers(least, most)))

    return [
        {"prompt": f"{words(2, 12)} {i}?", "chosen": f" {words(3, 9)}.", "rejected": f" {words(1, 6)}!"}
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    made = rows(60)
    made.insert(7, {"prompt": "empty", "chosen": "", "rejected": " no"})
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def recipe(model, file, *, stream=True, method="dpo", data=None, **changes):
    values = {
        "name": "small",
        "model": str(model),
        "data": {"train": str(file), "max_length": 64, "stream": stream, **(data or {})},
        "train": {"learning_rate": 1e-3, "batch_size": 8, "precision": "float32", "logging_steps": 1},
        "stages": [{"method": method}],
        "sampling": {"prompts": 0},
    }
    return load_recipe({**values, **changes})


def quiet():
    return Console(file=io.StringIO(), width=200)


# ---- the same training ----


def of_two_methods(model, file, stream):
    return recipe(
        model,
        file,
        stream=stream,
        data={"limit": 44, "eval_limit": 6},
        stages=[],
        objectives={
            "detail": {"scorer": "length", "weight": 0.5, "options": {"cap": 60}, "normalise": "zscore"},
            "short": {"scorer": "length", "weight": -0.5, "options": {"cap": 9}, "clip": [0.2, 0.9]},
        },
        train={
            "learning_rate": 1e-3,
            "batch_size": 8,
            "precision": "float32",
            "logging_steps": 1,
            "eval_steps": 2,
            "keep_best": None,
        },
        runs={
            "dpo": [{"method": "sft"}, {"method": "dpo"}],
            "upo": [{"method": "upo", "options": {"base": "dpo"}}],
        },
    )


@pytest.fixture(scope="module")
def both(small_model, file, tmp_path_factory):
    """The same runs on rows in memory and on streamed rows, and what the streamed one printed."""
    folder = tmp_path_factory.mktemp("runs")
    console = quiet()
    for stream in (False, True):
        made = of_two_methods(small_model, file, stream)
        align(made, output=folder / str(stream), console=console if stream else quiet())
    return folder, console.file.getvalue()


def curve(folder):
    names = ("loss", "eval_loss", "grad_norm")
    return [tuple(row.get(name, math.nan) for name in names) for row in read_jsonl(folder / "metrics.jsonl")]


@pytest.mark.parametrize("stage", ["dpo/sft", "dpo/dpo", "upo/upo"])
def test_streamed_rows_train_exactly_as_rows_in_memory(both, stage):
    folder, _ = both
    one, other = (curve(folder / name / stage) for name in ("False", "True"))
    assert len(one) > 5
    if stage == "dpo/sft":
        assert repr(one) == repr(other)
    for a, b in zip(one, other, strict=True):  # references are scored in other batches, which moves their last bit
        assert b == pytest.approx(a, rel=1e-5, abs=1e-6, nan_ok=True)


def test_two_processes_on_streamed_rows_align_as_one(both, small_model, file, tmp_path):
    path = tmp_path / "recipe.yaml"
    values = of_two_methods(small_model, file, True).resolved()
    path.write_text(yaml.safe_dump({**values, "runs": {"upo": values["runs"]["upo"]}}))
    done = subprocess.run(
        [sys.executable, TWO_RANKS, "unipref.cli", "align", str(path), "--output", str(tmp_path / "runs" / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        [row["loss"] for row in read_jsonl(run / "upo" / "upo" / "metrics.jsonl") if "loss" in row]
        for run in (both[0] / "True", tmp_path / "runs" / "two")
    )
    assert two == pytest.approx(one, rel=1e-4)
    (column,) = ColumnStore(tmp_path / "runs" / ".scores").stats()["columns"][:1]
    assert column["done"] == column["rows"] > 30


def test_a_streamed_run_says_what_it_kept_and_what_it_sampled(both):
    folder, printed = both
    data, plain = (json.loads((folder / name / "data.json").read_text()) for name in ("True", "False"))
    assert data["split"] == plain["split"]
    assert data["train"] == plain["train"]
    assert data["stream"]["heldout"]["kept"] == 6 < data["stream"]["heldout"]["of"]
    assert data["designer"]["train"]["sample_of"] == data["split"]["train"]
    assert data["designer"]["train"]["parts"] == plain["designer"]["train"]["parts"]  # the sample is all of them here
    assert f"{data['split']['train']} records to train on, streamed; 6 held out" in printed
    assert "held-out records 6 are kept, chosen by a hash of their texts" in printed
    doctor = json.loads((folder / "True" / "doctor.json").read_text())
    assert f"a sample, {data['stream']['sample']} of {data['split']['train']}" in doctor["subject"]
    done = json.loads((folder / "True" / "dpo" / "sft" / "done.json").read_text())
    assert list(done["data"]) == ["validation", "chosen_only", "encoding"]
    assert done["data"]["chosen_only"]["changed"] == {"only preferred responses kept": data["split"]["train"]}


def test_the_smallest_of_a_stream_are_those_that_a_limit_chooses_of_all():
    records = read_records(rows(300))[0]
    records += [replace(record, id=f"again {record.id}") for record in records[::5]]  # equal texts: ids decide
    kept = Smallest(40)
    kept.n, grown = 40, []
    for record in records:
        kept.add(record)
        grown.append(len(kept._kept))
    assert [record.id for record in kept.chosen()] == [record.id for record in limit_records(records, 40)[0]]
    assert max(grown) <= 2 * 40 + 1025


def test_records_are_kept_and_read_back_as_they_were(tmp_path):
    record = Record(
        "ä \ud800",
        (
            Item((Message("user", "a\u2028b"),), (Message("assistant", "c"),), columns={"x": 1.5}, spans=(Span(0, 1),)),
            Item("x", "y", label=True, rank=2, response_ids=(1, 2), role="gold", score_context=True),
        ),
        (Comparison(0, 1, preference=0.3, margin=2.0, annotator="me"),),
        weight=2.0,
        domain="d",
        user="u",
        source="s",
        line=3,
        conversation="c",
    )
    split = streamed.Split(
        [record], [], [record, record], 7, np.array([1, 4]), read_records(rows(3))[1], {"a": 1}, {"k": 1}
    )
    streamed._keep_split(tmp_path / "split", split)
    found = streamed._kept_split(tmp_path / "split", {"k": 1})
    assert repr(found.heldout) == repr([record])  # not a number is not equal to itself
    assert len(found.sample) == 2
    assert found.chosen.tolist() == [1, 4]
    assert found.report == split.report
    assert streamed._kept_split(tmp_path / "split", {"k": 2}) is None
    assert streamed._kept_split(tmp_path / "none", {"k": 1}) is None


def test_conversations_of_an_evaluation_file_are_not_trained_on_in_a_stream_either(small_model, file, tmp_path):
    evaluation = tmp_path / "eval.jsonl"
    evaluation.write_text("".join(json.dumps(row) + "\n" for row in [*rows(60)[:9], *rows(4, seed=5)]))
    found = []
    for stream in (False, True):
        data = read_data(
            recipe(small_model, file, stream=stream, data={"eval": str(evaluation)}),
            None,
            None,
            folder=tmp_path / "run",
        )
        found.append(data)
    assert [record.id for record in found[0].heldout] == [record.id for record in found[1].heldout]
    assert sorted(record.id for record in found[0].train) == sorted(record.id for record in found[1].train)
    assert found[0].report["overlap_with_eval"] == found[1].report["overlap_with_eval"] == 9
    assert found[1].n_train == len(found[0].train)


# ---- found again ----


@pytest.fixture
def scored(monkeypatch):
    """How many tries references scored."""
    calls = []

    def counted(policy, tries, **options):
        calls.append(len(tries))
        return score(policy, tries, **options)

    monkeypatch.setattr(references, "score_shared", counted)
    return calls


def examples(made, output):
    """The training examples of `made` with their references, as its first stage has them."""
    store = ScoreStore(output.parent / ".scores")
    data = read_data(made, store, None, folder=output)
    (stage,) = made.run_plan()["dpo"] if "dpo" in made.run_plan() else next(iter(made.run_plan().values()))
    train = data.stream or prepare(stage, data.train)[0]
    ready = set_up(made, stage, start=made.model, folder=output, seed=0, train=train, validation=[], bench=Workbench())
    fill(made, ready, ready.examples, start=made.model, store=store)
    return ready


@pytest.mark.parametrize("stream", [False, True], ids=["in memory", "streamed"])
def test_references_survive_beta_rate_loss_and_folder_and_nothing_else(small_model, tmp_path, scored, stream):
    """Two faults of a cache keyed by all arguments but not by truncation: a miss when only beta, the learning rate or
    the output folder change, and an old value where the tokens or the scored span changed."""

    file = tmp_path / "conversations.jsonl"
    turns = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    file.write_text(
        "".join(
            json.dumps({key: [{"role": turns[key], "content": text}] for key, text in row.items()}) + "\n"
            for row in rows(60)
        )
    )

    def run(output="one", model=small_model, method="dpo", options=None, train=None, **data):
        made = recipe(
            model,
            file,
            stream=stream,
            data=data,
            stages=[{"method": method, "options": options or {}}],
            train={"learning_rate": 1e-3, "batch_size": 8, "precision": "float32", **(train or {})},
        )
        scored.clear()
        ready = examples(made, tmp_path / output)
        return sum(scored), ready

    n, ready = run()
    assert n == len(ready.examples) > 40
    for same in (
        {"options": {"beta": 0.5}, "output": "two"},
        {"method": "ipo", "train": {"learning_rate": 0.1, "epochs": 3.0}},
    ):
        assert run(**same)[0] == 0, same
    cut, ready = run(max_length=16)
    assert cut > 0
    assert run(max_length=16)[0] == 0
    fresh = [replace(ready.examples[i], ref_logp={}) for i in range(len(ready.examples))]
    cache_references(fresh, ready.policy)
    for i, example in enumerate(fresh):  # what is served under the other length is what the model says of it
        for a, b in zip(example.ref_logp["ref_logp"], ready.examples[i].ref_logp["ref_logp"], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)
    assert run(train={"precision": "bfloat16"})[0] > 0
    other = tmp_path / "another"
    ready.policy.model.get_input_embeddings().weight.data[5] += 1.0
    ready.policy.model.save_pretrained(other)
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    tokenizer.save_pretrained(other)
    assert run(model=other)[0] == n
    tokenizer.chat_template = "Hello.\n" + tokenizer.chat_template
    tokenizer.save_pretrained(other)
    assert run(model=other)[0] == n


def test_streamed_rows_are_tokenised_once_and_anew_where_texts_or_their_form_change(
    small_model, file, tmp_path, monkeypatch
):
    encoded = []
    tokenise = streamed.prepare
    monkeypatch.setattr(
        streamed, "prepare", lambda chunks, *given, **options: tokenise(_told(chunks, encoded), *given, **options)
    )

    def run(**changes):
        encoded.clear()
        return examples(recipe(small_model, file, **changes), tmp_path / "run"), sum(encoded)

    ready, n = run()
    assert n == len(ready.examples)
    assert run(method="ipo")[1] == 0
    assert run(stages=[{"method": "dpo", "options": {"beta": 0.7}}])[1] == 0
    assert run(data={"max_length": 16})[1] == n
    assert run(stages=[{"method": "dpo", "operators": ["joint"]}])[1] == n
    assert run(objectives={"detail": {"scorer": "length"}})[1] == n
    with file.open("a") as handle:
        handle.write(json.dumps(rows(1, seed=9)[0] | {"prompt": "one more"}) + "\n")
    assert run()[1] >= n


def _told(chunks, counts):
    for records, report in chunks:
        counts.append(len(records))
        yield records, report


# ---- refused ----


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"stages": [{"method": "dpo", "operators": ["degrade"]}]},
            "dpo: the operator degrade.* looks at all rows together",
        ),
        ({"stages": [{"method": "bt"}]}, "bt: a reward model keeps the texts"),
        ({"stages": [{"method": "sparse_po"}]}, "stage"),
    ],
)
def test_what_takes_all_rows_at_once_is_refused_before_a_row_is_read(small_model, file, tmp_path, changes, words):
    if words == "stage":
        changes, words = (
            {"stages": [{"method": "rpo_relative"}]},
            r"rpo_relative: it reads a vector per prompt \(`embedding`\)",
        )
    with pytest.raises(ConfigError, match=words) as refused:
        read_data(recipe(small_model, file, **changes), None, None, folder=tmp_path / "run")
    assert "data.stream: false" in str(refused.value)
    assert not (tmp_path / ".prepared").exists()


def test_a_comparison_holds_all_rows_and_says_so(small_model, file, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.stream=false and a data\.limit"):
        compare(recipe(small_model, file), ["dpo", "ipo"], output=tmp_path / "compare")


def test_labelled_rows_are_not_made_pairs_of_a_stream(small_model, tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}) + "\n"
            for row in rows(30)
            for side in ("chosen", "rejected")
        )
    )
    with pytest.raises(ConfigError, match="one response with a label: such rows are joined by their prompts"):
        examples(recipe(small_model, path), tmp_path / "run")
    ready = examples(recipe(small_model, path, method="kto"), tmp_path / "run")
    assert len(ready.examples) > 40
    assert ready.examples[3].mismatched.ref_logp["ref_logp"][0].shape == (
        len(ready.examples[3].mismatched.trie.scored[0]),
    )


# ---- operators ----


def test_an_operator_that_says_row_by_row_gives_the_same_of_parts_as_of_the_whole():
    records, _ = read_records("bundled:hh-harmless", limit=30)
    records = [
        replace(
            record,
            domain="d",
            items=tuple(
                replace(item, columns={"reward": 0.1 * i + k, "score": float(k), "x": 0.3})
                for k, item in enumerate(record.items)
            ),
        )
        for i, record in enumerate(records)
    ]
    found = []
    for card in list_methods(kind="operator"):
        try:
            operator = card.build()
        except (TypeError, ConfigError, ValueError):  # has an option without a default
            continue
        if getattr(operator, "row_by_row", False):
            try:
                whole = operator(records)[0]
            except DataError:  # it changes rows of another kind
                continue
            parts = [one for start in range(0, 30, 7) for one in operator(records[start : start + 7])[0]]
            assert repr(parts) == repr(whole), card.key  # not a number is not equal to itself
            found.append(card.key)
    assert len(found) > 5
