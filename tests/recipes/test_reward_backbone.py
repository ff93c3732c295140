"""Reward models that are a fine-tuned backbone: trained by the one trainer, saved as transformers' own classifier."""

import io
import json
import math
import os
import types
from collections import defaultdict
from itertools import chain

import numpy as np
import pytest
import torch
from data_files import TOPICS, better, pairs, worse, write
from rich.console import Console
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CohereConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
)

import unipref.recipes.align as align_module
import unipref.recipes.stage as stage_module
from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.core.records import Message
from unipref.core.tries import pack
from unipref.data import encode_records, read_records
from unipref.engine import Policy, classifier, load_model, load_reward_policy, load_tokenizer, make_head, score_items
from unipref.objectives import as_objective, bt
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.compare import parse_methods
from unipref.recipes.stage import run_stage
from unipref.rewards import make_scorer
from unipref.training import Example, assemble, data_batch

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.15}
FAMILIES = {
    "llama": lambda **more: LlamaConfig(**SIZES, intermediate_size=24, max_position_embeddings=256, **more),
    "qwen2": lambda **more: Qwen2Config(
        **SIZES, intermediate_size=24, num_key_value_heads=1, max_position_embeddings=256, **more
    ),
    "gemma": lambda **more: GemmaConfig(
        **SIZES, intermediate_size=24, num_key_value_heads=1, head_dim=8, max_position_embeddings=256, **more
    ),
    "gpt2": lambda **more: GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.15, **more),
    "cohere": lambda **more: CohereConfig(**SIZES, intermediate_size=24, max_position_embeddings=256, **more),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A random model of a family with the bundled tokenizer, saved once; the padding of that one is its own token."""
    made = {}

    def save(family, *, eos_pads=False, chat=None):
        key = family, eos_pads, chat
        if key not in made:
            tokenizer = load_tokenizer("bundled")
            tokenizer.chat_template = chat
            if chat:
                tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
            if eos_pads:  # as many tokenizers come: one token begins, ends and pads
                tokenizer.pad_token = tokenizer.bos_token = tokenizer.eos_token
            torch.manual_seed(0)
            config = FAMILIES[family](
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            made[key] = tmp_path_factory.mktemp(family)
            AutoModelForCausalLM.from_config(config).float().save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return str(made[key])

    return save


def rows():
    """A preference, a soft one and a tie, with a strength each."""
    made = [{**row, "margin": 1 + i % 3} for i, row in enumerate(pairs())]
    made[0]["preference"], made[1]["preference"] = 0.75, 0.5
    return made


def recipe(model, path, **changes):
    values = {
        "name": "reward",
        "model": model,
        "data": {"train": str(path), "eval_share": 0.4, "max_length": 192},
        "train": {
            "learning_rate": 1e-2,
            "batch_size": len(TOPICS),
            "max_steps": 3,
            "schedule": "constant",
            "warmup_share": 0.0,
            "logging_steps": 1,
            "precision": "float32",
        },
        "stages": [{"method": "bt", "options": {"strength": "margin", "centring": 0.01}}],
        "sampling": {"prompts": 4},
    }
    return load_recipe({**values, **changes})


def trained(made, folder, *, start=None, resume=False):
    records, _ = read_records(made.data.train, strict=True)
    run_stage(
        made,
        made.stages[0],
        start=start or made.model,
        folder=folder,
        seed=0,
        train=records,
        validation=[],
        store=None,
        resume=resume,
        show=lambda *told: None,
    )
    return records


def losses(folder):
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def checkpoint_policy(folder):
    """The trained policy from its last checkpoint, which transformers' classifier has no part in."""
    place = max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    model = AutoModelForCausalLM.from_pretrained(place)
    head = make_head("reward_head", model.config.hidden_size)
    state = load_file(place / "heads.safetensors")
    head.load_state_dict({name.removeprefix("heads.reward_head."): value for name, value in state.items()})
    return Policy(model, heads={"reward_head": head})


def engine_rewards(folder, records, tokenizer):
    encoded, _ = encode_records(records, tokenizer, max_length=192)
    return encoded, np.concatenate(score_items(checkpoint_policy(folder), [e.trie for e in encoded]))


def padded(tokenizer, encoded):
    """Every item of `encoded` as a row of one padded batch, as a user of the saved folder would make it."""
    items = [[*chain(*each.ids(i))] for each in encoded for i in range(each.trie.n_items)]
    return tokenizer.pad({"input_ids": items}, return_tensors="pt")


