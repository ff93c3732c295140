"""The same numbers as TRL 1.16 where the two mean the same, and a difference where they do not.

TRL's own loss code runs on given log-probabilities or logits: its trainers are made without their constructors, with a
model that returns them. The rows are in `conformance.py`, and `docs/conformance.md` shows them.
"""

import os
import re
import types
from collections import defaultdict

import pytest
import torch
from conformance import BASE, MISSING, ROWS
from torch.nn.functional import log_softmax

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # trl.experimental warns on import

from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.tpo import TPOTrainer

import unipref.objectives as room
from unipref.core.batch import Batch
from unipref.objectives import as_objective

LENGTHS = {"chosen": [3, 1, 5, 2], "rejected": [2, 6, 5, 1], "gold": [4, 2, 1, 6]}
LONGEST = 6
VOCABULARY = 11


def bare(trainer_class, **attributes):
    """A trainer without a model, data or accelerator: only what its loss reads."""
    trainer = object.__new__(trainer_class)
    same = lambda value: value  # noqa: E731 (a stand-in for gathering over one process)
    trainer.accelerator = types.SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)
    trainer.model = types.SimpleNamespace(training=False)
    trainer.aux_loss_enabled = False
    trainer.precompute_ref_logps = True
    trainer._metrics = {"eval": defaultdict(list)}
    trainer._total_train_tokens = 0
    vars(trainer).update(attributes)
    return trainer


def lengths_of(*sides, n=4):
    """(R,) tokens of each response: `n` of each side, side after side."""
    return torch.tensor([length for side in sides for length in LENGTHS[side][:n]])


def token_log_probs(lengths, seed):
    """(R, 6) log-probabilities of response tokens after a one-token prompt, 0 behind the end, and their mask."""
    mask = torch.arange(LONGEST) < lengths[:, None]
    generator = torch.Generator().manual_seed(seed)
    values = -3 * torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    return values * mask, mask


def after_prompt(mask):
    """The mask with a column for the one-token prompt, which is not scored."""
    return torch.cat([torch.zeros(len(mask), 1, dtype=mask.dtype), mask], dim=1)


def model_of(log_probs):
    """A model whose fused head says `log_probs`."""
    nothing = torch.zeros_like(log_probs)
    outputs = types.SimpleNamespace(
        log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=torch.zeros_like(log_probs, dtype=torch.bool)
    )
    return lambda **_: outputs


def loss_and_gradient(loss, leaf):
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.item(), gradient


def by_side(column, sides):
    return {f"len_{side}": part for side, part in zip(sides, column.chunk(len(sides)), strict=True)}


def dpo_rows(config, seed, n):
    """TRL's DPO loss, the token log-probabilities it has its gradient in, our batch of the same pairs, and a mask."""
    sides = ("chosen", "rejected")
    lengths = lengths_of(*sides, n=n)
    log_probs, mask = token_log_probs(lengths, seed)
    log_probs.requires_grad_()
    reference, _ = token_log_probs(lengths, seed + 1)
    place = torch.arange(LONGEST).expand_as(mask)
    shorter = torch.minimum(*lengths.chunk(2)).repeat(2)
    alpha = config["ld_alpha"]
    weight = torch.where(place < shorter[:, None], 1.0, 1.0 if alpha is None else alpha)
    losses = config["loss_type"] if isinstance(config["loss_type"], list) else [config["loss_type"]]
    further = {"loss_types": losses, "loss_weights": config["loss_weights"] or [1.0]}
    arguments = types.SimpleNamespace(discopop_tau=config["discopop_tau"])
    trainer = bare(DPOTrainer, **{**config, **further}, args=arguments)
    completion = after_prompt(mask)
    summed = (weight * reference).sum(1)
    inputs = {
        "input_ids": torch.ones(2 * n, LONGEST + 1, dtype=torch.long),
        "attention_mask": torch.ones(2 * n, LONGEST + 1),
        "completion_mask": completion.long(),
        "ref_chosen_logps": summed[:n],
        "ref_rejected_logps": summed[n:],
    }
    loss = trainer._compute_loss(model_of(log_probs), inputs, False)
    fields = {"token_logp": log_probs[mask], "token_ref_logp": reference[mask], "token_mask": weight[mask]}
    fields |= {"win_rate_chosen": torch.ones(n), "win_rate_rejected": torch.zeros(n)}
    return loss, log_probs, Batch.from_fields(**by_side(lengths, sides), **fields), mask


def kto_rows(config, seed, n):
    """As `dpo_rows`, for single responses with labels; the policy has drifted up or down, by the seed."""
    lengths = lengths_of("chosen", n=n)
    log_probs, mask = token_log_probs(lengths, seed)
    log_probs.requires_grad_()
    generator = torch.Generator().manual_seed(seed + 1)
    reference, mismatched, noise = (torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(3))
    reference, mismatched = -8 * reference, -8 * mismatched
    away = mismatched + (2.0 if seed % 2 else -2.0) + noise
    label = torch.tensor([1, 0, 0, 1])[:n]
    trainer = bare(KTOTrainer, **config, calculate_KL=config["loss_type"] == "kto")
    trainer._compute_kl_logps = lambda model, batch: away
    inputs = {
        "input_ids": torch.ones(n, LONGEST + 1, dtype=torch.long),
        "attention_mask": torch.ones(n, LONGEST + 1),
        "completion_mask": after_prompt(mask).long(),
        "label": label,
        "ref_logps": reference,
        "ref_KL_logps": mismatched,
    }
    loss = trainer._compute_loss(model_of(log_probs), inputs, False)
    (statistic,) = as_objective(room.kto()).statistics
    drift = statistic.value(*statistic.sums(Batch({"logp": away, "ref_logp": mismatched})))
    fields = {"logp": log_probs.sum(1), "ref_logp": reference, "label": label, "len": lengths, statistic.name: drift}
    return loss, log_probs, Batch.from_fields(**fields), mask


