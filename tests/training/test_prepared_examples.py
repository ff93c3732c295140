"""Facts about examples that are made when asked for: the same training, with no pass over the whole."""

import pickle

import numpy as np
import pytest
from tiny_runs import examples_for, pair_examples, tiny_policy

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Record, Span
from unipref.core.tries import build_trie
from unipref.data import TOKEN_COLUMNS, DataReport, encode_records, token_columns
from unipref.data.prepared import prepare
from unipref.engine import load_tokenizer, score
from unipref.objectives import as_objective, dpo, kto, orpo, simpo
from unipref.store import ColumnStore, ScoreStore
from unipref.training import Example, PreferenceTrainer, cache_references, references
from unipref.training.prepared import Known, Mismatched, PreparedExamples, known_of


class Rows:
    """Examples behind the interface of prepared data; it counts what is asked for."""

    def __init__(self, examples, digest="tokens"):
        self.examples, self.digest, self.asked = examples, digest, []
        self.sizes = np.array([e.trie.n_nodes for e in examples])
        self.costs = np.array([int((e.trie.depth + 1).sum()) for e in examples])
        self.prompt = np.array([hash(tuple(self.context(e))) for e in examples])
        self.n_scored = np.array([sum(map(len, e.trie.scored)) for e in examples])

    @staticmethod
    def context(example):
        return example.trie.token[example.trie.path(0)[: -len(example.trie.scored[0])]].tolist()

    def __len__(self):
        return len(self.examples)

    def trie(self, i):
        self.asked.append(i)
        return self.examples[i].trie

    def facts(self, i):
        return self.examples[i].record

    def tokens(self, i, name):
        return np.concatenate(self.examples[i].tokens[name])


@pytest.fixture
def scored(monkeypatch):
    """How many tries every call of a model scored."""
    calls = []

    def counted(policy, tries, **options):
        calls.append(len(tries))
        return score(policy, tries, **options)

    monkeypatch.setattr(references, "score_shared", counted)
    return calls


def assert_same(one, other):
    for name in ("token", "parent", "depth", "end", "context", "last"):
        np.testing.assert_array_equal(getattr(one.trie, name), getattr(other.trie, name))
    for a, b in zip(one.trie.scored, other.trie.scored, strict=True):
        np.testing.assert_array_equal(a, b)
    for columns, others in ((one.ref_logp, other.ref_logp), (one.tokens, other.tokens)):
        assert columns.keys() == others.keys()
        for name in columns:
            for a, b in zip(columns[name], others[name], strict=True):
                np.testing.assert_array_equal(a, b)


# ---- the examples ----


def test_an_example_of_prepared_files_is_that_of_the_records_without_their_texts(tmp_path):
    rows = [
        Record(
            f"r{i}",
            (
                Item("Say hello. " * (1 + i), " Hello there.", columns={"reward": 0.5 + i}, spans=(Span(0, 6, 0.1),)),
                Item("Say hello. " * (1 + i), " Go. Away.", columns={"reward": -1.0}, spans=(Span(0, 4, 0.2),)),
            ),
            (Comparison(0, 1, margin=0.25 * i),),
            weight=1.0 + i,
        )
        for i in range(5)
    ]
    tokenizer = load_tokenizer("bundled")
    data = prepare(
        [(rows, DataReport(n_read=5, n_kept=5))],
        tokenizer,
        tmp_path / "rows",
        key={"rows": 1},
        max_length=32,
        tokens=TOKEN_COLUMNS,
        workers=1,
    )
    examples = PreparedExamples(data, tokens=sorted(TOKEN_COLUMNS))
    encoded, _ = encode_records(rows, tokenizer, max_length=32)
    assert len(examples) == 5
    for example, one in zip(examples, encoded, strict=True):
        made = token_columns(one, tokenizer, sorted(TOKEN_COLUMNS))
        assert_same(example, Example(one.record, one.trie, tokens=made))
        assert example.record.comparisons == one.record.comparisons
        assert [item.columns for item in example.record.items] == [item.columns for item in one.record.items]
        assert example.record.weight == one.record.weight
        assert {item.response for item in example.record.items} == {""}
    assert examples.known == known_of([examples[i] for i in range(5)])
    again = pickle.loads(pickle.dumps(examples))
    assert_same(again[-1], examples[4])
    with pytest.raises(IndexError, match="there are 5 examples, and no number 5"):
        examples[5]


