import math
from itertools import product

import numpy as np
import pytest
import torch
from worlds_of_text import records

from unipref.core.errors import DataError, ShapeError
from unipref.core.records import Comparison, Item, Record
from unipref.explain.distinguishability import (
    Sides,
    _Numbers,
    distinguishability,
    distinguishability_by_group,
    hidden_sides,
    learning_order,
    steps_to,
    text_sides,
)


def gaussians(seed, separations, *, n=300, width=12):
    """Per group two clouds of spread 1, that far apart, each group along a direction of its own."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(width, width)))
    found = {}
    for k, d in enumerate(separations):
        away = d / 2 * directions[k]
        found[d] = rng.normal(size=(n, width)) + away, rng.normal(size=(n, width)) - away
    return found


# ---- the numbers ----


def test_the_numbers_are_those_of_the_definition_by_hand():
    chosen = np.array([[1.0, 0.0], [3.0, 0.0]])
    rejected = np.array([[0.0, 1.0], [2.0, 1.0]])
    found = distinguishability(chosen, rejected)
    # means (2, 0) and (1, 1); variance 1 of the first feature on each side
    assert found.dist == pytest.approx(math.sqrt(2))
    assert found.fisher == pytest.approx(2 / 2)
    # along (1, -1), with or without one's own pair: chosen 1 and 3, rejected -1 and 1: three couples and a tie of four
    assert found.auc == pytest.approx((3 + 0.5) / 4)


def test_of_two_points_that_may_be_exchanged_the_baseline_is_the_mean_over_all_exchanges():
    chosen, rejected = np.array([[1.0], [2.0]]), np.array([[0.0], [0.5]])
    found = distinguishability(chosen, rejected, swaps=4000)
    half = (chosen - rejected)[:, 0] / 2
    exact = np.mean(
        [abs(2 * np.mean([s * h for s, h in zip(signs, half, strict=True)])) for signs in product([1, -1], repeat=2)]
    )
    assert found.by_chance["dist"][0] == pytest.approx(exact, rel=0.03)
    assert found.p["dist"] == pytest.approx(0.5, abs=0.04)  # two of four exchanges reach it


def test_identical_sides_have_no_distance_and_an_even_chance():
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = distinguishability(x, x)
    assert (found.dist, found.fisher, found.auc) == (0.0, 0.0, 0.5)
    assert found.p == {"dist": 1.0, "fisher": 1.0, "auc": 1.0}
    assert math.isnan(distinguishability(np.ones((3, 2)), np.ones((3, 2))).fisher)


def test_scaling_all_features_scales_the_distance_and_nothing_else():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 60, 4))
    one, other = distinguishability(a, b), distinguishability(7 * a, 7 * b)
    assert other.dist == pytest.approx(7 * one.dist)
    assert (other.fisher, other.auc) == (pytest.approx(one.fisher), pytest.approx(one.auc))
    assert other.p == one.p


def test_noise_in_many_dimensions_does_not_look_separable_though_a_line_through_all_of_it_does():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 40, 200))
    way = (a - b).mean(axis=0)
    assert np.mean((a @ way)[:, None] > (b @ way)[None]) > 0.9
    found = distinguishability(a, b)
    assert 0.3 < found.auc < 0.7
    assert found.p["auc"] > 0.05
    a[:, 0] += 2.0
    assert distinguishability(a, b).p["auc"] < 0.05


def test_the_fast_exchange_equals_the_slow_one():
    rng = np.random.default_rng(5)
    a, b, place = *rng.normal(size=(2, 12, 3)), np.repeat([0, 1, 2, 3], [1, 2, 4, 5])
    sign = np.array([1.0, -1.0, 1.0, -1.0])
    swap = sign[place][:, None] < 0
    c, r = np.where(swap, b, a), np.where(swap, a, b)
    along = []
    for side in (c, r):
        lines = [(c - r)[place != own].mean(axis=0) for own in place]
        along.append(np.array([x @ line for x, line in zip(side, lines, strict=True)]))
    way = c.mean(axis=0) - r.mean(axis=0)
    slow = (
        np.linalg.norm(way),
        way @ way / (c.var(axis=0).sum() + r.var(axis=0).sum()),
        np.mean(along[0][:, None] > along[1]),
    )
    assert _Numbers(a, b, place).of(sign) == pytest.approx(slow)


def test_pairs_of_one_prompt_are_exchanged_together_so_that_copies_prove_nothing():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 8, 2)) + np.array([0.4, -0.4])[:, None, None]
    copies = np.repeat(a, 30, axis=0), np.repeat(b, 30, axis=0)
    once = distinguishability(a, b)
    told = distinguishability(*copies, prompts=np.repeat(np.arange(8), 30))
    assert told.n_prompts == 8
    assert told.p["dist"] == once.p["dist"]
    assert distinguishability(*copies).p["dist"] < once.p["dist"]


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="of the same pairs"):
        distinguishability(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(DataError, match="no pair"):
        distinguishability(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(DataError, match="not finite"):
        distinguishability(np.array([[np.nan]]), np.ones((1, 1)))


# ---- what it foretells ----


def loss_and_slope(w, chosen, rejected):
    """A last layer's DPO loss: yes to what was chosen, no to what was rejected; the reference says neither."""
    x = np.concatenate([chosen, -rejected])
    z = x @ w
    return np.logaddexp(0, -z).mean(), -(x / (1 + np.exp(z))[:, None]).mean(axis=0)


