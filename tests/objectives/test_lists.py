"""Methods on lists: infonca, nca, rpo, exo, pl_dpo, lipo, rankdpo, tpo_tree, swepo, ampo, knowpat, and their parts."""

import math
from itertools import permutations

import pytest
import torch
from deltas_structured import LISTS, list_slopes
from torch.nn.functional import softplus
from worlds import batch_for, gradients

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives import (
    Part,
    ampo,
    as_objective,
    best_likelihood,
    boltzmann,
    cdpo,
    column,
    contested,
    cross_entropy,
    dpo,
    each,
    exo,
    expectile,
    group,
    infonca,
    ipo,
    kl_bwd,
    kl_fwd,
    knowpat,
    lipo,
    logistic,
    nca,
    ndcg_gap,
    nll,
    noise_contrast,
    pair_logistic,
    pl_dpo,
    plackett_luce,
    rankdpo,
    ranked_likelihood,
    rpo,
    set_contrast,
    squared_gaps,
    step_score,
    swepo,
    tpo_tree,
    win_rate,
)

LOSSES: list[Part] = [
    cross_entropy(),
    kl_bwd(),
    kl_fwd(),
    squared_gaps(),
    noise_contrast(),
    each(logistic()),
    each(expectile(0.5), "mean"),
    plackett_luce(),
    plackett_luce(2),
    pair_logistic(),
    pair_logistic(None, "mean"),
    pair_logistic(ndcg_gap()),
    pair_logistic(ndcg_gap(discount=False), "mean"),
    set_contrast(0.5),
    set_contrast(0.5, "signed", "best"),
    ranked_likelihood(),
    best_likelihood(),
]

METHODS = [infonca(), nca(), rpo(unit="group"), exo(), lipo(), rankdpo(), swepo(), ampo(), pl_dpo(), knowpat()]


def row(values):
    return torch.tensor([values], dtype=torch.float64)


def loss_of(link, scores, target):
    """The loss of one list."""
    scores, target = row(scores), row(target)
    return link.losses(scores, target, torch.ones_like(scores, dtype=torch.bool)).item()


def listed(scores, **columns):
    """One record's responses with log-ratios `scores` to the reference."""
    items = {"logp": torch.as_tensor(scores, dtype=torch.float64)}
    items |= {"ref_logp": torch.zeros_like(items["logp"]), "group": torch.zeros(len(items["logp"]), dtype=torch.long)}
    return Batch(items | {name: torch.as_tensor(v, dtype=torch.float64) for name, v in columns.items()})


def value(method, batch):
    return as_objective(method).loss(batch).total.item()


def draws(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(seed=40, **changes):
    return batch_for(as_objective(rpo()), seed, weight=torch.ones(5), **changes)


# -- every list loss


@pytest.mark.parametrize("link", LOSSES, ids=repr)
def test_an_empty_place_changes_neither_a_lists_loss_nor_its_gradient(link):
    scores = draws(0, 1, 3).requires_grad_()
    target = torch.tensor([[0.2, 0.7, 0.1]], dtype=torch.float64)
    full = torch.ones(1, 3, dtype=torch.bool)
    short = link.losses(scores, target, full)
    (slope,) = torch.autograd.grad(short.sum(), scores)
    wide = torch.cat([scores.detach(), torch.zeros(1, 2)], 1).requires_grad_()
    mask = torch.tensor([[True, True, True, False, False]])
    long = link.losses(wide, torch.cat([target, torch.zeros(1, 2)], 1), mask)
    (padded,) = torch.autograd.grad(long.sum(), wide)
    assert torch.allclose(short, long, rtol=1e-14)
    assert torch.allclose(padded[:, :3], slope, rtol=1e-13)
    assert not padded[:, 3:].any()


@pytest.mark.parametrize("link", LOSSES, ids=repr)
def test_a_list_has_no_order_but_that_of_its_targets(link):
    scores, target = draws(1, 4), torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    found = [link.losses(scores[None, list(p)], target[None, list(p)], mask).item() for p in permutations(range(4))]
    assert found == pytest.approx([found[0]] * 24, rel=1e-13)


@pytest.mark.parametrize("link", LOSSES, ids=repr)
def test_its_gradient_is_that_of_finite_differences_with_weights_held(link):
    scores, target = draws(2, 4), torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    leaf = scores[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(link.losses(leaf, target[None], mask).sum(), leaf)
    if isinstance(link, ranked_likelihood):  # its weights move with the scores, and the gradient holds them
        w = (scores - scores.min()) / (scores.max() - scores.min())
        order = [1, 3, 2, 0]

        def loss(z):
            terms = [w[i] * (softplus(-z[i]) + softplus(z[order[k + 1 :]]).mean()) for k, i in enumerate(order[:-1])]
            return sum(terms) / 3
    else:

        def loss(z):
            return link.losses(z[None], target[None], mask)[0]

    step = 1e-6 * torch.eye(4, dtype=torch.float64)
    numeric = torch.stack([(loss(scores + e) - loss(scores - e)) / 2e-6 for e in step])
    assert torch.allclose(slope[0], numeric, atol=1e-8)


@pytest.mark.parametrize("link", [x for x in LOSSES if not isinstance(x, (each, best_likelihood, noise_contrast))])
def test_equal_scores_and_equal_targets_have_loss_and_gradient(link):
    leaf = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    total = link.losses(leaf, torch.full((1, 3), 1 / 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool))
    (slope,) = torch.autograd.grad(total.sum(), leaf)
    assert total.isfinite().all()
    assert torch.allclose(slope, torch.zeros(1, 3, dtype=torch.float64), atol=1e-16)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: as_objective(method).terms[0].name)
def test_a_record_with_a_missing_number_or_a_single_response_does_not_count(method):
    name = "rank" if "rank" in as_objective(method).needs else "reward"
    items = {"logp": -torch.arange(1.0, 7.0), "ref_logp": -torch.ones(6), "len": torch.ones(6)}
    items |= {"group": torch.tensor([0, 0, 0, 1, 1, 2]), name: torch.tensor([1.0, 2.0, 3.0, 1.0, math.nan, 1.0])}
    first = Batch({key: column[:3] for key, column in items.items()})
    objective = as_objective(method)
    leaf = items["logp"].clone().requires_grad_()
    total = objective.loss(Batch({**items, "logp": leaf})).total
    assert {denominator.item() for denominator in objective.denominators(Batch(items)).values()} == {1.0}
    assert total.item() == pytest.approx(value(method, first))
    assert not torch.autograd.grad(total, leaf)[0][3:].any()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: as_objective(method).terms[0].name)