def test_what_many_records_have_is_joined_from_what_parts_of_them_have():
    one = Record("a", (Item("x", "y", rank=1, columns={"reward": 1.0}), Item("x", "z", role="gold")))
    two = Record("b", (Item("x", "y", columns={"degree": 2.0}), Item("x", "z")), (Comparison(0, 1),))
    both = Known.of_records([one, two])
    assert both == Known.of_records([one]).joined(Known.of_records([two]))
    assert both.columns == {"rank", "reward", "degree"}
    assert both.roles == {"response", "gold"}
    assert both.compares
    assert both.lists  # of the second; the first has one response and a further text
    assert not Known.of_records([one]).lists
    assert both.degrees == 2
    assert Known.from_dict(both.to_dict()) == both


# ---- training on them ----


@pytest.mark.parametrize(
    "objective", [dpo(beta=0.1), simpo(), orpo(), kto(beta=0.1)], ids=["dpo", "simpo", "orpo", "kto"]
)
def test_training_on_prepared_rows_follows_the_run_on_a_list(objective, arguments, tmp_path):
    rows = pair_examples(11)
    store = ScoreStore(tmp_path / "store")
    facts = Known.of_records(e.record for e in rows)
    others = PreparedExamples(Rows([e.mismatched for e in rows], "others"), Known(roles=frozenset({"response"})))
    lazy = PreparedExamples(Rows(rows), facts, mismatched=others)
    listed = pair_examples(11)
    cache_references(listed, tiny_policy(2))
    cache_references(lazy, tiny_policy(2), store=store)
    curves = []
    for train in (listed, lazy):
        policy = tiny_policy(1, heads=as_objective(objective).heads)
        trainer = PreferenceTrainer(policy, objective, arguments(folder=f"out{len(curves)}"), train, max_tokens=40)
        trainer.train()
        curves.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert len(curves[0]) == 4
    assert curves[0] == curves[1]


def test_a_trainer_asks_prepared_rows_for_those_of_the_step_alone(arguments, tmp_path):
    rows = Rows(examples_for(dpo(), 200))
    lazy = PreparedExamples(rows, Known.of_records(e.record for e in rows.examples))
    cache_references(lazy, tiny_policy(2), store=ScoreStore(tmp_path / "store"))
    rows.asked.clear()
    trainer = PreferenceTrainer(tiny_policy(1), dpo(), arguments(batch=4, max_steps=2), lazy, by_length=True)
    assert rows.asked == []
    trainer.train()
    assert len(rows.asked) == len(set(rows.asked)) == 8


def test_what_an_objective_needs_of_prepared_rows_and_does_not_get_is_named(arguments):
    lazy = PreparedExamples(Rows(pair_examples(4)))
    with pytest.raises(ConfigError, match="needs the reference columns ref_logp; cache them"):
        PreferenceTrainer(tiny_policy(1), dpo(), arguments(), lazy)
    with pytest.raises(ConfigError, match="no record to train on"):
        PreferenceTrainer(tiny_policy(1), simpo(), arguments(), PreparedExamples(Rows([])))
    with pytest.raises(ConfigError, match="give cache_references a score store"):
        cache_references(lazy, tiny_policy(2))


# ---- references of prepared rows ----


def test_references_of_prepared_rows_are_those_of_the_list_and_are_computed_once(tmp_path, scored):
    listed, rows = pair_examples(30), pair_examples(30)
    for example in rows:
        example.mismatched = None
    cache_references(listed, tiny_policy(2))
    scored.clear()
    store = ScoreStore(tmp_path)
    for _ in range(2):
        lazy = PreparedExamples(Rows(rows))
        told = cache_references(lazy, tiny_policy(2), store=store, max_tokens=16384)
    assert told == {"stored": 30, "computed": 0}
    assert sum(scored) == 30
    for example, other in zip(lazy, listed, strict=True):
        for a, b in zip(example.ref_logp["ref_logp"], other.ref_logp["ref_logp"], strict=True):
            np.testing.assert_allclose(
                a, b, rtol=0, atol=1e-6
            )  # float64 weights; what a batch holds moves the last bit
    cache_references(lazy, tiny_policy(2), store=store, name="ref_logp.b")
    cache_references(lazy, tiny_policy(3), store=store, name="ref_logp.c")
    assert sum(scored) == 60  # another name is the same column, another model another
    lazy.mix_references("ref_logp", {"ref_logp.b": 0.25, "ref_logp.c": 0.75})
    one, two = (score(tiny_policy(k), [rows[7].trie])[0] for k in (2, 3))
    assert set(lazy[7].ref_logp) == {"ref_logp"}
    np.testing.assert_allclose(lazy[7].ref_logp["ref_logp"][1], 0.25 * one[1] + 0.75 * two[1], rtol=1e-5)