def trained(groups, *, steps=60, rate=0.1):
    w, logs = np.zeros(12), {name: [] for name in groups}
    for step in range(steps):
        found = {name: loss_and_slope(w, *sides) for name, sides in groups.items()}
        for name, (loss, _) in found.items():
            logs[name].append({"step": step, "loss": loss})
        w = w - rate * sum(slope for _, slope in found.values())
    return logs


@pytest.mark.parametrize("seed", range(3))
def test_the_group_told_apart_best_is_learned_first_and_slows_the_others(seed):
    groups = gaussians(seed, (0.5, 1.0, 2.0))
    logs = trained(groups)
    steps = {name: steps_to(rows, 0.66) for name, rows in logs.items()}
    assert steps[2.0] < steps[1.0] < steps[0.5]
    distance = {name: distinguishability(*sides, swaps=0).dist for name, sides in groups.items()}
    assert learning_order(distance, steps) == (pytest.approx(-1.0), 3)
    for name in (0.5, 1.0):  # alone, with the same slope per group, it is further at the same step
        alone = trained({name: groups[name]})[name]
        assert alone[20]["loss"] < logs[name][20]["loss"] - 0.02


@pytest.mark.parametrize("seed", range(3))
def test_what_an_aligned_model_tells_apart_better_it_unlearns_sooner_than_a_fresh_one(seed):
    generator = torch.Generator().manual_seed(seed)
    n, width, hidden = 200, 12, 16
    side = torch.cat([torch.ones(n), -torch.ones(n)])
    x = torch.randn(2 * n, width, generator=generator)
    x[:, 0] += side
    fresh = [
        torch.randn(width, hidden, generator=generator) / width**0.5,
        torch.randn(hidden, generator=generator) / hidden**0.5,
    ]

    def train(start, wanted, steps=60):
        """DPO against the model it starts from."""
        weights = [w.clone() for w in start]
        reference, logs = torch.tanh(x @ start[0]) @ start[1], []
        for step in range(steps):
            weights = [w.detach().requires_grad_() for w in weights]
            margin = wanted * (torch.tanh(x @ weights[0]) @ weights[1] - reference)
            loss = torch.nn.functional.softplus(-margin).mean()
            logs.append({"step": step, "loss": loss.item()})
            slopes = torch.autograd.grad(loss, weights)
            weights = [w - 0.3 * slope for w, slope in zip(weights, slopes, strict=True)]
        return logs, [w.detach() for w in weights]

    def seen(weights):
        features = torch.tanh(x @ weights[0]).numpy()
        return distinguishability(features[:n], features[n:], swaps=0)

    _, aligned = train(fresh, side)
    assert seen(aligned).fisher > seen(fresh).fisher
    flipped, scratch = (steps_to(train(start, -side)[0], 0.45) for start in (aligned, fresh))
    assert flipped < scratch


