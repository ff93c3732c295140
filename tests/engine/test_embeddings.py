"""Texts as vectors: means of hidden states, item by item, whatever the batch."""

import numpy as np
import pytest
import torch
from engine_twins import doubled, plain_states, some_tries, tiny
from torch import nn

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.tries import Trie, build_trie
from unipref.engine import Policy, embed, embed_spans

WAYS = ["tries", "rows", "whole rows", "one by one"]


def a_policy(way: str) -> Policy:
    if way == "one by one":
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 20}
        return Policy(tiny(rope_parameters=rope, max_position_embeddings=20))
    return Policy(doubled(tiny()) if way == "whole rows" else tiny(), path="tries" if way == "tries" else "rows")


def plain_mean(model: nn.Module, trie: Trie, item: int, start: int, end: int | None) -> np.ndarray:
    with torch.no_grad():
        return plain_states(model, trie, item)[-1, start:end].mean(0).numpy()


@pytest.mark.parametrize("way", WAYS)
def test_a_context_and_a_response_are_the_means_over_their_own_tokens(way: str) -> None:
    policy = a_policy(way)
    tries = some_tries()
    contexts, responses = (
        embed(policy, tries, of=of, normalise=False, max_tokens=50) for of in ("context", "response")
    )
    for trie, context, response in zip(tries, contexts, responses, strict=True):
        assert context.shape == response.shape == (trie.n_items, 16)
        assert context.dtype == np.float32
        for item in range(trie.n_items):
            cut = -len(trie.scored[item])
            np.testing.assert_allclose(context[item], plain_mean(policy.model, trie, item, 0, cut), atol=2e-6)
            np.testing.assert_allclose(response[item], plain_mean(policy.model, trie, item, cut, None), atol=2e-6)


@pytest.mark.parametrize("way", WAYS)
def test_spans_count_in_scored_tokens(way: str) -> None:
    policy = a_policy(way)
    tries = some_tries()
    spans = [[[(0, len(s)), (len(s) - 1, len(s))] for s in trie.scored] for trie in tries]
    spans[0][1] = []  # an item without spans
    found = embed_spans(policy, tries, spans, max_tokens=50)
    assert found[0][1].shape == (0, 16)
    for trie, items, vectors in zip(tries, spans, found, strict=True):
        for item, (wanted, got) in enumerate(zip(items, vectors, strict=True)):
            assert len(wanted) == len(got)
            for (start, end), vector in zip(wanted, got, strict=True):
                n = len(trie.scored[item])
                expected = plain_mean(policy.model, trie, item, start - n, end - n or None)
                np.testing.assert_allclose(vector, expected, atol=2e-6)


def test_one_trie_given_twice_may_have_different_spans() -> None:
    trie = build_trie([([3, 4], [5, 6, 7])])
    first, second = embed_spans(Policy(tiny()), [trie, trie], [[[(0, 1)]], [[(1, 3)]]])
    assert not np.allclose(first[0], second[0])
    np.testing.assert_array_equal(first[0], embed_spans(Policy(tiny()), [trie], [[[(0, 1)]]])[0][0])


def test_a_context_does_not_know_what_was_answered() -> None:
    tries = [build_trie([([3, 4, 5], [6, 7])]), build_trie([([3, 4, 5], [8])])]
    one, other = embed(Policy(tiny()), tries, of="context")
    np.testing.assert_allclose(one, other, atol=1e-7)


def test_vectors_have_length_one_unless_asked_otherwise() -> None:
    tries = some_tries()
    plain, unit = (embed(Policy(tiny()), tries, of="response", normalise=flag) for flag in (False, True))
    for raw, vectors in zip(plain, unit, strict=True):
        np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-6)


def test_what_is_no_part_of_an_item_is_an_error() -> None:
    policy, trie = Policy(tiny()), build_trie([([3, 4], [5, 6])])
    with pytest.raises(ConfigError, match="'context' or the 'response', not 'prompt'"):
        embed(policy, [trie], of="prompt")
    with pytest.raises(ShapeError, match=r"the tries have \[1\] items and the spans \[2\]"):
        embed_spans(policy, [trie], [[[], []]])
    for span in ((0, 3), (1, 1), (-1, 1)):
        with pytest.raises(ShapeError, match=r"does not fit an item of 2 scored tokens"):
            embed_spans(policy, [trie], [[[span]]])