def test_a_killed_scoring_goes_on_with_the_rows_that_are_missing_and_a_damaged_block_is_scored_again(
    tmp_path, scored, monkeypatch
):
    monkeypatch.setattr("unipref.store._columns.BLOCK", 8)
    rows, store = pair_examples(30), ScoreStore(tmp_path)
    for example in rows:
        example.mismatched = None

    class Killed(Exception):
        pass

    def after_two(done, total):
        assert total == 30
        if done >= 10:
            raise Killed

    with pytest.raises(Killed):
        cache_references(PreparedExamples(Rows(rows)), tiny_policy(2), store=store, put_every=5, show=after_two)
    assert sum(scored) == 10
    lazy = PreparedExamples(Rows(rows))
    assert cache_references(lazy, tiny_policy(2), store=store, put_every=5) == {"stored": 10, "computed": 20}
    whole = [np.concatenate(example.ref_logp["ref_logp"]).tolist() for example in lazy]
    (path,) = tmp_path.glob("column-*.f32")
    with open(path, "r+b") as file:
        file.write(b"\x7f\x7f\x7f\x7f")
    lazy = PreparedExamples(Rows(rows))
    assert cache_references(lazy, tiny_policy(2), store=store) == {"stored": 22, "computed": 8}
    for example, values in zip(lazy, whole, strict=True):
        np.testing.assert_allclose(np.concatenate(example.ref_logp["ref_logp"]), values, rtol=0, atol=1e-6)


def test_other_tokens_and_another_precision_are_computed_and_never_served(tmp_path, scored):
    rows, store = pair_examples(6), ScoreStore(tmp_path)
    for example in rows:
        example.mismatched = None
    for options in ({}, {"precision": "bfloat16"}):
        cache_references(PreparedExamples(Rows(rows)), tiny_policy(2), store=store, **options)
    cache_references(PreparedExamples(Rows(rows, "cut at 64")), tiny_policy(2), store=store)
    assert sum(scored) == 18
    assert len(ColumnStore(tmp_path).stats()["columns"]) == 3


# ---- responses of others ----


def triples(prompts, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for i, prompt in enumerate(prompts):
        context = [1, *range(3, 4 + prompt)]
        response = [40, *rng.integers(41, 60, 1 + i % 4).tolist(), 3 + i % 30]
        record = Record(f"r{i}", (Item("context", f"{i}", label=bool(i % 2)),), weight=1.0 + i % 3)
        found.append(Example(record, build_trie([(context, response)])))
    return found


def ids(trie, item=0):
    path = trie.token[trie.path(item)].tolist()
    cut = len(path) - len(trie.scored[item])
    return path[:cut], path[cut:]


def test_mismatched_rows_use_every_response_once_behind_another_prompt():
    examples = triples([i % 7 for i in range(60)])
    rows = Rows(examples)
    others = Mismatched(rows, seed=3)
    assert sorted(others.donor.tolist()) == list(range(60))
    for i in range(60):
        context, response = ids(others.trie(i))
        donor = ids(examples[others.donor[i]].trie)
        assert context == ids(examples[i].trie)[0] != donor[0]
        assert response == donor[1]
        assert others.n_scored[i] == len(response)
        facts = others.facts(i)
        assert (facts.weight, facts.items[0].label, facts.comparisons) == (examples[i].record.weight, None, ())
    assert Mismatched(rows, seed=3).donor.tolist() == others.donor.tolist()
    assert Mismatched(rows, seed=4).donor.tolist() != others.donor.tolist()
    assert Mismatched(rows, seed=4).digest != others.digest


def test_a_prompt_of_more_than_half_of_the_rows_still_gets_strangers():
    rows = Rows(triples([0] * 40 + [1, 2, 3]))
    donor = Mismatched(rows, seed=0).donor
    assert (rows.prompt[donor] != rows.prompt).all()
    with pytest.raises(DataError, match="two different prompts or more"):
        Mismatched(Rows(triples([0] * 5)), seed=0)


def test_the_context_of_a_mismatched_row_is_cut_at_its_start_and_keeps_its_bos():
    rows = Rows(triples([20, 9, 8]))
    for bos, start in ((1, [1]), (2, [])):
        others = Mismatched(rows, seed=0, max_length=12, bos=bos)
        for i in range(3):
            context, response = ids(others.trie(i))
            whole = ids(rows.examples[i].trie)[0]
            n = min(12 - len(response), len(whole))
            assert len(context) == n
            assert context == (whole if n == len(whole) else [*start, *whole[len(whole) - n + len(start) :]])