def test_records_of_different_length_in_any_order_have_the_losses_that_they_have_alone(method):
    group_of = torch.tensor([2, 0, 1, 2, 1, 0, 2, 1, 2])  # records of 2, 3 and 4 responses, interleaved
    n = len(group_of)
    items = {"logp": draws(20, n) - 4, "ref_logp": draws(21, n) - 4, "len": torch.arange(1.0, n + 1)}
    items |= {"reward": draws(22, n).sigmoid(), "rank": draws(22, n).argsort().argsort() + 1.0, "group": group_of}
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    whole, (slope,) = gradients(as_objective(method), Batch({**items, "weight": weight[group_of]}))
    total, expected = 0.0, torch.zeros(n, dtype=torch.float64)
    for record, share in enumerate(weight / weight.sum()):
        rows = group_of == record
        alone, (own,) = gradients(as_objective(method), Batch({name: column[rows] for name, column in items.items()}))
        total += share * alone
        expected[rows] = share * own
    assert torch.allclose(whole, total, rtol=1e-12)
    assert torch.allclose(slope, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", LISTS)
def test_autograd_equals_the_closed_form_coefficient_of_every_response_of_a_list(name):
    group_of = torch.tensor([2, 0, 1, 2, 1, 0, 2, 1, 2])  # records of 2, 3 and 4 responses, interleaved
    n = len(group_of)
    columns = {"logp": draws(23, n) - 4, "ref_logp": draws(24, n) - 4, "len": torch.arange(1.0, n + 1).double()}
    columns["reward"] = draws(25, n).sigmoid()
    rank = (-columns["reward"]).argsort().argsort() + 1
    _, (found,) = gradients(as_objective(LISTS[name][0]), Batch({**columns, "group": group_of, "rank": rank}))
    for record in range(3):
        rows = group_of == record
        expected = list_slopes(name, *(column[rows] for column in columns.values())) / 3
        assert torch.allclose(found[rows], expected, rtol=1e-11, atol=1e-14)


# -- rankings


def test_plackett_luce_is_the_log_likelihood_of_drawing_one_after_the_other():
    by_hand = math.log(math.e + math.exp(0.5) + math.exp(-0.2)) - 1 + math.log(math.exp(0.5) + math.exp(-0.2)) - 0.5
    assert loss_of(plackett_luce(), [1.0, 0.5, -0.2], [-1, -2, -3]) == pytest.approx(by_hand, rel=1e-14)
    assert by_hand == pytest.approx(1.0490974, abs=1e-7)
    assert loss_of(plackett_luce(), [0.3] * 5, [5, 4, 3, 2, 1]) == pytest.approx(math.log(120))
    one = loss_of(cross_entropy(), [1.0, 0.5, -0.2], [0, 1, 0])
    assert loss_of(plackett_luce(1), [1.0, 0.5, -0.2], [0, 1, -4]) == pytest.approx(one)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_probabilities_of_all_orders_add_up_to_one(n):
    scores = draws(3, n).tolist()
    total = sum(math.exp(-loss_of(plackett_luce(), scores, list(order))) for order in permutations(range(n)))
    assert total == pytest.approx(1, rel=1e-13)


def test_tied_responses_are_each_drawn_against_the_worse_ones_and_not_against_each_other():
    tied = loss_of(plackett_luce(), [0.7, -0.2, 0.1], [2, 2, 1])
    assert tied == pytest.approx(math.log1p(math.exp(-0.6)) + math.log1p(math.exp(0.3)))
    assert loss_of(plackett_luce(), [0.7, -0.2, 0.1], [1, 1, 1]) == 0
    with pytest.raises(ConfigError, match="top=0"):
        plackett_luce(0)


def test_pl_dpo_reads_rank_one_as_best():
    good, bad = (value(pl_dpo(beta=1.0), listed([2.0, 0.0, -2.0], rank=rank)) for rank in ([1, 2, 3], [3, 2, 1]))
    assert good < bad


# -- lambda losses


def test_lambda_weights_are_gain_gaps_times_discount_gaps():
    scores, gains = row([0.3, -0.1, 0.2]), row([1.0, 0.5, 0.0])
    weight = ndcg_gap()(scores, gains, torch.ones(1, 3, dtype=torch.bool))[0]
    first = (2 - 2**0.5) * (1 / math.log(2) - 1 / math.log(4))  # ranks 1 and 3
    assert weight[0, 1].item() == pytest.approx(first) == pytest.approx(0.4225556, abs=1e-7)
    assert weight[0, 2].item() == pytest.approx(0.5324558, abs=1e-7)
    assert weight[1, 2].item() == pytest.approx(0.0782415, abs=1e-7)
    assert torch.equal(weight, weight.T)


def test_equal_scores_are_ranked_in_the_datas_order():
    weight = ndcg_gap()(torch.zeros(1, 3), row([1.0, 1.0, 0.0]), torch.ones(1, 3, dtype=torch.bool))[0]
    assert weight[0, 2] == pytest.approx(1 / math.log(2) - 1 / math.log(4))
    assert weight[1, 2] == pytest.approx(1 / math.log(3) - 1 / math.log(4))


def test_rankdpo_penalises_a_reversed_extreme_pair_more_than_a_reversed_middle_pair():
    link = pair_logistic(ndcg_gap())
    assert loss_of(link, [0.1, -0.05, 0.2], [0.9, 0.5, 0.1]) == pytest.approx(0.5718460, abs=1e-7)
    weight = ndcg_gap()(row([-2, -1, 1, 2]), row([1, 2 / 3, 1 / 3, 0]), torch.ones(1, 4, dtype=torch.bool))[0]
    assert weight[0, 3] > weight[1, 2]


def test_a_swap_near_the_top_changes_a_lambda_loss_more_than_one_near_the_bottom():
    link, gains = pair_logistic(ndcg_gap()), [3.0, 2.0, 1.0, 0.0]
    right, top, bottom = (loss_of(link, s, gains) for s in ([4, 3, 2, 1], [3, 4, 2, 1], [4, 3, 1, 2]))
    assert top - right > bottom - right > 0


def test_a_lambda_loss_jumps_where_two_scores_change_places_and_is_smooth_on_both_sides():
    link, gains = pair_logistic(ndcg_gap()), [1.0, 0.5, 0.0]
    below, above = (loss_of(link, [0.2 + e, 0.2, 0.0], gains) for e in (-1e-9, 1e-9))
    assert abs(above - below) > 0.01
    for at in (0.15, 0.25):
        leaf = row([at, 0.2, 0.0]).requires_grad_()
        (slope,) = torch.autograd.grad(link.losses(leaf, row(gains), torch.ones(1, 3, dtype=torch.bool)).sum(), leaf)
        numeric = (loss_of(link, [at + 1e-6, 0.2, 0.0], gains) - loss_of(link, [at - 1e-6, 0.2, 0.0], gains)) / 2e-6
        assert slope[0, 0].item() == pytest.approx(numeric, abs=1e-8)


def test_two_responses_make_a_lambda_loss_a_constant_times_dpo():
    constant = (2**1.0 - 2**0.0) * (1 / math.log(2) - 1 / math.log(3))
    assert constant == pytest.approx(0.5324558, abs=1e-7)
    for scores in ([0.4, -0.3], [-0.4, 0.9]):
        batch = listed(scores, reward=[1.0, 0.0])
        plain = math.log1p(math.exp(-(scores[0] - scores[1])))
        for method in (lipo(beta=1.0), rankdpo(beta=1.0)):
            assert value(method, batch) == pytest.approx(constant * plain)
        assert value(rankdpo(beta=1.0, discount=False), batch) == pytest.approx(plain)
        assert value(lipo(beta=1.0, loss="pair_logistic"), batch) == pytest.approx(plain)


def test_lipos_losses_by_hand():
    batch = listed([0.3, -0.1, 0.2], reward=[1.0, 0.5, 0.0])
    found = {
        name: value(lipo(beta=1.0, loss=name), batch)
        for name in ("lambda", "pair_logistic", "list_mle", "softmax", "pointwise_mse", "pointwise_ce")
    }

    def sp(z):
        return math.log1p(math.exp(z))

    norm = math.log(sum(math.exp(s) for s in (0.3, -0.1, 0.2)))
    label = math.e + math.exp(0.5) + 1
    assert found["lambda"] == pytest.approx(0.6267363, abs=1e-7)
    assert found["pair_logistic"] == pytest.approx(sp(-0.4) + sp(-0.1) + sp(0.3))
    assert found["list_mle"] == pytest.approx(norm - 0.3 + math.log(math.exp(-0.1) + math.exp(0.2)) + 0.1)
    assert found["softmax"] == pytest.approx(norm - (0.3 * math.e - 0.1 * math.exp(0.5) + 0.2) / label)
    assert found["pointwise_mse"] == pytest.approx(0.7**2 + 0.6**2 + 0.2**2)
    assert found["pointwise_ce"] == pytest.approx(sp(-0.3) + (sp(0.1) + sp(-0.1)) / 2 + sp(0.2))
    for name in ("lambda", "pair_logistic", "pointwise_mse", "pointwise_ce"):
        assert value(lipo(beta=1.0, loss=name, reduction="mean"), batch) == pytest.approx(found[name] / 3)


def test_a_list_of_equal_labels_says_nothing():
    batch = listed([0.3, -0.1, 0.2], reward=[0.5, 0.5, 0.5])
    for method in (lipo(), lipo(loss="pair_logistic", reduction="mean"), lipo(loss="list_mle"), rankdpo()):
        total, (slope,) = gradients(as_objective(method), batch)
        assert total == 0
        assert not slope.any()


def test_a_win_rate_is_the_mean_over_judges_of_the_share_beaten_with_half_for_ties():
    batch = listed([0.0] * 3, one=[5.0, 5.0, 1.0], two=[3.0, 2.0, 1.0])
    rates = win_rate((column("one"), column("two")))(batch, group())
    assert rates.values.tolist() == [pytest.approx([(0.75 + 1) / 2, (0.75 + 0.5) / 2, 0.0])]


# -- steps


def steps(**changes):
    columns = {
        "token_logp": [-1.0, -1.0, -1.0, -2.0, -4.0, -1.0],
        "token_ref_logp": [-2.0, -2.0, -4.0, -2.0, -3.0, -5.0],
        "token_segment": [0.0, 0.0, 1.0, 0.0, 1.0, 2.0],
        "token_step_weight": [2.0, 2.0, 1.0, 2.0, 1.5, 0.5],
        "len": [3, 3],
        "reward": [1.0, 0.0],
        "group": [0, 0],
    } | changes
    return Batch.from_fields(**{name: torch.tensor(v, dtype=torch.float64) for name, v in columns.items()})


def test_a_step_counts_by_its_mean_and_steps_beyond_the_shortest_response_join_its_last():
    # (2 * 1 + 1 * 3) / 3; then 0, and (-1 + 4) / 2 with weight (1.5 + 0.5) / 2
    assert step_score()(steps()).tolist() == pytest.approx([5 / 3, (2 * 0 + 1 * 1.5) / 3])
    alone = steps(group=[0, 1])
    assert step_score()(alone).tolist() == pytest.approx([5 / 3, (2 * 0 + 1.5 * -1 + 0.5 * 4) / 4])


def test_equal_weights_are_the_plain_mean_of_steps_and_weights_of_zero_divide_nothing():
    assert step_score(0.5)(steps(token_step_weight=[2.0] * 6)).tolist() == pytest.approx([0.5 * 2, 0.5 * 0.75])
    leaf = torch.full((6,), -1.0, dtype=torch.float64, requires_grad=True)
    batch = steps(token_step_weight=[0.0] * 3 + [1.0] * 3)
    scores = step_score()(Batch(batch.items, tokens={**batch.tokens, "logp": leaf}))
    assert scores[0] == 0
    (slope,) = torch.autograd.grad(scores.sum(), leaf)
    assert slope.isfinite().all()
    assert not slope[:3].any()


def test_tokens_outside_every_step_do_not_count_and_numbers_of_steps_may_have_gaps():
    outside = steps(token_segment=[0.0, -1.0, 1.0, 0.0, 1.0, 2.0], token_logp=[-1.0, -99.0, -1.0, -2.0, -4.0, -1.0])
    assert step_score()(outside).tolist() == step_score()(steps()).tolist()
    gaps = steps(token_segment=[3.0, 3.0, 9.0, 1.0, 4.0, 8.0])
    assert step_score()(gaps).tolist() == step_score()(steps()).tolist()
    none = steps(token_segment=[-1.0] * 3 + [0.0, 1.0, 2.0])
    assert step_score()(none).tolist() == pytest.approx([0.0, (2 * 0 + 1.5 * -1 + 0.5 * 4) / 4])


def test_tpo_tree_is_a_lambda_times_dpo_for_two_and_falls_as_the_better_response_gains():
    first, second = 5 / 3, 0.5
    constant = 1 / math.log(2) - 1 / math.log(3)
    assert value(tpo_tree(beta=0.5), steps()) == pytest.approx(constant * math.log1p(math.exp(-0.5 * (first - second))))
    better = steps(token_logp=[-0.5, -0.5, -0.5, -2.0, -4.0, -1.0])
    assert value(tpo_tree(), better) < value(tpo_tree(), steps())  # the released loss rises here
    assert value(tpo_tree(), steps(reward=[1.0, 1.0])) == 0  # and has log 2 for every tie
    assert value(tpo_tree(scale=0.01), steps(reward=[100.0, 0.0])) == pytest.approx(value(tpo_tree(), steps()))


# -- sets


def test_a_set_contrast_with_absolute_and_signed_bonuses_by_hand():
    scores, rewards = [0.2, -0.1, 0.4, 0.0], [5.0, 3.0, 2.0, 2.0]
    assert loss_of(set_contrast(0.5), scores, rewards) == pytest.approx(0.9202570, abs=1e-7)
    assert loss_of(set_contrast(0.5, "signed"), scores, rewards) == pytest.approx(0.5468184, abs=1e-7)
    assert loss_of(set_contrast(0.0), [0.2, -0.1], [1, 0]) == pytest.approx(math.log1p(math.exp(-0.3)))
    assert math.log1p(math.exp(-0.3)) == pytest.approx(0.5543552, abs=1e-7)
    assert loss_of(set_contrast(0.0), [0.0] * 5, [4, 3, 2, 0, 0]) == pytest.approx(math.log(5 / 3))


def test_the_others_of_a_set_contrast_count_gamma_times_which_between_two_is_a_margin_of_log_gamma():
    scores, rewards = [0.2, -0.1, 0.4, 0.0], [5.0, 3.0, 2.0, 2.0]  # e^-1.3 + e^-.3 + e^-.7 against 1, as on the card
    thrice = math.log1p(3 * (math.exp(-1.3) + math.exp(-0.3) + math.exp(-0.7)))
    assert loss_of(set_contrast(0.5, gamma=3.0), scores, rewards) == pytest.approx(thrice, abs=1e-12)
    two = loss_of(set_contrast(0.0, gamma=3.0), [0.2, -0.1], [1, 0])
    assert two == pytest.approx(math.log1p(math.exp(-(0.3 - math.log(3)))), abs=1e-12)
    with pytest.raises(ConfigError, match="must count, above 0"):
        ampo(gamma=0.0)


def test_ampo_counts_the_responses_besides_the_best_gamma_times():
    fields = {"logp": [-4.0, -4.0, -6.0], "len": [4.0, 2.0, 2.0], "reward": [2.0, 1.0, 0.0], "group": [0.0] * 3}
    loss = ampo(gamma=2.0)(**{name: torch.tensor(v, dtype=torch.float64) for name, v in fields.items()}).item()
    assert loss == pytest.approx(math.log1p(2 * (math.exp(-6) + math.exp(-12))), rel=1e-12)


def test_a_set_contrast_ignores_a_constant_in_scores_or_rewards():
    for bonus in ("absolute", "signed"):
        for accepted in ("above-mean", "best"):
            link = set_contrast(0.5, bonus, accepted)
            plain = loss_of(link, [0.2, -0.1, 0.4], [5.0, 3.0, 2.0])
            assert loss_of(link, [3.2, 2.9, 3.4], [5.0, 3.0, 2.0]) == pytest.approx(plain)
            assert loss_of(link, [0.2, -0.1, 0.4], [-5.0, -7.0, -8.0]) == pytest.approx(plain)


def test_the_gradient_of_a_set_contrast_is_the_share_among_all_minus_the_share_among_the_accepted():
    scores, rewards = draws(5, 5), torch.tensor([1.0, 4.0, 2.0, 5.0, 0.0], dtype=torch.float64)
    beta, alpha = 0.3, 0.7
    batch = listed(scores, reward=rewards)
    _, (slope,) = gradients(as_objective(swepo(beta=beta, alpha=alpha)), batch)
    gap = rewards - rewards.mean()
    logits = beta * scores + alpha * gap.abs()
    share = logits.masked_fill(gap <= 0, -math.inf).softmax(0)
    assert torch.allclose(slope, beta * (logits.softmax(0) - share), rtol=1e-12)
    assert slope.sum().item() == pytest.approx(0, abs=1e-16)


@pytest.mark.parametrize("method", [swepo(), ampo()])
def test_a_record_of_equal_rewards_does_not_count(method):
    # the mean of three 0.1 is above 0.1 in float64
    items = {"logp": draws(6, 6) - 3, "ref_logp": draws(7, 6), "len": torch.full((6,), 2.0)}
    items |= {"group": torch.tensor([0, 0, 0, 1, 1, 1]), "reward": torch.tensor([0.1] * 3 + [0.1, 0.4, 0.2])}
    objective = as_objective(method)
    assert [d.item() for d in objective.denominators(Batch(items)).values()] == [1]
    total, (slope,) = gradients(objective, Batch(items))
    assert total.item() == pytest.approx(value(method, Batch({k: v[3:] for k, v in items.items()})))
    assert not slope[:3].any()
    assert slope[3:].any()
    assert contested().weight(Batch(items)).tolist() == [0, 1]


def test_ampo_sets_the_best_alone_against_all_and_leaves_the_worst_least_bonus():
    fields = {"logp": [-4.0, -4.0, -6.0], "len": [4.0, 2.0, 2.0], "group": [0.0] * 3}

    def found(*reward):
        columns = fields | {"reward": list(reward)}
        return ampo()(**{name: torch.tensor(v, dtype=torch.float64) for name, v in columns.items()}).item()

    assert found(2.0, 1.9, 0.0) == pytest.approx(math.log1p(math.exp(-5 - 0.1) + math.exp(-10 - 2.0)))
    assert found(2.0, 2.0, 0.0) == pytest.approx(math.log1p(math.exp(-12.0) / (1 + math.exp(-5))))


# -- contrasts with rewards


def test_infonca_and_nca_on_labels_of_pairs_are_dpo_and_trls_nca_pair():
    batch = pairs()
    beta = 0.3
    chosen, rejected = (beta * (batch.side("logp", s) - batch.side("ref_logp", s)) for s in ("chosen", "rejected"))
    by_hand = (softplus(-chosen) + (softplus(chosen) + softplus(rejected)) / 2).mean()
    assert value(nca(beta=beta, target="labels"), batch) == pytest.approx(by_hand.item(), rel=1e-14)
    soft = pairs(preference=torch.tensor([0.9, 0.1, 0.5, 1.0, 0.0], dtype=torch.float64))
    ours, theirs = (gradients(as_objective(m), soft) for m in (infonca(beta=beta, target="labels"), dpo(beta=beta)))
    assert torch.allclose(ours[0], theirs[0], rtol=1e-13)
    assert torch.allclose(ours[1][0], theirs[1][0], rtol=1e-12)


def test_the_label_of_a_list_is_the_share_of_its_comparisons_that_each_response_wins():
    batch = listed([0.5, 0.1, -0.3, 0.2])
    compared = {"chosen": torch.tensor([0, 0, 1]), "rejected": torch.tensor([1, 2, 2])}
    compared["preference"] = torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)
    held = Batch(batch.items, compared)
    q = torch.tensor([1.5, 1.0, 0.5, 0.0], dtype=torch.float64) / 3
    expected = -(q * batch.items["logp"].log_softmax(0)).sum().item()
    assert value(infonca(beta=1.0, target="labels"), held) == pytest.approx(expected, rel=1e-14)