def classifier_rewards(folder, encoded):
    model, told = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        return model.eval()(**padded(AutoTokenizer.from_pretrained(folder), encoded)).logits[:, 0].numpy()


# ---- what is trained ----


@pytest.fixture(scope="module")
def llama(start, tmp_path_factory):
    """A finished stage on a Llama: its recipe, folder and records."""
    folder = tmp_path_factory.mktemp("llama-reward")
    made = recipe(start("llama"), write(folder / "rows.jsonl", rows()))
    return made, folder, trained(made, folder)


def test_the_first_loss_has_the_strengths_and_soft_labels_of_the_rows(llama):
    _, folder, _ = llama
    # a head of zeros: both rewards are 0, and the winner of a label p lacks its margin m on either side
    lack = [math.log1p(math.exp(row["margin"])) for row in rows()]
    assert losses(folder)[0] == pytest.approx(np.mean(lack), rel=1e-5)


def test_a_stopped_stage_resumes_to_the_model_of_one_that_was_not(llama, tmp_path, monkeypatch):
    made, folder, _ = llama

    class StopsAtTwo(stage_module.StopOnSignal):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                self._handle(2, None)

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "StopOnSignal", StopsAtTwo)
        with pytest.raises(stage_module.Interrupted, match="step 2 of 3"):
            trained(made, tmp_path)
    trained(made, tmp_path, resume=True)
    whole, cut = (load_file(place / "model" / "model.safetensors") for place in (folder, tmp_path))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_training_goes_on_from_a_reward_model_with_its_head(llama, tmp_path):
    made, folder, records = llama
    trained(made, tmp_path, start=str(folder / "model"))
    policy = load_reward_policy(folder / "model")
    encoded, _ = encode_records(records, load_tokenizer(str(folder / "model")), max_length=192)
    batch = batch_of(policy, [Example(each.record, each.trie) for each in encoded])
    expected = bt(strength="margin", centring=0.01).loss(batch).total.item()
    assert losses(tmp_path)[0] == pytest.approx(expected, rel=1e-4)
    assert abs(losses(tmp_path)[0] - losses(folder)[0]) > 0.1


