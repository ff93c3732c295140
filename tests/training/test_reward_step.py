"""Training a reward head alone: the vocabulary is not met, and nothing else changes."""

from contextlib import ExitStack

import pytest
import torch
from tiny_runs import pair_examples, tiny_model, tiny_policy
from transformers import TrainingArguments

from unipref.core.tries import pack
from unipref.engine import Policy
from unipref.engine.head import LogitHead
from unipref.objectives import bt, nll
from unipref.training import PreferenceTrainer


def trained(policy, folder, objective=None, heldout=()):
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=3,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = PreferenceTrainer(policy, objective or bt(), args, pair_examples(8), heldout, max_tokens=40)
    trainer.train()
    return trainer


def rows_of(trainer):
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.fixture
def head_is_out_of_order(monkeypatch):
    """Every run of a language-model head fails; what is loaded before is probed all the same."""
    with ExitStack() as later:

        def break_it():
            broken = later.enter_context(pytest.MonkeyPatch.context())
            broken.setattr(LogitHead, "__call__", lambda *_, **__: pytest.fail("the language-model head was run"))

        yield break_it


@pytest.mark.parametrize("path", ["tries", "rows"])
def test_heads_alone_are_given_without_the_vocabulary_and_equal_those_that_come_with_it(path, head_is_out_of_order):
    policy = tiny_policy(1, heads=["reward_head"], path=path)
    batch = pack([example.trie for example in pair_examples(3)])
    both = policy(batch, want=("logp", "reward_head"))
    head_is_out_of_order()
    alone = policy(batch, want=("reward_head",))
    assert alone.logp is None
    assert both.logp is not None
    torch.testing.assert_close(alone.heads["reward_head"], both.heads["reward_head"], rtol=0, atol=0)


def test_training_and_evaluating_a_reward_model_never_runs_the_language_model_head(tmp_path, head_is_out_of_order):
    policy = tiny_policy(1, heads=["reward_head"])
    head_is_out_of_order()
    trainer = trained(policy, tmp_path, heldout=pair_examples(3, seed=5))
    logged = {**rows_of(trainer)[-1], **trainer.evaluate()}
    assert "rewards/accuracies" in logged
    assert "eval_rewards/accuracies" in logged
    assert not [name for name in logged if "logps" in name]


@pytest.mark.parametrize("tied", [False, True])
def test_losses_and_weights_are_those_of_a_step_that_computes_log_probabilities_too(tied, tmp_path, monkeypatch):
    def policy():
        made = tiny_policy(1, heads=["reward_head"])
        if tied:
            made.model.lm_head.weight = made.model.model.embed_tokens.weight
        return made

    lean = trained(policy(), tmp_path / "lean")
    monkeypatch.setattr(PreferenceTrainer, "_reads_logp", lambda _: True)
    full = trained(policy(), tmp_path / "full")
    assert [row["loss"] for row in rows_of(lean)] == [row["loss"] for row in rows_of(full)]
    for (name, ours), theirs in zip(lean.policy.state_dict().items(), full.policy.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_an_untied_head_is_frozen_only_while_nothing_reads_it(tmp_path):
    policy = tiny_policy(1, heads=["reward_head"])
    head = policy.model.lm_head.weight
    before = head.detach().clone()
    seen = []
    policy.model.model.register_forward_pre_hook(lambda *_: seen.append(head.requires_grad))
    trained(policy, tmp_path / "bt")
    assert seen
    assert not any(seen)
    assert torch.equal(head, before)
    assert head.requires_grad
    trained(policy, tmp_path / "with likelihood", bt() + 0.1 * nll())
    assert not torch.equal(head, before)


def test_the_parameters_of_the_head_alone_are_none_where_it_is_the_embedding_matrix():
    model = tiny_model()
    assert [p is model.lm_head.weight for p in Policy(model).head_alone()] == [True]
    model.lm_head.weight = model.model.embed_tokens.weight
    assert Policy(model).head_alone() == []