def test_a_record_without_a_comparison_does_not_count_where_labels_are_the_target():
    items = {"logp": draws(8, 4), "ref_logp": torch.zeros(4), "group": torch.tensor([0, 0, 1, 1])}
    some = Batch(items, {"chosen": torch.tensor([3]), "rejected": torch.tensor([2])})
    alone = Batch({k: v[2:] for k, v in items.items()}, {"chosen": torch.tensor([1]), "rejected": torch.tensor([0])})
    for method in (infonca(beta=1.0, target="labels"), nca(beta=1.0, target="labels")):
        assert value(method, some) == pytest.approx(value(method, alone))


def test_rewards_in_small_units_make_the_best_response_the_label_and_equals_share_it():
    target = boltzmann(column("reward"), 1e-4)(listed([0.0] * 3, reward=[0.7, 0.2, 0.7]), group())
    assert target.values.tolist() == [pytest.approx([0.5, 0.0, 0.5], abs=1e-300)]
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        infonca(alpha=0.0)


def test_nca_is_least_at_log_K_q_where_its_slope_is_zero():
    q = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    leaf = (3 * q).log().requires_grad_()
    (slope,) = torch.autograd.grad(noise_contrast().losses(leaf, q, torch.ones(1, 3, dtype=torch.bool)).sum(), leaf)
    assert torch.allclose(slope, torch.zeros(1, 3, dtype=torch.float64), atol=1e-16)


