"""A step's loss and gradient are those of its records, however the step is cut up."""

import numpy as np
import pytest
import torch
from tiny_runs import pair_examples, tiny_policy, with_references
from transformers import TrainingArguments

from unipref.core.errors import ConfigError
from unipref.core.records import Comparison
from unipref.objectives import as_objective, cpo, dpo, ipo, kto, modpo, orpo, sft, simpo, slic, upo
from unipref.training import NonFiniteLossError, PreferenceTrainer, split_by_tokens

OBJECTIVES = {
    "sft": sft(),
    "dpo": dpo(beta=0.1),
    "ipo": ipo(),
    "simpo": simpo(),
    "cpo": cpo(),
    "slic": slic(),
    "orpo": orpo(),
    "kto": kto(beta=0.1),
    "upo_dpo": upo(base="dpo", warmup=0.0),
    "upo_kto": upo(base="kto", warmup=0.0, tau=0.7),
}
OBJECTIVES = {name: as_objective(objective) for name, objective in OBJECTIVES.items()}


def step_of(objective, arguments, *, max_tokens, examples, batch=8):
    """Loss and gradients of one step over all of `examples`."""
    policy = tiny_policy(1, heads=OBJECTIVES[objective].heads)
    with_references(examples, tiny_policy(2))
    trainer = PreferenceTrainer(policy, OBJECTIVES[objective], arguments(batch), examples, max_tokens=max_tokens)
    trainer.create_optimizer()
    trainer.model_wrapped = policy
    loss = trainer.training_step(policy, {"examples": examples})
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return loss.item(), gradients, trainer


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_does_not_depend_on_how_many_forwards_it_takes(objective, arguments):
    examples = pair_examples(8)
    whole, whole_gradients, _ = step_of(objective, arguments, max_tokens=10_000, examples=examples)
    cut, cut_gradients, _ = step_of(objective, arguments, max_tokens=40, examples=examples)
    assert len(split_by_tokens(examples, 40)) >= 4
    assert cut == pytest.approx(whole, rel=1e-6)  # columns of the data are float32
    assert whole_gradients.keys() == cut_gradients.keys()
    for name, gradient in whole_gradients.items():
        assert torch.allclose(cut_gradients[name], gradient, rtol=1e-5, atol=1e-7 * gradient.abs().max().item()), name


@pytest.mark.parametrize("objective", ["dpo", "kto", "upo_dpo", "orpo"])
def test_weight_two_equals_the_row_twice(objective, arguments):
    rows = pair_examples(3)
    weighted = pair_examples(3, weights=[2.0, 1.0, 1.0])
    one, gradients, _ = step_of(objective, arguments, max_tokens=10_000, examples=[rows[0], *rows])
    two, other, _ = step_of(objective, arguments, max_tokens=10_000, examples=weighted)
    assert two == pytest.approx(one, rel=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(other[name], gradient, rtol=1e-5, atol=1e-7 * gradient.abs().max().item()), name


@pytest.mark.parametrize("objective", ["dpo", "upo_dpo", "sft"])
def test_a_step_on_padded_rows_equals_the_step_on_tries(objective, arguments):
    examples = pair_examples(5)
    with_references(examples, tiny_policy(2))
    results = []
    for path in ("tries", "rows"):
        policy = tiny_policy(1, heads=OBJECTIVES[objective].heads, path=path)
        trainer = PreferenceTrainer(policy, OBJECTIVES[objective], arguments(5), examples)
        loss = trainer.training_step(policy, {"examples": examples}).item()
        results.append((loss, {name: p.grad for name, p in policy.named_parameters()}))
    (tries, a), (rows, b) = results
    # float64 weights, but transformers' RMSNorm rounds to float32; tests/engine compares with exact norms
    assert tries == pytest.approx(rows, rel=1e-7)
    for name, gradient in a.items():
        assert (gradient - b[name]).norm() <= 1e-6 * gradient.norm(), name


def test_a_live_reference_equals_a_cached_one(arguments):
    examples = pair_examples(4)
    cached, gradients, _ = step_of("dpo", arguments, max_tokens=10_000, examples=examples)
    fresh = pair_examples(4)
    policy = tiny_policy(1)
    trainer = PreferenceTrainer(policy, dpo(beta=0.1), arguments(4), fresh, references={"ref_logp": tiny_policy(2)})
    live = trainer.training_step(policy, {"examples": fresh}).item()
    assert live == pytest.approx(cached, rel=1e-5)
    for name, p in policy.named_parameters():
        assert torch.allclose(p.grad, gradients[name], rtol=1e-4, atol=1e-5 * p.grad.abs().max().item()), name


def test_in_bfloat16_a_live_reference_rounds_as_the_policy_does(tmp_path):
    examples = pair_examples(4)
    policy, twin = (tiny_policy(1, torch.float32) for _ in range(2))
    told = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=1,
        bf16=True,
        use_cpu=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = PreferenceTrainer(policy, dpo(beta=0.1), told, examples, references={"ref_logp": twin})
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-7)  # the two are one model, so nothing tells them apart
    assert first["rewards/ties"] == 1.0