def test_adapters_are_merged_into_the_reward_model(start, tmp_path):
    path = write(tmp_path / "rows.jsonl", rows())
    lora = {"lora": {"r": 2, "alpha": 4.0}}
    made = recipe(start("llama"), path, model_options=lora, stages=[{"method": "ada_reward"}])
    records = trained(made, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    encoded, _ = encode_records(records, tokenizer, max_length=192)
    found = classifier_rewards(tmp_path / "model", encoded)
    engine = score_items(load_reward_policy(tmp_path / "model"), [e.trie for e in encoded])
    np.testing.assert_allclose(found, np.concatenate(engine), atol=1e-4)
    assert np.ptp(found) > 1e-3
    before = load_file(f"{made.model}/model.safetensors")
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert not any("lora" in name for name in after)
    assert any(not torch.equal(after[name], value) for name, value in before.items() if name in after)


# ---- what is saved ----


@pytest.mark.parametrize(
    ("family", "eos_pads"), [("llama", False), ("llama", True), ("qwen2", True), ("gemma", False), ("gpt2", True)]
)
def test_the_saved_classifier_gives_the_engines_rewards_in_a_padded_batch(
    start, tmp_path, monkeypatch, family, eos_pads
):
    if family == "gpt2":  # a vocabulary that has no token to spare, so that one more row of embeddings is needed
        monkeypatch.setattr(classifier, "PADDING", "<|not there yet|>")
    made = recipe(start(family, eos_pads=eos_pads), write(tmp_path / "rows.jsonl", rows()))
    records = trained(made, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    encoded, expected = engine_rewards(tmp_path, records, tokenizer)
    found = classifier_rewards(tmp_path / "model", encoded)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected) > 0.01
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vocab_size"] == len(load_tokenizer("bundled")) + (family == "gpt2")
    assert config["pad_token_id"] == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_padding_token_that_ends_responses_would_have_read_the_wrong_token(start, tmp_path):
    made = recipe(start("llama", eos_pads=True), write(tmp_path / "rows.jsonl", rows()))
    records = trained(made, tmp_path)
    encoded, expected = engine_rewards(tmp_path, records, AutoTokenizer.from_pretrained(made.model))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    model.config.pad_token_id = AutoTokenizer.from_pretrained(made.model).eos_token_id
    with torch.no_grad():
        wrong = model(**padded(AutoTokenizer.from_pretrained(tmp_path / "model"), encoded)).logits[:, 0].numpy()
    assert np.abs(wrong - expected).max() > 1e-3


def test_the_scorer_reads_texts_as_training_did(llama):
    made, folder, records = llama
    _, expected = engine_rewards(folder, records, load_tokenizer(made.model))
    scorer = make_scorer({"scorer": "reward_model", "options": {"model": str(folder / "model"), "batch_size": 5}})
    items = [item for record in records for item in record.items if item.role == "response"]
    encoded = [item for record in records for item in record.items]
    kept = [i for i, item in enumerate(encoded) if item.role == "response"]
    found = scorer.score([item.context for item in items], [item.response for item in items])
    np.testing.assert_allclose(found, expected[kept], atol=1e-4)
    said = (Message("assistant", items[0].response),)  # a model of plain texts is given the words of a conversation
    turned = scorer.score([(Message("user", items[0].context),)], [said])
    assert turned[0] == pytest.approx(found[0], abs=1e-6)


def test_a_template_that_writes_behind_its_last_token_does_not_move_the_reward(start, tmp_path):
    turns = [
        {
            "prompt": [{"role": "user", "content": topic[0]}],
            "chosen": [{"role": "assistant", "content": better(i)}],
            "rejected": [{"role": "assistant", "content": worse(i)}],
        }
        for i, topic in enumerate(TOPICS)
    ]
    made = recipe(start("llama", chat=CHATML), write(tmp_path / "rows.jsonl", turns))
    records = trained(made, tmp_path)
    _, expected = engine_rewards(tmp_path, records, AutoTokenizer.from_pretrained(made.model))
    options = {"model": str(tmp_path / "model")}
    items = [item for record in records for item in record.items]
    texts = [item.context for item in items], [item.response for item in items]
    found = make_scorer({"scorer": "reward_model", "options": options}).score(*texts)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = [item.context[0].content for item in items], [item.response[0].content for item in items]
    np.testing.assert_allclose(make_scorer({"scorer": "reward_model", "options": options}).score(*plain), found)
    chat = make_scorer({"scorer": "reward_model", "options": {**options, "template": "chat"}}).score(*texts)
    assert np.abs(chat - expected).max() > 1e-3  # the line break behind <|im_end|> is read there


def test_an_architecture_without_a_classifier_is_refused_before_training(start, tmp_path):
    made = recipe(start("cohere"), write(tmp_path / "rows.jsonl", rows()))
    with pytest.raises(ConfigError, match=r"no sequence classifier for CohereForCausalLM .*'cohere'.* Qwen2"):
        trained(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_reward_model_is_not_taken_for_a_language_model(llama):
    _, folder, _ = llama
    with pytest.raises(ConfigError, match=r"sequence classifier \(LlamaForSequenceClassification\), which writes no"):
        load_model(str(folder / "model"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stages": [{"method": "bt"}, {"method": "dpo"}]}, "dpo would go on from a reward model"),
        ({"model_options": {"lora": {"merge": False}}}, "a reward model, which is saved whole .* set merge: true"),
    ],
)
def test_what_a_reward_model_cannot_be_is_said_before_anything_is_loaded(tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told):
        recipe("somewhere", write(tmp_path / "rows.jsonl", rows()), **changes)


def test_compare_leaves_reward_models_out_and_says_why(llama):
    from unipref.recipes.compare import _lack

    (method,) = parse_methods("bt")
    told = _lack(types.SimpleNamespace(recipe=llama[0]), method, llama[2])
    assert told.startswith("it trains a reward model, which has no log-probabilities to compare")


# ---- what it is measured by ----


@pytest.fixture(scope="module")
def aligned(llama, tmp_path_factory):
    made, _, _ = llama
    folder = tmp_path_factory.mktemp("aligned") / "run"

    def never(*args, **kwargs):
        raise AssertionError("a reward model reads no reference and writes no text")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "cache_references", never)
        patch.setattr(align_module, "cache_references", never)
        patch.setattr(align_module, "sample", never)
        align(made, output=folder, console=Console(file=io.StringIO(), width=100))
    return folder, json.loads((folder / "summary.json").read_text())


def test_no_reference_is_computed_nor_kept(aligned):
    folder, summary = aligned  # the fixture fails where any log-probability of a reference is asked for
    assert summary["reference"] is None
    assert not (folder / "shared").exists()


def test_held_out_accuracy_is_that_of_the_rewards(aligned):
    folder, summary = aligned
    found = json.loads((folder / "bt" / "evaluation.json").read_text())["pairs"]
    scorer = make_scorer({"scorer": "reward_model", "options": {"model": str(folder / "bt" / "bt" / "model")}})
    records = {record.id: record for record in read_records(summary["recipe"]["data"]["train"])[0]}
    right = []
    for row in found:
        record = records[row["id"]]
        sides = [record.items[i].response for i in (0, 1)]
        rewards = scorer.score([record.items[0].context] * 2, sides)
        assert [row["reward_chosen"], row["reward_rejected"]] == pytest.approx(rewards.tolist(), abs=1e-4)
        assert row["logp_chosen"] is None
        right.append(float(rewards[0] > rewards[1]))
    run = summary["runs"]["bt"]
    assert run["accuracy"][0] == pytest.approx(np.mean(right))
    assert run["reward_model"] is True
    assert run["ranking_accuracy"] == run["kl"] == run["drift"]["chosen"] == [None, None, None]
    assert "higher reward" in (folder / "report.html").read_text()


def test_a_reward_model_trained_here_is_the_auxiliary_objective_of_a_policy(aligned, start, tmp_path):
    folder, _ = aligned
    model = str(folder / "bt" / "bt" / "model")
    made = recipe(
        start("llama"),
        write(tmp_path / "rows.jsonl", pairs()),
        stages=[{"method": "upo", "options": {"base": "dpo", "warmup": 0.0}}],
        objectives={"helpful": {"scorer": "reward_model", "options": {"model": model}, "normalise": "zscore"}},
        sampling={"prompts": 2, "max_new_tokens": 4},
    )
    align(made, output=tmp_path / "run", console=Console(file=io.StringIO()))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["runs"]["upo"]["aux"]["helpful"]["missing"] == {"generations": 0, "heldout": 0}
    assert summary["runs"]["upo"]["diagnostics"]["gradient_ratio"] > 0
    row = json.loads((tmp_path / "run" / "upo" / "evaluation.json").read_text())["pairs"][0]
    record = next(r for r in read_records(made.data.train)[0] if r.id == row["id"])
    scorer = make_scorer({"scorer": "reward_model", "options": {"model": model}})
    raw = scorer.score([record.items[0].context] * 2, [record.items[i].response for i in (0, 1)])
    scale = summary["designer"]["helpful"]["scale"]
    told = {key: value for key, value in scale.items() if isinstance(value, float)}
    assert np.sign(row["aux"]["helpful"][0] - row["aux"]["helpful"][1]) == np.sign(raw[0] - raw[1]), told


# ---- beside TRL ----


def batch_of(policy, examples):
    tries = pack([example.trie for example in examples])
    with torch.no_grad():
        values = policy(tries, want=("reward_head",))
    return assemble(data_batch(examples), tries, values.logp, values.heads)


@pytest.mark.parametrize("centring", [0.0, 0.01])
@pytest.mark.parametrize("strength", ["ignore", "margin"])
def test_trls_reward_trainer_has_the_same_loss_on_the_same_rows_and_weights(llama, centring, strength):
    from trl import RewardTrainer

    _, folder, records = llama
    hard = [record for record in records if record.comparisons[0].preference == 1]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    encoded, _ = encode_records(hard, tokenizer, max_length=192)
    ours = as_objective(bt(strength=strength, centring=centring))
    batch = batch_of(checkpoint_policy(folder), [Example(each.record, each.trie) for each in encoded])

    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    sides = [[*chain(*each.ids(side))] for side in (0, 1) for each in encoded]  # chosen first, as TRL collates
    inputs = tokenizer.pad({"input_ids": sides}, return_tensors="pt")
    if strength == "margin":
        inputs["margin"] = torch.tensor([float(record.comparisons[0].margin) for record in hard])
        model_takes = model.forward
        model.forward = lambda margin=None, **given: model_takes(**given)
    trainer = object.__new__(RewardTrainer)
    same = lambda value: value  # noqa: E731 (a stand-in for gathering over one process)
    trainer.accelerator = types.SimpleNamespace(gather=same, gather_for_metrics=same)
    trainer.model, trainer.args = model, types.SimpleNamespace(center_rewards_coefficient=centring or None)
    trainer._metrics, trainer._total_train_tokens, trainer._tp_size = {"eval": defaultdict(list)}, 0, 1
    theirs = trainer.compute_loss(model, dict(inputs)).item()
    assert ours.loss(batch).total.item() == pytest.approx(theirs, rel=1e-4)