def test_nca_stops_the_chosen_score_at_log_2_while_dpo_is_indifferent_to_a_common_fall():
    chosen = torch.tensor([math.log(2)], dtype=torch.float64, requires_grad=True)
    fields = {"logp_chosen": chosen, "logp_rejected": torch.tensor([-30.0], dtype=torch.float64)}
    fields |= {"ref_logp_chosen": torch.zeros(1), "ref_logp_rejected": torch.zeros(1)}
    (slope,) = torch.autograd.grad(nca(beta=1.0, target="labels")(**fields), chosen)
    assert slope.item() == pytest.approx(0, abs=1e-15)
    fallen = {name: x - 5 if name.startswith("logp") else x for name, x in fields.items()}
    for target in ("labels", "rewards"):
        rewards = {"reward_chosen": torch.ones(1), "reward_rejected": torch.zeros(1)} if target == "rewards" else {}
        same, held = infonca(beta=1.0, target=target), nca(beta=1.0, target=target)
        assert same(**fallen, **rewards).item() == pytest.approx(same(**fields, **rewards).item(), abs=1e-13)
        assert held(**fallen, **rewards).item() > held(**fields, **rewards).item() + 1


# -- reward-aware preference optimisation and its special cases


def rewarded(gap):
    return pairs(reward_chosen=torch.full((5,), gap, dtype=torch.float64), reward_rejected=torch.zeros(5))


