"""A run: its order, its checkpoints, its log."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_runs import pair_examples, tiny_model, tiny_policy, with_references
from transformers import AutoModelForCausalLM

from unipref.objectives import dpo, upo
from unipref.training import PreferenceTrainer, last_checkpoint
from unipref.training.callbacks import MetricsFile, StopOnSignal
from unipref.training.sampler import StepSampler


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_every_epoch_takes_each_row_once_in_an_order_of_its_own_and_ranks_share_every_step():
    sizes = list(range(10))
    whole = StepSampler(sizes, 4, seed=3, rank=0, world=1, by_length=False)
    epochs = []
    for epoch in range(2):
        whole.set_epoch(epoch)
        epochs.append(list(whole))
        assert sorted(i for step in epochs[-1] for i in step) == sizes
        assert [len(step) for step in epochs[-1]] == [4, 4, 2]
        ranks = [StepSampler(sizes, 4, seed=3, rank=r, world=2, by_length=False) for r in range(2)]
        for sampler in ranks:
            sampler.set_epoch(epoch)
        for step, *shares in zip(epochs[-1], *ranks, strict=True):
            assert sorted(step) == sorted(i for share in shares for i in share)
    assert epochs[0] != epochs[1]


def test_steps_by_length_hold_rows_of_like_size_in_random_order():
    sizes = [7, 1, 9, 3, 8, 2, 5, 4]
    sampler = StepSampler(sizes, 2, seed=0, rank=0, world=1, by_length=True)
    steps = [sorted(sizes[i] for i in step) for step in sampler]
    assert sorted(steps) == [[1, 2], [3, 4], [5, 7], [8, 9]]
    assert steps != sorted(steps)


def test_a_resumed_run_follows_the_same_loss_curve(arguments, tmp_path):
    examples = with_references(pair_examples(10), tiny_policy(2))
    objective = upo(base="dpo", warmup=0.25)

    def trainer(folder, **options):
        policy = tiny_policy(1, heads=objective.heads, dtype=torch.float32)
        return PreferenceTrainer(
            policy,
            objective,
            arguments(4, folder, max_steps=8, lr_scheduler_type="cosine", **options),
            examples,
            callbacks=[MetricsFile(tmp_path / folder / "metrics.jsonl")],
        )

    whole = trainer("whole")
    whole.train()
    first = trainer("cut", save_strategy="steps", save_steps=5)
    first.args.save_total_limit = None
    first.train()
    assert losses(first) == losses(whole)
    checkpoint = tmp_path / "cut" / "checkpoint-5"
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-8"
    again = trainer("cut", save_strategy="no")
    again.train(resume_from_checkpoint=str(checkpoint))
    assert losses(again) == losses(whole)
    for (name, a), (_, b) in zip(again.policy.named_parameters(), whole.policy.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) == list(range(1, 9))


def test_a_checkpoint_without_its_last_file_is_not_trusted(tmp_path):
    for step, whole in ((3, True), (12, True), (20, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "complete.json").write_text("{}")
    assert last_checkpoint(tmp_path).name == "checkpoint-12"
    assert last_checkpoint(tmp_path / "none") is None


def test_a_checkpoint_loads_as_a_transformers_model(arguments, tmp_path):
    examples = with_references(pair_examples(4), tiny_policy(2))
    policy = tiny_policy(1, dtype=torch.float32)
    PreferenceTrainer(policy, dpo(), arguments(4, save_strategy="steps", save_steps=4), examples).train()
    loaded = AutoModelForCausalLM.from_pretrained(last_checkpoint(tmp_path / "out"))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, policy.model.state_dict()[name]), name


def test_the_best_checkpoint_by_a_heldout_metric_is_what_remains(arguments):
    train = with_references(pair_examples(4), tiny_policy(1, dtype=torch.float32))
    heldout = with_references(pair_examples(6, seed=5), tiny_policy(1, dtype=torch.float32))
    trainer = PreferenceTrainer(
        tiny_policy(1, dtype=torch.float32),
        dpo(),
        arguments(
            4,
            max_steps=12,
            learning_rate=0.02,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
        ),
        train,
        heldout,
    )
    trainer.train()
    history = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    best = min(history, key=history.get)
    assert trainer.state.best_global_step == best
    assert trainer.evaluate()["eval_loss"] == pytest.approx(history[best], rel=1e-6)


def test_the_first_signal_ends_the_run_after_the_step_with_a_whole_checkpoint(arguments, tmp_path):
    examples = with_references(pair_examples(4), tiny_policy(2))
    stop = StopOnSignal()

    class At(StopOnSignal):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                stop._handle(2, None)

    trainer = PreferenceTrainer(
        tiny_policy(1, dtype=torch.float32),
        dpo(),
        arguments(4, max_steps=9, save_strategy="steps", save_steps=9),
        examples,
        callbacks=[stop, At()],
    )
    trainer.train()
    assert stop.stopped
    assert trainer.state.global_step == 3
    assert last_checkpoint(tmp_path / "out").name == "checkpoint-3"
    with pytest.raises(KeyboardInterrupt):
        stop._handle(2, None)


def test_lora_with_its_adapter_switched_off_as_live_reference_equals_a_cached_one(arguments):
    from peft import LoraConfig, get_peft_model

    from unipref.engine import Policy

    def policy():
        torch.manual_seed(0)
        model = get_peft_model(tiny_model(1, torch.float32), LoraConfig(r=4, target_modules="all-linear"))
        return Policy(model)

    cached = pair_examples(6)
    live = pair_examples(6)
    runs = []
    for examples, references in ((cached, None), (live, {"ref_logp": None})):
        p = policy()
        if references is None:
            with_references(examples, p)
        trainer = PreferenceTrainer(
            p, dpo(), arguments(6, learning_rate=0.01, max_steps=5), examples, references=references
        )
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0][0] == pytest.approx(math.log(2), rel=1e-5)
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert runs[0][-1] < runs[0][0]


def test_metrics_reach_tensorboard(arguments, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    examples = with_references(pair_examples(4), tiny_policy(2))
    trainer = PreferenceTrainer(
        tiny_policy(1, dtype=torch.float32), dpo(), arguments(4, report_to="tensorboard"), examples
    )
    trainer.train()
    folder = next(Path(tmp_path / "events").rglob("events*")).parent
    events = EventAccumulator(str(folder)).Reload()
    logged = [event.value for event in events.Scalars("train/rewards/margins")]
    expected = [row["rewards/margins"] for row in trainer.state.log_history if "rewards/margins" in row]
    assert logged == pytest.approx(expected, rel=1e-6)
