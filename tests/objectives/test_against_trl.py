"""The same numbers as TRL 1.16 where the two mean the same, and a difference where they do not.

TRL's own loss code runs on given log-probabilities: its trainers are made without their constructors, with a model that
returns them. Losses agree to float64, gradients in every token's log-probability too.
"""

import os
import types
from collections import defaultdict

import pytest
import torch
from torch.nn.functional import log_softmax
from worlds import pair_fields

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # trl.experimental warns on import

from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from unipref.core.batch import Batch
from unipref.objectives import (
    as_objective,
    cpo,
    dpo,
    dpo_robust,
    hinge,
    ipo,
    kto,
    log_ratio,
    mean_logp,
    orpo,
    pairwise,
    simpo,
    slic,
)

LENGTHS = {"chosen": torch.tensor([3, 1, 5, 2]), "rejected": torch.tensor([2, 6, 5, 1])}


def bare(trainer_class, **attributes):
    """A trainer without a model, data or accelerator: only what its loss reads."""
    trainer = object.__new__(trainer_class)
    same = lambda value: value  # noqa: E731 (a stand-in for gathering over one process)
    trainer.accelerator = types.SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)
    trainer.model = types.SimpleNamespace(training=False)
    trainer.aux_loss_enabled = False
    trainer.precompute_ref_logps = True
    trainer._metrics = {"eval": defaultdict(list)}
    vars(trainer).update(attributes)
    return trainer


def token_log_probs(lengths, seed):
    """(R, 6) log-probabilities of response tokens after a one-token prompt, 0 behind the end, and their mask."""
    mask = torch.arange(6) < lengths[:, None]
    generator = torch.Generator().manual_seed(seed)
    values = -3 * torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    return (values * mask).requires_grad_(), mask


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


def trl_dpo(loss_type, beta=0.1, label_smoothing=0.0):
    """TRL's loss and gradient in the tokens' log-probabilities, and our fields of the same four pairs."""
    lengths = torch.cat([LENGTHS["chosen"], LENGTHS["rejected"]])
    log_probs, mask = token_log_probs(lengths, seed=0)
    reference = -10 * torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    trainer = bare(
        DPOTrainer,
        beta=beta,
        loss_types=[loss_type],
        loss_weights=[1.0],
        label_smoothing=label_smoothing,
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
    )
    trainer._total_train_tokens = 0
    completion = torch.cat([torch.zeros(8, 1, dtype=torch.bool), mask], dim=1)
    inputs = {
        "input_ids": torch.ones(8, 7, dtype=torch.long),
        "attention_mask": torch.ones(8, 7),
        "completion_mask": completion.long(),
        "ref_chosen_logps": reference[:4],
        "ref_rejected_logps": reference[4:],
    }
    loss = trainer._compute_loss(model_of(log_probs), inputs, False)
    logp = log_probs.sum(1)
    fields = {"logp_chosen": logp[:4], "logp_rejected": logp[4:], "ref_logp_chosen": reference[:4]}
    fields |= {"ref_logp_rejected": reference[4:]} | {f"len_{side}": n for side, n in LENGTHS.items()}
    return loss_and_gradient(loss, log_probs), fields, log_probs, mask


def same(ours, theirs, mask):
    """Losses and gradients agree; TRL's mask decides which tokens have a gradient."""
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    assert torch.allclose(ours[1] * mask, theirs[1] * mask, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("loss_type", "options", "objective"),
    [
        ("sigmoid", {}, dpo(beta=0.1)),
        ("sigmoid", {"beta": 0.7}, dpo(beta=0.7)),
        ("robust", {"label_smoothing": 0.2}, dpo_robust(beta=0.1, flip=0.2)),
        ("ipo", {}, ipo(tau=0.1, norm="mean")),
        ("hinge", {}, pairwise("rso", score=log_ratio(0.1), link=hinge(at=1.0))),
        ("sigmoid_norm", {}, pairwise("ln_dpo", score=log_ratio(0.1, eta=1.0))),
    ],
    ids=["sigmoid", "sigmoid-0.7", "robust", "ipo-mean", "hinge-as-rso", "sigmoid-norm"],
)
def test_pair_losses_equal_trls(loss_type, options, objective):
    theirs, fields, log_probs, mask = trl_dpo(loss_type, **options)
    same(loss_and_gradient(objective(**fields), log_probs), theirs, mask)


def test_trls_hinge_is_not_slic_and_its_ipo_is_not_the_summed_one():
    (hinged, _), fields, _, _ = trl_dpo("hinge")
    assert abs(slic(lam=0.0)(**fields).item() - hinged) > 0.1
    (averaged, _), fields, _, _ = trl_dpo("ipo")
    assert abs(ipo(norm="sum")(**fields).item() - averaged) > 0.1