def entropy(p):
    return -(p * math.log(p) + (1 - p) * math.log(1 - p))


def test_rpo_bwd_is_cdpo_minus_the_entropy_of_its_label():
    flip = 0.2
    ours = gradients(as_objective(rpo(beta=0.3)), rewarded(math.log((1 - flip) / flip)))
    theirs = gradients(as_objective(cdpo(beta=0.3, flip=flip)), pairs())
    assert ours[0].item() == pytest.approx(theirs[0].item() - entropy(flip), abs=1e-15)
    assert torch.allclose(ours[1][0], theirs[1][0], rtol=1e-12)


def test_rpo_bwd_comes_to_dpo_as_the_reward_gap_grows():
    ours, theirs = (
        gradients(as_objective(rpo(beta=0.3)), rewarded(60.0)),
        gradients(as_objective(dpo(beta=0.3)), pairs()),
    )
    assert ours[0].item() == pytest.approx(theirs[0].item(), abs=1e-14)
    assert torch.allclose(ours[1][0], theirs[1][0], atol=1e-15)


def test_rpo_sq_with_a_reward_gap_of_one_half_is_tau_squared_times_ipo():
    ours = gradients(as_objective(rpo(beta=0.2, distance="sq")), rewarded(0.5))
    theirs = gradients(as_objective(ipo(tau=0.2)), pairs())
    assert ours[0].item() == pytest.approx(0.2**2 * theirs[0].item(), rel=1e-13)
    assert torch.allclose(ours[1][0], 0.04 * theirs[1][0], rtol=1e-12)


