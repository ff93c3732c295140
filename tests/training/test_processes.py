"""Being one of several processes: who does what, and what all of them agree on."""

import numpy as np
import pytest

from unipref.training import alone, n_processes, ranks
from unipref.training.ranks import anywhere
from unipref.training.sharding import _every_other


@pytest.fixture
def three(monkeypatch):
    """This process is one of three; the others' answers are given."""
    group = type(
        "group", (), {"is_available": lambda: True, "is_initialized": lambda: True, "get_world_size": lambda: 3}
    )
    monkeypatch.setattr(ranks.torch, "distributed", group)
    return monkeypatch


def test_a_process_that_works_for_itself_is_one_until_it_comes_back(three):
    assert n_processes() == 3
    with alone():
        assert n_processes() == 1
        with alone():
            assert n_processes() == 1
        assert n_processes() == 1
    assert n_processes() == 3


def test_what_some_rank_lacks_is_missing_for_all(three):
    def gathered(mine):
        return [*mine, *(np.packbits(np.array(other, bool)).tobytes() for other in ([0] * 9 + [1], [1] + [0] * 9))]

    three.setattr(ranks, "gather_object", gathered)
    assert anywhere([False] * 5 + [True] + [False] * 4) == [True] + [False] * 4 + [True] + [False] * 3 + [True]
    with alone():
        assert anywhere([False, True]) == [False, True]


@pytest.mark.parametrize("world", [2, 3, 8])
def test_every_trie_is_scored_by_one_rank_and_all_get_about_as_many_tokens(world):
    sizes = np.sort(np.random.default_rng(0).lognormal(5, 0.8, 1000))[::-1]
    shares = [_every_other(range(1000), rank, world) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(1000))
    tokens = [sizes[share].sum() for share in shares]
    assert max(tokens) < 1.03 * min(tokens)