def test_the_first_step_of_dpo_is_log_two_and_ties_are_counted_as_ties(arguments):
    examples = with_references(pair_examples(4), tiny_policy(1))
    trainer = PreferenceTrainer(tiny_policy(1), dpo(), arguments(4), examples, examples)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert metrics["eval_rewards/margins"] == pytest.approx(0.0, abs=1e-5)


def test_metrics_are_the_same_at_any_batch_size_and_weighted_by_example(arguments):
    examples = with_references(pair_examples(7, weights=[1, 2, 3, 1, 1, 1, 1]), tiny_policy(2))
    results = []
    for max_tokens in (10_000, 30):
        trainer = PreferenceTrainer(tiny_policy(1), dpo(), arguments(4), examples, examples, max_tokens=max_tokens)
        results.append(trainer.evaluate())
    assert results[0].keys() == results[1].keys()
    for name in results[0]:
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-6), name
    policy = tiny_policy(1)
    from unipref.engine import score

    logp = score(policy, [e.trie for e in examples])
    margin = np.array(
        [
            0.1 * ((a.sum() - e.ref_logp["ref_logp"][0].sum()) - (b.sum() - e.ref_logp["ref_logp"][1].sum()))
            for e, (a, b) in zip(examples, logp, strict=True)
        ]
    )
    assert results[0]["eval_rewards/margins"] == pytest.approx(
        np.average(margin, weights=[1, 2, 3, 1, 1, 1, 1]), rel=1e-4
    )
    assert results[0]["eval_rewards/accuracies"] == pytest.approx(np.average(margin > 0, weights=[1, 2, 3, 1, 1, 1, 1]))


def test_a_preference_below_one_half_exchanges_the_sides_in_the_metrics(arguments):
    examples = with_references(pair_examples(5), tiny_policy(2))
    policy = tiny_policy(1)
    before = PreferenceTrainer(policy, dpo(), arguments(4), examples, examples).evaluate()
    for example in examples:
        object.__setattr__(example.record, "comparisons", (Comparison(1, 0, preference=0.0),))
    after = PreferenceTrainer(policy, dpo(), arguments(4), examples, examples).evaluate()
    assert after == pytest.approx(before, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_before_anything_is_updated(arguments):
    examples = with_references(pair_examples(4), tiny_policy(2))
    examples[2].ref_logp["ref_logp"][0][:] = np.nan
    policy = tiny_policy(1)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    trainer = PreferenceTrainer(policy, dpo(), arguments(4), examples)
    with pytest.raises(NonFiniteLossError, match="Nothing was updated"):
        trainer.train()
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())


@pytest.mark.parametrize(
    ("objective", "spoil", "words"),
    [
        (dpo(), lambda e: e.ref_logp.clear(), "ref_logp"),
        (upo(base="dpo"), lambda e: [item.columns.clear() for item in e.record.items], "value"),
        (modpo(weights={"reward": 0.5}), lambda e: [i.columns.clear() for i in e.record.items], "reward"),
        (kto(), lambda e: setattr(e, "mismatched", None), "mismatched"),
        (dpo(), lambda e: object.__setattr__(e.record, "comparisons", ()), "comparison"),
    ],
    ids=["reference", "head", "column", "mismatched", "pairs"],
)
def test_what_an_objective_needs_and_does_not_get_is_named_before_training(objective, spoil, words, arguments):
    examples = with_references(pair_examples(4), tiny_policy(2))
    for example in examples:
        spoil(example)
    with pytest.raises(ConfigError, match=words):
        PreferenceTrainer(tiny_policy(1), objective, arguments(4), examples)