@pytest.mark.parametrize("drift", [2.0, -2.0])
def test_kto_equals_trls_with_weights_and_on_both_sides_of_zero_drift(drift):
    log_probs, mask = token_log_probs(LENGTHS["chosen"], seed=2)
    generator = torch.Generator().manual_seed(3)
    reference = -8 * torch.rand(4, generator=generator, dtype=torch.float64)
    mismatched = -8 * torch.rand(4, generator=generator, dtype=torch.float64)
    noise = torch.rand(4, generator=generator, dtype=torch.float64)
    label = torch.tensor([1, 0, 0, 1])
    trainer = bare(
        KTOTrainer, beta=0.3, loss_type="kto", calculate_KL=True, desirable_weight=1.5, undesirable_weight=0.5
    )
    trainer._total_train_tokens = 0
    trainer._compute_kl_logps = lambda model, batch: mismatched + drift + noise
    inputs = {
        "input_ids": torch.ones(4, 7, dtype=torch.long),
        "attention_mask": torch.ones(4, 7),
        "completion_mask": torch.cat([torch.zeros(4, 1, dtype=torch.bool), mask], dim=1).long(),
        "label": label,
        "ref_logps": reference,
        "ref_KL_logps": mismatched,
    }
    theirs = loss_and_gradient(trainer._compute_loss(model_of(log_probs), inputs, False), log_probs)
    objective = as_objective(kto(beta=0.3, lambda_d=1.5, lambda_u=0.5))
    (statistic,) = objective.statistics
    away = Batch({"logp": mismatched + drift + noise, "ref_logp": mismatched})
    baseline = statistic.value(*statistic.sums(away))
    ours = objective(logp=log_probs.sum(1), ref_logp=reference, label=label, kl_baseline=baseline)
    same(loss_and_gradient(ours, log_probs), theirs, mask)


def reference_free(trainer_class, n_chosen=4, n_rejected=3, **attributes):
    """TRL's loss of one pair with a one-token prompt through its own forward and log-probs, and our fields.

    One pair, since TRL averages the likelihood over the tokens of a micro-batch; a one-token prompt, since ORPO there
    takes the likelihood over prompt and response, and a first token is never predicted.
    """
    generator = torch.Generator().manual_seed(4)
    # float32, since TRL's ORPO casts to it
    logits = torch.randn(2, 6, 11, generator=generator, dtype=torch.float32).requires_grad_()
    ids = torch.randint(1, 11, (2, 6), generator=generator)
    batch = {}
    for row, (side, n) in enumerate((("chosen", n_chosen), ("rejected", n_rejected))):
        length = 1 + n
        batch[f"{side}_input_ids"] = ids[row : row + 1, :length]
        batch[f"{side}_attention_mask"] = torch.ones(1, length, dtype=torch.long)
        batch[f"{side}_labels"] = torch.cat([torch.tensor([[-100]]), ids[row : row + 1, 1:length]], dim=1)
    longest = 1 + max(n_chosen, n_rejected)
    trainer = bare(trainer_class, is_encoder_decoder=False, pad_token_id=0, padding_value=0, **attributes)
    model = lambda *_, **__: types.SimpleNamespace(logits=logits[:, :longest])  # noqa: E731
    loss, _ = trainer.get_batch_loss_metrics(model, batch, "eval")
    log_probs = log_softmax(logits[:, :-1], dim=-1).gather(2, ids[:, 1:, None])[..., 0]
    fields = {"len_chosen": torch.tensor([n_chosen]), "len_rejected": torch.tensor([n_rejected])}
    fields |= {"logp_chosen": log_probs[:1, :n_chosen].sum(1), "logp_rejected": log_probs[1:, :n_rejected].sum(1)}
    return loss_and_gradient(loss, logits), fields, logits


CPO = {"loss_type": "sigmoid", "alpha": 0.0, "label_smoothing": 0.0, "beta": 0.1, "cpo_alpha": 1.0}


@pytest.mark.parametrize(
    ("trainer", "attributes", "objective"),
    [
        (CPOTrainer, CPO, cpo()),
        (CPOTrainer, CPO | {"cpo_alpha": 0.3, "beta": 0.5}, cpo(beta=0.5, alpha=0.3)),
        (CPOTrainer, CPO | {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0}, simpo(gamma=1.0)),
        (ORPOTrainer, {"beta": 0.1}, orpo(lam=0.1)),
        (ORPOTrainer, {"beta": 1.0}, orpo(lam=1.0)),
    ],
    ids=["cpo", "cpo-0.3", "simpo", "orpo", "orpo-1"],
)
def test_reference_free_losses_equal_trls(trainer, attributes, objective):
    theirs, fields, logits = reference_free(trainer, **attributes)
    ours = loss_and_gradient(objective(**fields), logits)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)  # float32
    assert torch.allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-6)


def test_cpo_without_anchor_and_with_means_and_a_margin_is_simpo():
    fields = {name: value for name, value in pair_fields(5).items() if name != "kl_baseline"}
    assert simpo(beta=2.0, gamma=0.0)(**fields) == pairwise(score=mean_logp(2.0))(**fields)
