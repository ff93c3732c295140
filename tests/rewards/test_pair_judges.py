"""Language models that are asked about pairs: by a letter in both orders, and behind a user's earlier choices."""

import io
import json
import random

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import unipref.recipes.catalogue  # noqa: F401 (registers the cards)
from unipref.core.cards import get_method
from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Message
from unipref.data import catalogue as ops
from unipref.data import read_records
from unipref.data.few_shots import few_shot_words
from unipref.data.pair_questions import PairQuestion
from unipref.data.pairs import Pairs
from unipref.objectives import as_objective
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.stage import prepare, run_stage
from unipref.rewards.pair_judge import FewShotJudge, PairJudge

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
OTHER = {"red": "blue", "blue": "red"}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A random GPT-2 of two blocks whose vocabulary has every word that is asked here."""
    question = PairQuestion().text("paint", "red", "blue", "red")
    words = [*question.split(), *few_shot_words([("c", "paint", "red", "blue")]).split(), "A", "B", "blue", *NUMBERS]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[BOS]", "[EOS]", *words]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]"}
    folder = tmp_path_factory.mktemp("start")
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def rows(n, seed, want=None):
    """Pairs of two colours; `want(k)` is the preferred one of pair k, by default drawn and named as its domain."""
    draw, found = random.Random(seed), []
    for k in range(n):
        better = draw.choice(["red", "blue"]) if want is None else want(k)
        prompt = " ".join(["paint", *(draw.choice(NUMBERS) for _ in range(4))])
        found.append({"prompt": prompt, "chosen": f" {better}", "rejected": f" {OTHER[better]}", "domain": better})
    return found


def of_users(n, each, seed, first=0):
    """`each` pairs of `n` users, of whom every second prefers red."""
    found = rows(n * each, seed, want=lambda k: ("red", "blue")[k // each % 2])
    return [{**row, "user": f"u{first + k // each}"} for k, row in enumerate(found)]


def read(found):
    return read_records([{"id": f"r{k}", **row} for k, row in enumerate(found)])[0]


def recipe(model, path, found, stage, **train):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    how = {"learning_rate": 2e-3, "batch_size": 16, "schedule": "constant", "warmup_share": 0.0, "precision": "float32"}
    return load_recipe(
        {
            "name": "judge",
            "model": model,
            "data": {"train": str(path), "eval_share": 0.3, "max_length": 128},
            "train": how | train,
            "stages": [stage],
        }
    )


# ---- the question ----


def test_both_orders_are_asked_with_the_letter_that_the_better_response_has_there():
    (record,) = read([{"prompt": "x", "chosen": " good", "rejected": " bad", "preference": 0.75, "margin": 2}])
    (asked,), report = ops.ab_question(criterion="Be kind.")([record])
    texts = [(item.context, item.response) for item in asked.items]
    first, second = texts[0][0], texts[2][0]
    assert first.index(" good") < first.index(" bad")
    assert second.index(" bad") < second.index(" good")
    assert first.endswith("Criterion: Be kind.\nBetter response:")
    assert [response for _, response in texts] == [" A", " B", " A", " B"]
    preferred = [(texts[c.winner], c.preference, c.margin) for c in asked.comparisons]
    assert preferred == [((first, " A"), 0.75, 2.0), ((second, " B"), 0.75, 2.0)]
    assert asked.weight == record.weight / 2  # two questions, one row
    assert (report.n_read, report.n_kept) == (1, 1)


def test_one_drawn_order_is_each_about_half_the_time_and_keeps_the_weight():
    asked, _ = ops.ab_question(orders="drawn")(read(rows(200, 0)))
    letters = [record.items[record.comparisons[0].winner].response for record in asked]
    assert 70 <= letters.count(" A") <= 130  # 200 fair coins: outside once in 40,000 times
    assert all(record.weight == 1 and len(record.items) == 2 for record in asked)


def test_a_conversation_is_asked_in_turns_and_a_row_without_its_criterion_is_set_aside():
    turn = lambda role, text: [{"role": role, "content": text}]  # noqa: E731 (three of them)
    row = {"prompt": turn("user", "x"), "chosen": turn("assistant", "a"), "rejected": turn("assistant", "b")}
    records = read([{**row, "domain": "kids"}, row])
    (asked,), report = ops.ab_question(by="domain", criteria={"kids": "Short words."})(records)
    assert asked.items[0].response == (Message("assistant", "A"),)
    assert "Criterion: Short words." in asked.items[0].context[0].content
    assert sum(report.counts.values()) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"by": "topic"}, "no fact 'topic'"),
        ({"criteria": {"a": "b"}}, "say which: by: domain"),
        ({"by": "user", "criterion": "x"}, "give one of the two"),
        ({"orders": "bth"}, "did you mean 'both'"),
    ],
)
def test_a_question_that_cannot_be_put_is_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        ops.ab_question(**options)


def test_the_loss_is_a_softmax_over_the_two_letters_alone():
    loss = as_objective(get_method("pair_token", "recipe").build().objective)
    # logp(A) = -1, logp(B) = -3: of the two, A has 1 / (1 + e^-2), whatever all other tokens have
    found = loss(logp_chosen=torch.tensor([-1.0]), logp_rejected=torch.tensor([-3.0])).item()
    assert found == pytest.approx(np.log1p(np.exp(-2)))


# ---- the judge ----


def judge_after(start, folder, by):
    made = recipe(start, folder / "rows.jsonl", rows(400, 1), {"method": "pair_token", "options": {"by": by}}, epochs=4)
    align(made, output=folder / "run", console=Console(file=io.StringIO()))
    summary = json.loads((folder / "run" / "summary.json").read_text())
    return PairJudge(str(folder / "run" / "pair_token" / "pair_token" / "model")), summary


@pytest.fixture(scope="module")
def judge(start, tmp_path_factory):
    return judge_after(start, tmp_path_factory.mktemp("judge"), "domain")


def test_a_judge_that_reads_the_criterion_learns_what_only_the_criterion_says(judge):
    """Colours are drawn; the row's criterion names the better one (card: at least 0.9 with it)."""
    asked, summary = judge
    assert summary["runs"]["pair_token"]["accuracy"][0] >= 0.9  # of held-out pairs, asked as trained
    assert asked.score(Pairs.of(read(rows(100, 9)))) >= 0.9


