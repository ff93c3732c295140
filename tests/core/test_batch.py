"""A batch is what the data says, in columns of one length."""

import pytest
import torch

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError, ShapeError


def test_pair_fields_become_items_with_chosen_first_and_their_labels():
    batch = Batch.from_fields(logp_chosen=torch.tensor([-1.0, -2.0]), logp_rejected=torch.tensor([-3.0, -4.0]))
    assert batch.item("logp").tolist() == [-1.0, -2.0, -3.0, -4.0]
    assert batch.item("label").tolist() == [1, 1, 0, 0]
    assert batch.item("group").tolist() == [0, 1, 0, 1]
    assert batch.side("logp", "chosen").tolist() == [-1.0, -2.0]
    assert batch.side("logp", "rejected").tolist() == [-3.0, -4.0]


def test_a_field_without_its_other_side_is_named():
    with pytest.raises(ConfigError, match="ref_logp_rejected"):
        Batch.from_fields(logp_chosen=torch.zeros(1), logp_rejected=torch.zeros(1), ref_logp_chosen=torch.zeros(1))


def test_columns_of_two_lengths_are_refused():
    with pytest.raises(ShapeError, match="one length"):
        Batch(items={"logp": torch.zeros(2), "len": torch.zeros(3)})


def test_a_missing_column_is_named_with_what_there_is():
    with pytest.raises(ConfigError, match=r"'reward'.*the batch has logp"):
        Batch(items={"logp": torch.zeros(2)}).item("reward")


def test_the_clock_is_a_share_of_the_steps():
    assert Clock(5, 20).share == 0.25
    assert Clock().share == 0.0
