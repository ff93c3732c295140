"""Methods refuse data that lack what they need, before a model is loaded, and say how to make it."""

import pytest

from unipref.core.errors import ConfigError
from unipref.core.records import Comparison, Item, Record
from unipref.recipes import load_recipe
from unipref.recipes.fit import check_data


def records(**columns):
    """Three pairs whose responses have `columns`."""
    sides = lambda i: (Item("q", f"good {i}", columns=columns), Item("q", f"bad {i}", columns=columns))  # noqa: E731
    return [Record(str(i), sides(i), (Comparison(0, 1),), conversation=str(i)) for i in range(3)]


def thumbs():
    return [Record(str(i), (Item("q", f"answer {i}", label=bool(i % 2)),), conversation=str(i)) for i in range(3)]


def recipe(method, **stage):
    return load_recipe(
        {"model": "m", "data": {"train": "d"}, "stages": [{"method": method, **stage}]}, validate_files=False
    )


@pytest.mark.parametrize("method", ["upo", "modpo"])
def test_a_method_that_reads_a_reward_refuses_data_without_one_and_takes_data_with_one(method):
    with pytest.raises(ConfigError, match=f"^{method} needs `reward`: add `objectives:` with a scorer"):
        check_data(recipe(method), records())
    check_data(recipe(method), records(reward=0.5))


def test_a_pairwise_method_refuses_thumbs_of_one_kind_and_names_what_to_use():
    with pytest.raises(ConfigError, match=r"dpo: no pair can be made of 1 records.*such as kto"):
        check_data(recipe("dpo"), [Record("1", (Item("q", "a", label=True),))])


def test_every_run_is_asked():
    both = load_recipe(
        {
            "model": "m",
            "data": {"train": "d"},
            "runs": {"plain": [{"method": "dpo"}], "designed": [{"method": "modpo"}]},
        },
        validate_files=False,
    )
    with pytest.raises(ConfigError, match="modpo needs `reward`"):
        check_data(both, records())


def test_thumbs_are_enough_for_kto_and_pairs_for_dpo():
    check_data(recipe("kto"), thumbs())
    check_data(recipe("dpo"), records())