def test_without_the_criterion_it_stays_at_chance(start, tmp_path):
    _, summary = judge_after(start, tmp_path, None)
    assert summary["runs"]["pair_token"]["accuracy"][0] <= 0.6  # the card's figure


def test_exchanging_the_responses_negates_every_verdict_to_the_bit(judge, start):
    pairs = Pairs.of(read(rows(30, 4)))
    turned = pairs.swapped(np.ones(30, dtype=bool))
    for asked in (judge[0], PairJudge(start)):
        assert np.array_equal(asked.decision_function(turned), -asked.decision_function(pairs))
        assert (asked.predict_proba(pairs) + asked.predict_proba(turned)).max() == pytest.approx(1, abs=1e-12)


def test_a_judge_that_only_likes_the_first_place_is_even_once_both_orders_are_averaged(start, monkeypatch):
    asked = PairJudge(start)
    monkeypatch.setattr(PairJudge, "by_order", lambda self, pairs: np.stack([np.full(4, 3.0), np.full(4, -3.0)]))
    pairs = Pairs.of(read(rows(4, 4)))
    assert asked.decision_function(pairs).tolist() == [0.0] * 4
    bias = asked.swap_bias(pairs)
    assert bias["first"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert bias["consistent"] == 0.0


def test_a_pair_that_does_not_fit_the_model_has_no_verdict(start):
    long = {"prompt": " ".join(NUMBERS * 20), "chosen": " red", "rejected": " blue"}
    found = PairJudge(start).decision_function(Pairs.of(read([long, *rows(2, 1)])))
    assert np.isnan(found).tolist() == [True, False, False]


def test_a_criterion_that_the_judge_was_not_told_is_an_error_that_names_the_row(judge):
    asked = PairJudge(judge[0].model, PairQuestion(by="domain", criteria={"red": "red"}))
    with pytest.raises(DataError, match=r"criterion by domain, and the pair's is 'blue'; add it"):
        asked.decision_function(Pairs.of(read(rows(6, 2))))


# ---- earlier choices before the question ----


def test_examples_are_the_users_own_and_never_of_the_conversation_that_is_asked():
    records = read(of_users(3, 5, 0))
    found, _ = ops.few_shot(shots=3)(records)
    for record, asked in zip(records, found, strict=True):
        words = asked.items[0].context
        own = [r for r in records if r.user == record.user and r.conversation != record.conversation]
        assert words.count("Preferred:") == 3
        assert sum(f"Question: {r.items[0].context}\n" in words for r in own) == 3
        assert f"Question: {record.items[0].context}\n" not in words
        assert words.endswith(record.items[0].context)
        better = record.items[0].response
        assert words.count(f"\nPreferred: {better}") == 3  # an example's preferred side is not the other one


def test_no_shots_change_nothing_and_the_seed_changes_the_order():
    records = read(of_users(2, 6, 0))
    assert ops.few_shot(shots=0)(records)[0] == records
    texts = {tuple(r.items[0].context for r in ops.few_shot(shots=3, seed=seed)(records)[0]) for seed in (0, 0, 1)}
    assert len(texts) == 2


def test_users_with_too_few_pairs_are_left_out_or_taken_with_what_they_have():
    records = read([*of_users(1, 4, 0), *of_users(1, 2, 1, first=7)])
    kept, report = ops.few_shot(shots=3)(records)
    assert {record.user for record in kept} == {"u0"}
    assert report.left_out == {"the user has fewer than 3 other pairs": 2}
    assert len(ops.few_shot(shots=3, fewer="take")(records)[0]) == 6
    with pytest.raises(DataError, match="no row names its user; give the column `user`"):
        ops.few_shot()(read([{"prompt": "x", "chosen": "a", "rejected": "b"}]))


def test_fspos_margin_rests_at_fifty_nats_at_the_papers_tau_and_without_shots_it_is_ipo():
    composition = get_method("fspo", "recipe").build(shots=0)
    assert composition.objective == get_method("ipo", "objective").build(tau=0.01)
    at = {"logp_rejected": 0.0, "ref_logp_chosen": 0.0, "ref_logp_rejected": 0.0}
    logp = torch.tensor([50.0], requires_grad=True)
    loss = as_objective(composition.objective)(logp_chosen=logp, **{k: torch.tensor([v]) for k, v in at.items()})
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert logp.grad.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("shots", "least", "most"), [(4, 0.95, 1.0), (0, 0.3, 0.7)])
def test_a_newcomers_taste_is_learned_from_four_choices_in_the_prompt(start, tmp_path, shots, least, most):
    """Two kinds of users, opposed (card: at least 95 % of signs with four labels, chance without)."""
    stage = {"method": "fspo", "options": {"tau": 0.1, "shots": shots}}
    made = recipe(start, tmp_path / "rows.jsonl", of_users(24, 6, 1), stage, max_steps=45)
    where = {"start": start, "folder": tmp_path / "stage", "seed": 0, "store": None, "resume": False}
    records, _ = read_records(made.data.train)
    model = run_stage(made, made.stages[0], train=records, validation=[], show=lambda *told: None, **where)
    before = FewShotJudge(str(model), start, tau=0.1, shots=shots)
    known, asked = Pairs.of(read(of_users(20, 4, 5, 100))), Pairs.of(read(of_users(20, 3, 6, 100)))
    judge = before.adapt(known)
    assert least <= judge.score(asked) <= most
    assert before.score(asked) == pytest.approx(0.5, abs=0.2)  # nobody's choices are known yet
    turned = judge.decision_function(asked.swapped(np.ones(len(asked), dtype=bool)))
    np.testing.assert_allclose(turned, -judge.decision_function(asked), atol=1e-5)
    if shots:
        lead = np.abs(judge.decision_function(asked)).mean()
        assert lead == pytest.approx(0.5, abs=0.15)  # tau * 1 / (2 tau)
        assert judge.variation(asked, orders=3)["flips"] <= 0.05
        prepared, _ = prepare(made.stages[0], records)
        assert len(prepared) == len(records)
