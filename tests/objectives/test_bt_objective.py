"""Bradley-Terry's loss on rewards: where it rests, what strengths and margins move, what centring does."""

import math

import pytest
import torch

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives import as_objective, bt, simpo, upo

LOG2 = math.log(2)


def loss_of(objective, chosen, rejected, **columns):
    columns = {name: torch.tensor(value, dtype=torch.float64) for name, value in columns.items()}
    zeros = torch.zeros(len(chosen), dtype=torch.float64)
    fields = {"logp_chosen": zeros, "logp_rejected": zeros, "reward_head_chosen": chosen}
    return as_objective(objective).loss(Batch.from_fields(**fields, reward_head_rejected=rejected, **columns)).total


def rest(objective, **columns):
    """The lead at which a pair's loss has its least value, by bisection of its slope."""
    low, high = -30.0, 30.0
    for _ in range(80):
        at = torch.tensor([(low + high) / 2], dtype=torch.float64, requires_grad=True)
        loss_of(objective, at, torch.zeros(1, dtype=torch.float64), **columns).backward()
        low, high = ((low + high) / 2, high) if at.grad.item() < 0 else (low, (low + high) / 2)
    return (low + high) / 2


def rewards(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("share", "lead"), [(0.7, 0.8472979), (0.5, 0.0), (0.9, 2.1972246)])
def test_the_lead_rests_at_the_log_odds_of_the_label(share, lead):
    assert rest(bt(), preference=[share]) == pytest.approx(lead, abs=1e-6)


@pytest.mark.parametrize(("share", "lead"), [(0.7, 1.431), (0.5, 0.0)])
def test_a_margin_is_asked_of_whichever_side_won_so_that_a_contested_pair_stays_even(share, lead):
    # a shift by the label's sign would rest at m + logit q = 1.8473, and at 1 for a tie
    assert rest(bt(margin=1.0), preference=[share]) == pytest.approx(lead, abs=5e-4)
    assert rest(bt(strength="margin"), preference=[share], margin=[1.0]) == pytest.approx(lead, abs=5e-4)


def test_a_tie_has_no_slope_where_the_rewards_are_equal_and_costs_log_2():
    chosen = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = loss_of(bt(), chosen, rewards(0.0), preference=[0.5])
    loss.backward()
    assert loss.item() == pytest.approx(LOG2)
    assert chosen.grad.item() == 0.0


def test_only_differences_count_until_rewards_are_centred():
    pair = rewards(2.0, -1.0), rewards(0.5, 0.0)
    shifted = [side + 7.0 for side in pair]
    assert loss_of(bt(), *shifted).item() == pytest.approx(loss_of(bt(), *pair).item(), rel=1e-12)
    centred = loss_of(bt(centring=0.1), *pair).item() - loss_of(bt(), *pair).item()
    assert centred == pytest.approx(0.1 * ((2.0 + 0.5) ** 2 + (-1.0 + 0.0) ** 2) / 2)
    assert loss_of(bt(centring=0.1), *shifted).item() > loss_of(bt(centring=0.1), *pair).item() + 1


def test_strengths_of_the_rows_are_margins_or_weights_and_are_left_alone_by_default():
    pair = rewards(1.0, 2.0, 0.3), rewards(0.0, 0.0, 0.5)
    lead, strength = [1.0, 2.0, -0.2], [3.0, 1.0, 2.0]

    def softplus(x):
        return math.log1p(math.exp(x))

    plain = sum(softplus(-d) for d in lead) / 3
    assert loss_of(bt(), *pair, margin=strength).item() == pytest.approx(plain)
    as_margin = sum(softplus(0.5 * s - d) for d, s in zip(lead, strength, strict=True)) / 3
    assert loss_of(bt(strength="margin", strength_factor=0.5), *pair, margin=strength).item() == pytest.approx(
        as_margin
    )
    as_weight = sum(s * softplus(-d) for d, s in zip(lead, strength, strict=True)) / 3
    assert loss_of(bt(strength="scale"), *pair, margin=strength).item() == pytest.approx(as_weight)


def test_a_strength_of_one_everywhere_or_none_at_all_is_the_plain_loss():
    pair = rewards(1.0, 0.2), rewards(0.0, 0.5)
    plain = loss_of(bt(), *pair).item()
    assert loss_of(bt(strength="scale"), *pair, margin=[1.0, 1.0]).item() == plain
    for strength in ("scale", "margin"):
        assert loss_of(bt(strength=strength), *pair).item() == plain
        assert loss_of(bt(strength=strength), *pair, margin=[math.nan, math.nan]).item() == plain


def test_a_pair_of_strength_zero_counts_nothing_as_a_weight_and_plainly_as_a_margin():
    chosen = rewards(1.0).requires_grad_()
    loss_of(bt(strength="scale"), chosen, rewards(0.0), margin=[0.0]).backward()
    assert chosen.grad.item() == 0.0
    asked = loss_of(bt(strength="margin"), rewards(1.0), rewards(0.0), margin=[0.0]).item()
    assert asked == loss_of(bt(), rewards(1.0), rewards(0.0)).item()


def test_a_temperature_divides_differences_and_margins_alike():
    lead, margin, tau = 0.4, 0.3, 0.1
    found = loss_of(bt(temperature=tau, margin=margin), rewards(lead), rewards(0.0)).item()
    assert found == pytest.approx(math.log1p(math.exp(-(lead - margin) / tau)))


def test_only_an_objective_that_prefers_by_the_head_alone_trains_a_reward_model():
    assert bt(strength="margin", centring=0.01, temperature=0.5).trains_reward
    assert not as_objective(simpo()).trains_reward
    assert not as_objective(upo()).trains_reward


@pytest.mark.parametrize("options", [{"strength": "sclae"}, {"temperature": 0.0}, {"centring": -1.0}])
def test_an_option_out_of_range_is_refused(options):
    with pytest.raises(ConfigError, match="bt"):
        bt(**options)
