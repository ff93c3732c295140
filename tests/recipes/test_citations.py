"""The sources behind a recipe."""

from unipref.core import cards
from unipref.recipes import load_recipe
from unipref.recipes.citations import bibliography, keys_used

DATA = {"model": "bundled", "data": {"train": "bundled:hh-harmless"}}
READING = {"objectives": {"easy": {"scorer": "reading_level"}, "short": {"scorer": "length"}}}


def keys(recipe):
    return keys_used(load_recipe({**DATA, **recipe}))


def test_every_method_is_used_once_in_the_order_of_the_stages():
    assert keys({"stages": [{"method": "sft"}, {"method": "dpo"}]}) == ["sft", "dpo"]
    runs = {"a": [{"method": "dpo"}], "b": [{"method": "simpo"}]}
    assert keys({"stages": [{"method": "sft"}], "runs": runs}) == ["sft", "dpo", "simpo"]


def test_a_base_counts_whether_it_is_named_or_a_default_and_so_do_scorers():
    assert keys({**READING, "stages": [{"method": "upo"}]}) == ["upo", "kto", "reading_level", "length"]
    named = {**READING, "stages": [{"method": "upo", "options": {"base": "ipo"}}]}
    assert keys(named) == ["upo", "ipo", "reading_level", "length"]


def test_operators_of_a_stage_count(monkeypatch):
    monkeypatch.setattr(cards, "_REGISTRY", {**cards._REGISTRY})

    @cards.method("twice", kind="operator", source="s", formula="f", citation=cards.UNIPREF)
    def twice():
        """Every record, twice."""
        return lambda records: ([*records, *records], None)

    assert keys({"stages": [{"method": "dpo", "operators": ["twice"]}]}) == ["dpo", "twice"]


def test_other_stages_than_the_recipes_own_can_be_asked_for():
    recipe = load_recipe({**DATA, "stages": [{"method": "dpo"}]})
    others = load_recipe({**DATA, "stages": [{"method": "simpo"}]}).stages
    assert keys_used(recipe, others) == ["simpo"]


def test_the_bibliography_names_every_source_once_and_unipref():
    text = bibliography(load_recipe({**DATA, **READING, "stages": [{"method": "upo"}, {"method": "kto"}]}))
    assert text.count("@misc{") == 3  # both scorers are our own
    assert text.count("2405.17956") == text.count("2402.01306") == 1
    assert cards.UNIPREF.bibtex() in text