def test_the_first_step_at_the_level_counts_and_a_group_that_never_gets_there_comes_last():
    rows = [{"step": 1, "loss": 0.7}, {"step": 2, "eval_loss": 0.1}, {"step": 3, "loss": 0.6}, {"step": 4, "loss": 0.5}]
    assert steps_to(rows, 0.6) == 3
    assert steps_to(rows, 0.2) == math.inf
    assert steps_to(rows, 0.2, column="eval_loss") == 2
    assert learning_order({"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 5, "b": math.inf, "c": 7, "d": 1}) == (
        pytest.approx(-0.5),
        3,
    )
    with pytest.raises(DataError, match="three groups"):
        learning_order({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})


# ---- features ----


def test_groups_of_texts_are_told_apart_by_the_words_that_win_in_them():
    found = distinguishability_by_group(text_sides(records(150, own={"law": "lex", "food": "ghee"})))
    assert [*found] == ["food", "law"]
    assert all(each.p["auc"] <= 0.01 for each in found.values())
    nothing = records(150, own={"law": "lex"})
    rng = np.random.default_rng(4)
    shuffled = [
        Record(
            r.id,
            r.items,
            (Comparison(*((0, 1) if rng.random() < 0.5 else (1, 0))),),
            domain="law",
            conversation=r.conversation,
        )
        for r in nothing
    ]
    assert distinguishability_by_group(text_sides(shuffled))["law"].p["auc"] > 0.05


def test_ties_are_left_out_and_counted_and_a_preference_below_one_half_turns_the_pair():
    items = Item("Ask.", "yes yes"), Item("Ask.", "no no")
    kinds = [Comparison(0, 1, preference=p) for p in (1.0, 0.2, 0.5)]
    found = text_sides([Record(f"r{i}", items, (kind,)) for i, kind in enumerate(kinds)])
    assert (len(found.chosen), found.n_ties, found.group.tolist()) == (2, 1, ["all", "all"])
    np.testing.assert_array_equal(found.chosen[0], found.rejected[1])
    assert not np.array_equal(found.chosen[0], found.rejected[0])
    with pytest.raises(DataError, match="1 ties"):
        text_sides([Record("r", items, (kinds[2],))])


def test_hidden_features_are_the_means_of_the_chosen_and_of_the_rejected_response():
    from unipref.data import encode
    from unipref.engine import Policy, embed
    from unipref.engine.loading import load_model, load_tokenizer

    tokenizer, policy = load_tokenizer("bundled"), Policy(load_model("bundled")).eval()
    items = Item("User: Hi\n\nAssistant:", " I would rather not."), Item("User: Hi\n\nAssistant:", " Of course!")
    tie = Record("t", items, (Comparison(0, 1, preference=0.5),))
    sides = hidden_sides(
        [tie, Record("r", items, (Comparison(1, 0),), domain="d", conversation="c")], policy, tokenizer
    )
    (vectors,) = embed(policy, [encode(tie, tokenizer).trie], of="response", normalise=False)
    np.testing.assert_allclose(sides.chosen, vectors[1:], atol=1e-5)
    np.testing.assert_allclose(sides.rejected, vectors[:1], atol=1e-5)
    assert (sides.group.tolist(), sides.prompt.tolist(), sides.n_ties) == (["d"], ["c"], 0)
    assert isinstance(sides, Sides)