def test_infonca_on_two_is_rpo_bwd_plus_the_entropy_of_its_target_and_on_more_likewise():
    batch = pairs()
    ours = gradients(as_objective(infonca(beta=0.3, alpha=0.5)), batch)
    for unit in ("pair", "group"):
        theirs = gradients(as_objective(rpo(beta=0.3, eta=2.0, unit=unit)), batch)
        p = torch.sigmoid(2 * (batch.side("reward", "chosen") - batch.side("reward", "rejected")))
        assert ours[0].item() == pytest.approx(theirs[0].item() + p.apply_(entropy).mean().item(), abs=1e-15)
        assert torch.allclose(ours[1][0], theirs[1][0], rtol=1e-12)
    longer = listed(draws(9, 5), reward=[0.1, 0.5, 0.3, 0.9, 0.2])
    q = (longer.items["reward"] / 0.5).softmax(0)
    assert value(infonca(beta=0.3, alpha=0.5), longer) == pytest.approx(
        value(rpo(beta=0.3, eta=2.0, unit="group"), longer) - (q * q.log()).sum().item(), abs=1e-14
    )


def test_exo_is_zero_where_the_two_softmaxes_agree_and_rpo_likewise_by_every_distance():
    rewards = torch.tensor([0.1, 0.5, 0.3, 0.9], dtype=torch.float64)
    matched = listed(7 + rewards / (0.5 * 0.4), reward=rewards)
    assert value(exo(beta=0.4, beta_r=0.5), matched) == pytest.approx(0, abs=1e-14)
    for distance in ("sq", "fwd", "bwd"):
        assert value(rpo(beta=0.4, eta=2.0, distance=distance, unit="group"), matched) == pytest.approx(0, abs=1e-14)


