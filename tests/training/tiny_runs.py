"""Tiny policies and records for tests of the trainer."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.records import Comparison, Item, Record
from unipref.core.tries import build_trie
from unipref.engine import Policy, value_head
from unipref.training import Example, cache_references

VOCABULARY = 64


def tiny_model(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).to(dtype)


def tiny_policy(seed=0, dtype=torch.float64, heads=(), **options):
    model = tiny_model(seed, dtype)
    torch.manual_seed(seed)
    return Policy(model, heads={name: value_head(32).to(dtype) for name in heads}, **options)


def pair_example(rng, i, weight=1.0):
    context = rng.integers(3, VOCABULARY, rng.integers(3, 12)).tolist()
    responses = [rng.integers(3, VOCABULARY, rng.integers(2, 9)).tolist() for _ in range(2)]
    items = tuple(Item("context", f"response {i} {side}", columns={"reward": float(rng.random())}) for side in range(2))
    record = Record(f"r{i}", items, (Comparison(0, 1),), weight=weight, conversation=f"c{i}")
    return Example(record, build_trie([(context, response) for response in responses]))


def pair_examples(n, seed=0, weights=None):
    """`n` random pairs; each has the next one's chosen response as its mismatched one."""
    rng = np.random.default_rng(seed)
    examples = [pair_example(rng, i, 1.0 if weights is None else weights[i]) for i in range(n)]
    for i, example in enumerate(examples):
        other = examples[(i + 1) % n]
        context_nodes = example.trie.path(0)[: -len(example.trie.scored[0])]
        ids = (example.trie.token[context_nodes].tolist(), other.trie.token[other.trie.scored[0]].tolist())
        record = Record(f"m{i}", (Item("context", "other"),), weight=example.record.weight)
        example.mismatched = Example(record, build_trie([ids]))
    return examples


def with_references(examples, policy):
    cache_references(examples, policy)
    return examples
