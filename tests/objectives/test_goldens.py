"""The numbers on the cards, and what the cards say of their methods."""

from dataclasses import replace

import pytest
import torch
from worlds import batch_for

import unipref.objectives as room
from unipref.core.cards import list_methods
from unipref.core.errors import ConfigError
from unipref.objectives import as_objective

CARDS = list_methods("objective")
GOLDENS = [pytest.param(c, *g, id=f"{c.key}-{i}") for c in CARDS for i, g in enumerate(c.golden)]


def fields_of(objective, golden):
    statistics = {statistic.name for statistic in objective.statistics}
    statistics |= {name for state in objective.states for name in state.values(None)}
    return {
        name: torch.tensor(value if isinstance(value, list) or name in statistics else [value], dtype=torch.float64)
        for name, value in golden.items()
    }


@pytest.mark.parametrize(("card", "options", "fields", "expected"), GOLDENS)
def test_loss_equals_the_number_worked_out_on_the_card(card, options, fields, expected):
    objective = as_objective(card.build(**options))
    assert objective(**fields_of(objective, fields)).item() == pytest.approx(expected, abs=1e-7)


def test_the_catalogue_holds_the_methods_of_this_slice():
    keys = {"sft", "dpo", "cdpo", "dpo_robust", "ipo", "kto", "simpo", "cpo", "slic", "orpo", "modpo", "upo"}
    assert keys <= {card.key for card in CARDS}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_every_card_has_a_golden_number_and_names_the_columns_its_objective_reads(card):
    objective = as_objective(card.build())
    assert card.golden
    sides = {"chosen", "rejected"} if objective.unit_needs == "pair" else set()
    tokens = objective.token_needs - {"logp"}
    assert set(card.needs) == objective.needs - {"uid"} | tokens | set(objective.roles) | sides
    assert card.coupling == objective.coupling


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_a_method_is_found_in_the_room_under_its_key(card):
    assert getattr(room, card.key) is card.function


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_repr_is_the_formula_and_evaluates_to_an_equal_objective(card):
    objective = as_objective(card.build())
    assert eval(repr(objective), vars(room)) == objective
    assert hash(objective) == hash(as_objective(card.build()))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_a_column_that_is_missing_is_named(card):
    objective = as_objective(card.build())
    whole = batch_for(objective, 0)
    for name in objective.needs - {"label", "role", "group"}:
        without = replace(whole, items={k: v for k, v in whole.items.items() if k != name})
        with pytest.raises(ConfigError, match=f"needs the column '{name}'"):
            objective.loss(without)
    for name in objective.token_needs:
        without = replace(whole, tokens={k: v for k, v in whole.tokens.items() if k != name})
        with pytest.raises(ConfigError, match=f"needs the column '{name}'"):
            objective.loss(without)
