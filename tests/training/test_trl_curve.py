"""A run of ours and a run of TRL on the same rows follow one curve where the two mean the same."""

import warnings

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from unipref.data import encode_records, read_records
from unipref.engine import Policy, load_tokenizer
from unipref.objectives import dpo, ipo
from unipref.training import Example, PreferenceTrainer, cache_references

STEPS = 5
SHARED = (
    "loss",
    "grad_norm",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)


def small_llama(vocabulary):
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config)


def rows():
    """Six short HH conversations in TRL's conversational format."""
    records, _ = read_records("bundled:hh-harmless")
    short = [r for r in records if sum(len(m.content) for i in r.items for m in (*i.context, *i.response)) < 700][:6]
    return [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in record.items[0].context],
            "chosen": [{"role": m.role, "content": m.content} for m in record.items[0].response],
            "rejected": [{"role": m.role, "content": m.content} for m in record.items[1].response],
        }
        for record in short
    ]


def trl_curve(data, tokenizer, loss_type, beta, folder):
    from datasets import Dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's and datasets' own
        args = DPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=len(data),
            max_steps=STEPS,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            beta=beta,
            loss_type=[loss_type],
            max_length=None,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
        )
        trainer = DPOTrainer(
            small_llama(len(tokenizer)),
            ref_model=small_llama(len(tokenizer)),
            args=args,
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
        )
        trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def our_curve(data, tokenizer, objective, arguments):
    records, _ = read_records(data)
    encoded, _ = encode_records(records, tokenizer)
    examples = [Example(e.record, e.trie) for e in encoded]
    policy = Policy(small_llama(len(tokenizer)))
    cache_references(examples, policy)
    trainer = PreferenceTrainer(policy, objective, arguments(len(data), max_steps=STEPS), examples)
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    ("loss_type", "objective", "beta"),
    [("sigmoid", dpo(beta=0.3), 0.3), ("ipo", ipo(tau=0.3, norm="mean"), 0.3)],
    ids=["dpo", "ipo"],
)
def test_losses_rewards_and_gradient_norms_of_five_steps_are_those_of_trl(
    loss_type, objective, beta, arguments, tmp_path
):
    tokenizer = load_tokenizer("bundled")
    data = rows()
    theirs = trl_curve(data, tokenizer, loss_type, beta, tmp_path / "trl")
    ours = our_curve(data, tokenizer, objective, arguments)
    assert len(theirs) == len(ours) == STEPS
    # IPO's rewards are scaled by its beta in TRL and by tau / length here: another unit, so only the loss is compared
    names = SHARED if loss_type == "sigmoid" else ("loss", "logps/chosen", "logps/rejected", "grad_norm")
    for a, b in zip(theirs, ours, strict=True):
        for name in names:
            assert b[name] == pytest.approx(a[name], rel=2e-3, abs=2e-4), (name, a, b)