def test_exo_on_labels_equals_trls_exo_pair_and_needs_a_flip_above_zero():
    flip, beta, batch = 0.1, 0.3, pairs()
    dh = {side: batch.side("logp", side) - batch.side("ref_logp", side) for side in ("chosen", "rejected")}
    p = torch.sigmoid(beta * (dh["chosen"] - dh["rejected"]))
    by_hand = (p * (p.log() - math.log(1 - flip)) + (1 - p) * ((1 - p).log() - math.log(flip))).mean().item()
    assert value(exo(beta=beta, target="labels", flip=flip), batch) == pytest.approx(by_hand, rel=1e-12)
    with pytest.raises(ConfigError, match="flip above 0"):
        exo(target="labels", flip=0.0)
    with pytest.raises(ConfigError, match=r"flip must be in \[0, 0.5\)"):
        exo(target="labels", flip=0.5)


def test_the_mean_over_pairs_is_2_K_over_K_minus_1_times_the_variance():
    k, scores, rewards = 5, draws(10, 5), draws(11, 5)
    residual = 0.2 * scores - 3.0 * rewards
    expected = 2 * k / (k - 1) * residual.var(unbiased=False).item()
    batch = listed(scores, reward=rewards)
    assert value(rpo(eta=3.0, distance="sq", unit="group"), batch) == pytest.approx(expected, rel=1e-13)
    i, j = torch.combinations(torch.arange(k)).T
    every = Batch(batch.items, {"chosen": i, "rejected": j})
    assert value(rpo(eta=3.0, distance="sq"), every) == pytest.approx(expected, rel=1e-13)


def test_rpo_sq_on_samples_has_the_leave_one_out_policy_gradient():
    k, beta, eta = 6, 0.3, 2.0
    scores, rewards = draws(12, k), draws(13, k)
    factor = (k - 1) / (4 * k)  # from the mean over pairs to half the variance
    method = factor * as_objective(rpo(beta=beta, eta=eta, distance="sq", unit="group"))
    _, (slope,) = gradients(method, listed(scores, reward=rewards))
    rho = eta * rewards - beta * scores
    advantage = rho - (rho.sum() - rho) / (k - 1)
    assert torch.allclose(slope, -beta * (k - 1) / k**2 * advantage, rtol=1e-12)


def test_the_forward_form_seeks_a_mode_and_the_backward_form_covers_both():
    place = torch.arange(-6.0, 7.0, dtype=torch.float64)
    target = torch.logaddexp(-((place - 4) ** 2), -((place + 4) ** 2) - 0.1)[None]
    mask = torch.ones_like(target, dtype=torch.bool)
    centres = torch.linspace(-6, 6, 241, dtype=torch.float64)

    def best(link):
        found = [link.losses(-((place - c) ** 2)[None] / 2, target, mask).item() for c in centres]
        return centres[int(torch.tensor(found).argmin())].item()

    assert best(kl_fwd()) == pytest.approx(4, abs=0.1)
    assert abs(best(kl_bwd())) < 1