def responses(sides, seed, n):
    """Token ids with a one-token prompt, lengths, and logits over them: (R, 7), (R,), (R, 7, V)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = lengths_of(*sides, n=n)
    shape = (len(lengths), LONGEST + 1)
    ids = torch.randint(1, VOCABULARY, shape, generator=generator)
    logits = torch.randn(*shape, VOCABULARY, generator=generator, dtype=torch.float64)
    return ids, lengths, logits.requires_grad_()


def of_logits(logits, ids, lengths, sides):
    """Our batch of the responses `ids`, from the logits before their tokens."""
    mask = torch.arange(LONGEST) < lengths[:, None]
    log_probs = log_softmax(logits[:, :-1], dim=-1).gather(2, ids[:, 1:, None])[..., 0]
    return Batch.from_fields(**by_side(lengths, sides), token_logp=log_probs[mask])


def reference_free(trainer_class):
    """The measuring function of a trainer that makes its log-probabilities from logits of two sides."""

    def rows(config, seed, n):
        sides = ("chosen", "rejected")
        ids, lengths, logits = responses(sides, seed, n)
        real = torch.arange(LONGEST + 1) <= lengths[:, None]
        labels = torch.where(real, ids, -100)
        labels[:, 0] = -100
        batch = {}
        for side, rows in zip(sides, (slice(0, n), slice(n, None)), strict=True):
            width = 1 + int(lengths[rows].max())
            batch[f"{side}_input_ids"] = torch.where(real, ids, 0)[rows, :width]
            batch[f"{side}_attention_mask"] = real[rows, :width].long()
            batch[f"{side}_labels"] = labels[rows, :width]
        trainer = bare(trainer_class, is_encoder_decoder=False, pad_token_id=0, padding_value=0, **config)
        widest = 1 + int(lengths.max())
        model = lambda *_, **__: types.SimpleNamespace(logits=logits[:, :widest])  # noqa: E731
        loss, _ = trainer.get_batch_loss_metrics(model, batch, "eval")
        return loss, logits, of_logits(logits, ids, lengths, sides), torch.tensor(True)

    return rows


def tpo_rows(config, seed, n):
    """As `dpo_rows`, for pairs with a third, gold answer."""
    sides = ("chosen", "rejected", "gold")
    ids, lengths, logits = responses(sides, seed, n)
    completion = after_prompt(torch.arange(LONGEST) < lengths[:, None])
    seen = slice(None) if config["tpo_alpha"] != 0 else slice(0, 2 * n)
    inputs = {"input_ids": ids[seen], "completion_mask": completion[seen].long()}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    trainer = bare(TPOTrainer, **config)
    loss = trainer._compute_loss(lambda **_: types.SimpleNamespace(logits=logits[seen]), inputs, False)
    return loss, logits, of_logits(logits, ids, lengths, sides), torch.tensor(True)


TRAINERS = {
    "DPO": dpo_rows,
    "KTO": kto_rows,
    "CPO": reference_free(CPOTrainer),
    "ORPO": reference_free(ORPOTrainer),
    "TPO": tpo_rows,
}


def measured(row):
    """The largest absolute differences of the losses and of their gradients, over two draws."""
    objective = as_objective(eval(row.ours, vars(room)))
    apart = []
    for seed in (10, 11):
        loss, leaf, batch, mask = TRAINERS[row.trainer]({**BASE[row.trainer], **row.config}, seed, row.pairs)
        theirs = loss_and_gradient(loss, leaf)
        ours = loss_and_gradient(objective.loss(batch).total, leaf)
        mask = mask if mask.ndim == 0 else mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))
        assert theirs[1].any()
        apart.append((abs(ours[0] - theirs[0]), ((ours[1] - theirs[1]) * mask).abs().max().item()))
    losses, gradients = zip(*apart, strict=True)
    return max(losses), max(gradients)


@pytest.mark.parametrize("row", [pytest.param(r, id=f"{r.trainer}-{r.name}") for r in ROWS if r.equal])
def test_the_loss_and_its_gradient_are_trls(row):
    loss, gradient = measured(row)
    assert loss < row.within
    assert gradient < row.within


@pytest.mark.parametrize("row", [pytest.param(r, id=f"{r.trainer}-{r.name}") for r in ROWS if not r.equal])
def test_two_losses_of_one_name_differ_where_the_table_says_so(row):
    loss, _ = measured(row)
    assert loss > 0.01


@pytest.mark.parametrize("row", [pytest.param(r, id=f"{r.trainer}-{r.name}") for r in ROWS if r.pairs == 1])
def test_what_holds_for_a_single_pair_only_does_not_hold_for_four(row):
    loss, _ = measured(type(row)(row.trainer, row.config, row.ours))
    assert loss > 1e-3


@pytest.mark.parametrize("trainer", ["DPO", "CPO", "TPO"])
def test_every_loss_type_that_trl_knows_is_in_the_table(trainer):
    with pytest.raises(ValueError, match="Should be one of") as refused:
        TRAINERS[trainer]({**BASE[trainer], "loss_type": "unheard of"}, 10, 4)
    known = set(re.findall(r"'([\w-]+)'", str(refused.value).split("Should be one of")[1]))
    shown = {BASE[trainer]["loss_type"]}
    for row in (*ROWS, *MISSING):
        named = row.config.get("loss_type", []) if row.trainer == trainer else []
        shown |= {named} if isinstance(named, str) else set(named)
    assert known
    assert known <= shown
