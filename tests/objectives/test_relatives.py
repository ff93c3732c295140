"""Which methods are near each other, and that what is said to differ is what differs."""

from dataclasses import replace

import pytest

from unipref.core import cards
from unipref.core.cards import REQUIRED, get_method, list_methods
from unipref.objectives import (
    as_objective,
    cpo,
    dpo,
    dr_dpo,
    hinge,
    ipo,
    kto,
    log_ratio,
    margin,
    nll,
    pairwise,
    simpo,
    slic,
    upo,
)
from unipref.objectives.relatives import differences, distance, nearest, slots

KEYS = [card.key for card in list_methods("objective") if REQUIRED not in card.options.values()]


def test_the_slots_of_a_term_are_those_of_the_algebra_by_the_names_users_know():
    names = set(slots(dpo()))
    assert {"score", "unit", "link", "offset", "target", "weight", "coefficient", "schedule"} <= names
    assert not names & {"name", "role", "discrepancy"}


def test_a_number_is_a_small_difference_a_part_a_large_one_and_a_term_the_largest():
    assert distance(dpo(), dpo(beta=0.3)) == 0.25
    assert distance(dpo(), pairwise(score=log_ratio(0.1), link=hinge())) == 1
    assert distance(dpo(), dpo() + nll()) == 2
    assert distance(dpo(), pairwise(score=log_ratio(0.3), link=hinge()) + nll()) == 0.25 + 1 + 2
    assert distance(dpo(), 2.0 * dpo()) == 0.25
    one, two = (pairwise(score=log_ratio(0.1), offset=(margin(m),)) for m in (0.5, 1.0))
    assert distance(one, two) == 0.25
    assert distance(dpo(), one) == 1


def test_names_roles_and_the_order_of_terms_do_not_count():
    assert distance(dpo(), pairwise("other", score=log_ratio(0.1))) == 0
    assert distance(dpo(), replace(dpo(), role="anchor")) == 0
    assert distance(dpo() + nll(), nll() + dpo()) == 0
    assert differences(nll() + dpo(), dpo() + nll()) == ()


@pytest.mark.parametrize("left", ["dpo", "slic", "upo", "kto"])
@pytest.mark.parametrize("right", ["dpo", "slic", "upo", "kto"])
def test_distance_is_symmetric_and_zero_only_between_equals(left, right):
    one, other = (get_method(key).build() for key in (left, right))
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (left == right)


def test_what_differs_is_said_from_the_first_to_the_second():
    assert differences(dpo(), simpo()) == (
        "score mean_logp(2.0) instead of log_ratio(0.1)",
        "offset margin(amount=1.0)",
    )
    assert differences(simpo(), dpo()) == (
        "score log_ratio(0.1) instead of mean_logp(2.0)",
        "no offset margin(amount=1.0)",
    )
    assert differences(dpo(), ipo()) == ("link square(at=0.5) instead of logistic()", "coefficient 100 instead of 1")
    assert differences(dpo(), dpo()) == ()


def test_terms_are_named_where_there_are_several():
    assert differences(cpo(), slic()) == (
        "in cpo: score logp() instead of logp(0.1)",
        "in cpo: link hinge() instead of logistic()",
        "in nll: score logp() instead of mean_logp()",
        "in nll: coefficient 0.1 instead of 1",
    )
    assert differences(cpo(), dpo()) == ("in cpo: score log_ratio(0.1) instead of logp(0.1)", "no term 'nll'")
    assert differences(dpo(), dpo() + nll()) == (f"a further term {nll()!r}",)
    gates = "schedule gate(after_steps=100) instead of gate(after_share=0.1)"
    assert differences(upo(), upo(warmup_steps=100)) == (f"in advantage: {gates}",)


def test_a_term_that_takes_its_rows_together_differs_in_its_rows():
    changes = differences(dpo(), dr_dpo(beta_prime=2.0))
    assert changes == ("rows log_mean_exp", "temperature 2")
    assert differences(dr_dpo(beta_prime=2.0), dpo()) == ("no rows log_mean_exp", "no temperature 2")
    assert distance(dpo(), dr_dpo()) == distance(dr_dpo(), dpo()) > 0


def test_upo_is_its_base_with_two_terms_added():
    assert differences(upo(), kto()) == ("no term 'advantage'", "no term 'value'")
    assert distance(upo(), kto()) == 2 + 2


@pytest.mark.parametrize("key", KEYS)
def test_neighbours_are_other_methods_nearest_first_and_differ_exactly_where_it_is_said(key):
    found = nearest(key, 5)
    mine = as_objective(get_method(key).build())
    steps = [distance(mine, get_method(other).build()) for other, _ in found]
    assert 1 <= len(found) <= 5
    assert all(step <= 4 for step in steps[1:])
    assert key not in {other for other, _ in found}
    assert steps == sorted(steps)
    assert all(bool(changes) == (step > 0) for (_, changes), step in zip(found, steps, strict=True))


def test_a_method_without_defaults_and_one_that_is_no_objective_have_no_neighbours_and_are_none(monkeypatch):
    monkeypatch.setattr(cards, "_REGISTRY", dict(cards._REGISTRY))
    card = get_method("dpo")
    cards._REGISTRY["objective", "asks"] = replace(card, key="asks", options={"beta": REQUIRED})
    cards._REGISTRY["scorer", "scores"] = replace(card, key="scores", kind="scorer")
    assert nearest("asks") == nearest("scores") == []
    assert not {"asks", "scores"} & {key for key, _ in nearest("dpo", 1000)}