def test_implicit_rewards_are_those_that_another_model_implies():
    batch = pairs()
    generator = torch.Generator().manual_seed(14)
    teacher = -5 * torch.rand(10, generator=generator, dtype=torch.float64)
    implied = 0.7 * (teacher - batch.item("ref_logp"))
    for norm, length in (("sum", torch.ones(10)), ("mean", batch.item("len"))):
        implicit = rpo(rewards="implicit", target_beta=0.7, eta=1.5, norm=norm)
        explicit = rpo(eta=1.5, norm=norm)
        one = Batch({**batch.items, "ref_logp.target": teacher}, batch.pairs)
        other = Batch({**batch.items, "reward": implied / length}, batch.pairs)
        assert value(implicit, one) == pytest.approx(value(explicit, other), rel=1e-13)
    assert "ref_logp.target" in as_objective(rpo(rewards="implicit")).needs
    assert "reward" not in as_objective(rpo(rewards="implicit")).needs


def test_rpo_adds_likelihood_where_it_is_asked_for():
    batch = pairs()
    expected = value(rpo(), batch) + 0.3 * value(nll(), batch)
    assert value(rpo(sft_weight=0.3), batch) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rpo(distance="forward"), "distance='forward'"),
        (lambda: rpo(unit="groups"), "did you mean 'group'"),
        (lambda: rpo(rewards="hidden"), "rewards='hidden'"),
        (lambda: rpo(norm="tokens"), "norm='tokens'"),
        (lambda: infonca(target="label"), "did you mean 'labels'"),
        (lambda: exo(target="reward"), "did you mean 'rewards'"),
        (lambda: exo(beta_r=0.0), "beta_r, which must be above 0"),
        (lambda: lipo(loss="listmle"), "did you mean 'list_mle'"),
        (lambda: lipo(reduction="average"), "reduction='average'"),
        (lambda: lipo(loss="softmax", reduction="mean"), "nothing to average"),
        (lambda: swepo(bonus="square"), "bonus='square'"),
        (lambda: rankdpo(rewards="reward"), "names of one or more columns"),
        (lambda: rankdpo(rewards=()), "names of one or more columns"),
        (lambda: each(logistic(), "max"), "reduction='max'"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# -- knowpat


def means(scores, **columns):
    fields = {"logp": scores, "len": [1.0] * len(scores), "group": [0] * len(scores)} | columns
    return Batch({name: torch.tensor(v, dtype=torch.float64) for name, v in fields.items()})


def ranking_term(batch):
    (term, _) = as_objective(knowpat(lam=1.0)).terms
    return as_objective(term).loss(batch).total.item()


def test_knowpat_on_two_weighs_the_pair_by_one_or_zero():
    right, wrong = means([-1.0, -2.0], rank=[1, 2]), means([-2.0, -1.0], rank=[1, 2])
    assert ranking_term(right) == pytest.approx(math.log1p(math.e) + math.log1p(math.exp(-2)))
    assert ranking_term(wrong) == 0  # the preferred answer scores lowest: weight 0
    assert value(knowpat(lam=0.0), wrong) == 2.0


def test_knowpat_raises_every_answer_that_has_weight_and_lowers_the_worse_ones():
    batch = means([-1.0, -1.5, -2.0, -4.0], rank=[2, 1, 3, 4])
    _, (slope,) = gradients(as_objective(as_objective(knowpat()).terms[0]), batch)
    assert slope[1] < 0 < slope[3]
    top = ranked_likelihood()
    leaf = row([-3.0, -1.0, -2.0]).requires_grad_()
    (pull,) = torch.autograd.grad(top.losses(leaf, row([2, 1, 0]), torch.ones(1, 3, dtype=torch.bool)).sum(), leaf)
    assert pull[0, 0] == 0  # lowest score, best rank


def test_knowpats_ranking_part_has_a_floor_since_no_log_probability_is_above_zero():
    certain = means([0.0, -1000.0], rank=[1, 2])
    assert ranking_term(certain) == pytest.approx(math.log(2))


def test_knowpat_with_all_scores_equal_is_the_likelihood_of_the_best_where_the_authors_code_divides_zero_by_zero():
    batch = means([-2.0, -2.0, -2.0], rank=[1, 2, 3])
    total, (slope,) = gradients(as_objective(knowpat()), batch)
    assert total == 2.0
    assert slope.tolist() == [-1.0, 0.0, 0.0]


def test_knowpat_divides_by_each_answers_own_length_whatever_stands_beside_it():
    alone = means([-6.0, -4.0], rank=[1, 2], len=[3.0, 2.0])
    items = {name: torch.cat([v, v]) for name, v in alone.items.items()}
    items["group"] = torch.tensor([0, 0, 1, 1])
    items["logp"], items["len"] = items["logp"].clone(), items["len"].clone()
    items["logp"][2:], items["len"][2:] = -900.0, 300.0  # a batch as wide as 300 tokens
    (term, _) = as_objective(knowpat()).terms
    assert term.values(Batch(items))[0] == term.values(alone)[0]


def test_list_losses_stay_finite_in_float32_at_extreme_scores():
    for link in LOSSES:
        leaf = torch.tensor([[-1e8, 0.0, -1.0]], requires_grad=True)
        total = link.losses(leaf, torch.tensor([[0.2, 0.3, 0.5]]), torch.ones(1, 3, dtype=torch.bool))
        (slope,) = torch.autograd.grad(total.sum(), leaf)
        assert total.isfinite().all()
        assert slope.isfinite().all()
