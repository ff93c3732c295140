"""Several references at once: the clipped harmonic mixture against the plainest code, and its ends."""

import math

import pytest
import torch
from worlds import gradients, pair_batch, pair_fields, with_items

from unipref.core.errors import ConfigError
from unipref.objectives import as_objective, dpo, mrpo

SIDES = ("chosen", "rejected")


def fields_of(seed, extra=("1",)):
    fields = {k: v for k, v in pair_fields(seed).items() if "logp" in k or k == "weight"}
    for i, name in enumerate(extra):
        fields |= {f"ref_logp.{name}_{s}": pair_fields(seed + 100 + i)[f"ref_logp_{s}"] for s in SIDES}
    return fields


def slow_mixture(base, other, *, epsilon, alpha=None, crossed=True):
    """(chosen, rejected) of log mix for one pair of numbers per reference, with plain probabilities."""
    if alpha is None:
        far = [abs(c - r) for c, r in (other, base)]
        alpha = far[0] / (far[0] + far[1] + 1e-6)
    middle = [abs(b + o) / 2 for b, o in zip(base, other, strict=True)]
    radius = [epsilon * m / sum(middle) for m in middle] if epsilon >= 0 else [-epsilon] * 2
    mixed = []
    for b, o, e in zip(base, other, radius, strict=True):
        held = min(max(o, (1 + e) * b), (1 - e) * b)
        of_base, of_other = (alpha, 1 - alpha) if crossed else (1 - alpha, alpha)
        mixed.append(-math.log(of_base / math.exp(b) + of_other / math.exp(held)))
    return mixed


@pytest.mark.parametrize("crossed", [True, False])
@pytest.mark.parametrize("epsilon", [0.1, 0.7, -0.2])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_the_mixture_equals_the_plainest_code(crossed, epsilon, alpha):
    fields = fields_of(80)
    method = mrpo(epsilon=epsilon, alpha=alpha, weight_on="other" if crossed else "own")
    total = 0.0
    for i in range(5):
        base, other = ([fields[f"{n}_{s}"][i].item() for s in SIDES] for n in ("ref_logp", "ref_logp.1"))
        mix = slow_mixture(base, other, epsilon=epsilon, alpha=alpha, crossed=crossed)
        lead = [fields[f"logp_{s}"][i].item() - m for s, m in zip(SIDES, mix, strict=True)]
        total += fields["weight"][i].item() * math.log1p(math.exp(-0.1 * (lead[0] - lead[1])))
    assert method(**fields).item() == pytest.approx(total / fields["weight"].sum().item(), abs=1e-12)


def test_the_released_form_is_a_log_sum_of_two_references_less_their_crossed_mean():
    # log mix = l1 + l2 - log(alpha e^l1 + (1 - alpha) e^l2), as in the authors' code
    fields, alpha = fields_of(81), 0.3
    mixed = {}
    for s in SIDES:
        one, two = fields[f"ref_logp.1_{s}"], fields[f"ref_logp_{s}"]
        mixed[f"ref_logp_{s}"] = one + two - torch.log(alpha * one.exp() + (1 - alpha) * two.exp())
    ours = mrpo(alpha=alpha, epsilon=None)(**fields)
    assert ours.item() == pytest.approx(dpo()(**fields | mixed).item(), abs=1e-12)


def test_one_reference_alone_is_dpo_against_it():
    fields = fields_of(82)
    other = {f"ref_logp_{s}": fields[f"ref_logp.1_{s}"] for s in SIDES}
    for alpha, weight_on in ((0.0, "other"), (1.0, "own")):
        ours = mrpo(alpha=alpha, epsilon=None, weight_on=weight_on)(**fields)
        assert ours.item() == pytest.approx(dpo()(**fields | other).item(), abs=1e-12)


def test_the_authors_baseline_is_a_sum_of_two_dpos_one_against_the_held_reference():
    fields, alpha = fields_of(83), 0.3
    held = {}
    for s, e in zip(SIDES, (0.05, 0.05), strict=True):
        base = fields[f"ref_logp_{s}"]
        held[f"ref_logp_{s}"] = fields[f"ref_logp.1_{s}"].clamp((1 + e) * base, (1 - e) * base)
    composed = alpha * mrpo(alpha=1.0, weight_on="own", epsilon=-0.05) + (1 - alpha) * dpo()
    expected = alpha * dpo()(**fields | held) + (1 - alpha) * dpo()(**fields)
    assert composed(**fields).item() == pytest.approx(expected.item(), abs=1e-12)


def test_three_references_with_fixed_shares_mix_harmonically():
    fields = fields_of(84, extra=("1", "2"))
    mixed = {}
    for s in SIDES:
        columns = [fields[f"{n}_{s}"] for n in ("ref_logp", "ref_logp.1", "ref_logp.2")]
        mixed[f"ref_logp_{s}"] = -sum(w * (-c).exp() for w, c in zip((0.4, 0.3, 0.3), columns, strict=True)).log()
    ours = mrpo(extra=("ref_logp.1", "ref_logp.2"), alpha=0.6, epsilon=None, weight_on="own")(**fields)
    assert ours.item() == pytest.approx(dpo()(**fields | mixed).item(), abs=1e-12)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_references_of_any_size_or_none_leave_the_mixture_finite(size):
    numbers = torch.tensor([0.0, -1e-6, -1e4, -1.0, 0.0]) * size
    for weight_on in ("other", "own"):
        objective = as_objective(mrpo(weight_on=weight_on))
        columns = {f"ref_logp.1_{s}": n for s, n in zip(SIDES, (numbers, numbers.flip(0)), strict=True)}
        columns |= {f"ref_logp_{s}": n for s, n in zip(SIDES, (numbers.roll(1), numbers), strict=True)}
        total, (slope,) = gradients(objective, pair_batch(85, dtype=torch.float32, **columns))
        assert total.isfinite()
        assert slope.isfinite().all()


def test_no_gradient_reaches_any_of_the_references():
    batch = pair_batch(86, **{k: v for k, v in fields_of(86).items() if k.startswith("ref_logp.")})
    live = {name: batch.item(name).clone().requires_grad_() for name in ("ref_logp", "ref_logp.1", "logp")}
    as_objective(mrpo()).loss(with_items(batch, **live)).total.backward()
    assert live["ref_logp"].grad is None
    assert live["ref_logp.1"].grad is None
    assert live["logp"].grad is not None


def test_settings_that_say_nothing_are_refused():
    with pytest.raises(ConfigError, match="take 'own'"):
        mrpo(extra=("ref_logp.1", "ref_logp.2"))
    with pytest.raises(ConfigError, match="further one beside ref_logp"):
        mrpo(extra=(), weight_on="own")
    with pytest.raises(ConfigError, match="weight_on='owner'"):
        mrpo(weight_on="owner")
    with pytest.raises(ConfigError, match="share, in"):
        mrpo(alpha=-1.0)
