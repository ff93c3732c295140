"""Tiny policies and records for tests of the trainer."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.records import Comparison, Item, Record
from unipref.core.tries import build_trie
from unipref.engine import READOUTS, Policy, make_head
from unipref.objectives import as_objective
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
    made = {name: make_head(name, 32, n_layers=2, n_classes=3).to(dtype) for name in heads}
    for name, head in made.items():
        for parameter in head.parameters() if name != "value" else ():  # heads start at 0, where much has no gradient
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return Policy(model, heads=made, **options)


@cache
def reference(seed):
    """A tiny policy to score with, which nothing trains: made once, as making one takes longer than a step with it."""
    return tiny_policy(seed)


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


def examples_for(objective, n, seed=0, weights=None):
    """`n` random pairs with everything that `objective` reads: columns, roles, token columns, vectors, references."""
    objective = as_objective(objective)
    rng = np.random.default_rng(seed)
    examples = pair_examples(n, seed, weights)
    known = {"len", "label", "weight", "group", "role", "uid", "rank", "embedding", "kl_baseline", *READOUTS}
    for i, example in enumerate(examples):
        trie, record = example.trie, example.record
        context = trie.token[trie.path(0)[: -len(trie.scored[0])]].tolist()
        texts = [(context, trie.token[scored].tolist()) for scored in trie.scored]
        items = list(record.items)
        for role in objective.roles:
            items.append(Item("context", f"{role} {i}", role=role))
            texts.append((context, rng.integers(3, VOCABULARY, rng.integers(2, 7)).tolist()))
        for j, item in enumerate(items):
            names = [x for x in sorted(objective.needs - known) if not x.startswith("ref_logp")]
            columns = {name: float(rng.integers(0, 3) if name == "degree" else rng.random()) for name in names}
            rank = j + 1 if item.role == "response" else None
            items[j] = Item(item.context, item.response, rank=rank, role=item.role, columns=columns)
        example.record = replace(record, items=tuple(items))
        example.trie = build_trie(texts)
        if "embedding" in objective.needs:
            example.vectors["embedding"] = np.repeat(rng.normal(size=(1, 4)), len(items), axis=0).astype(np.float32)
        made = {"logp", "ref_logp", *objective.heads, *objective.computed}
        for name in sorted(objective.token_needs - made):
            if not name.startswith("ref_logp"):
                integers = name in ("segment", "diff", "fresh")
                example.tokens[name] = [
                    (np.sort(rng.integers(0, 2, len(s))) if integers else rng.random(len(s))).astype(np.float32)
                    for s in example.trie.scored
                ]
    for k, name in enumerate(sorted(x for x in objective.needs | objective.token_needs if x.startswith("ref_logp"))):
        cache_references(examples, reference(2 + k), name=name)
    if objective.statistics:
        for example in examples:
            example.mismatched.ref_logp.clear()
        cache_references(examples, reference(2))
    return examples
