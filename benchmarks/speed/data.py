"""Token rows from the bundled conversations, and the models with random weights that are trained on them.

Real texts with their real lengths: nothing is generated but the weights. A set is a sample of the whole corpus by
strata: records are ordered by size, cut into groups of one step, and the groups at even distances are taken. So a step
by length is as even as it is in an epoch over the whole corpus, and a step in random order as uneven. Before them
stands a step of the longest records, which nobody's clock sees: then the optimiser's state is made and the memory of a
step is mapped, and every later step finds what it finds in the middle of a long run.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.speed.cases import SHAPES, Data, Setting
from benchmarks.speed.work import count

__all__ = ["make_model", "make_rows", "rows_of"]

Tokens = list[int]
Row = dict[str, Any]


def _corpus(kept: Path, max_length: int = 1024) -> tuple[list[tuple[Tokens, Tokens, Tokens]], int]:
    """(prompt, chosen, rejected) of all bundled pairs that were not cut, in random order; the size of its vocabulary.

    They are encoded once, and read from the file `kept` then.
    """
    if kept.exists():
        found = json.loads(kept.read_text())
        return found["pairs"], found["vocabulary"]
    from unipref.data import encode_records, read_records
    from unipref.engine import load_tokenizer

    tokenizer = load_tokenizer("bundled")
    encoded, _ = encode_records(read_records("bundled:hh-harmless")[0], tokenizer, max_length=max_length)
    found = []
    for e in (encoded[i] for i in np.random.default_rng(0).permutation(len(encoded))):
        if any(e.n_cut_context) or any(e.n_cut_response):
            continue
        pair = e.record.comparisons[0]
        (prompt, chosen), (_, rejected) = e.ids(pair.winner), e.ids(pair.loser)
        found.append([[int(token) for token in part] for part in (prompt, chosen, rejected)])
    kept.write_text(json.dumps({"pairs": found, "vocabulary": len(tokenizer)}))
    return found, len(tokenizer)


def rows_of(
    data: Data, corpus: Sequence[tuple[Tokens, Tokens, Tokens]]
) -> tuple[list[Row], dict[str, list[list[int]]]]:
    """The rows of `data`, those of the steps first, and the rows of every step: "given", "length", and the one "warm".

    Raises:
        ValueError: the corpus is too small.
    """
    n = data.batch * data.steps
    rng = np.random.default_rng(1)
    if data.kind == "pairs":
        pool = [{"items": [[p, c], [p, r]], "pairs": [[0, 1]]} for p, c, r in corpus]
        picked, rest = _strata(pool, data)
    elif data.kind == "long":
        pool = [_behind(p, c, r, corpus, int(rng.integers(*data.prompt)), rng) for p, c, r in corpus[: 8 * n]]
        picked, rest = _strata(pool, data)
    else:
        make = _tree if data.kind == "trees" else _list
        stream = _stream(corpus)
        picked, rest = [make(data, stream) for _ in range(n)], []
    if data.rows:  # the others are never trained on, but held
        rest = rest * (1 + data.rows // max(len(rest), 1))
        picked = picked + rest[: max(0, data.rows - len(picked))]
    order = np.argsort([count([row])["nodes"] for row in picked[:n]], kind="stable").tolist()
    mixed = rng.permutation(n).tolist()
    return picked, {
        "warm": [order[-data.batch :]],
        "given": [mixed[i : i + data.batch] for i in range(0, n, data.batch)],
        "length": [order[i : i + data.batch] for i in range(0, n, data.batch)],
    }


def _strata(pool: list[Row], data: Data) -> tuple[list[Row], list[Row]]:
    """The steps' rows, and all others, the shortest first."""
    size = [sum(len(t) for t in (row["items"][0][0], row["items"][0][1], row["items"][1][1])) for row in pool]
    order = np.argsort(size, kind="stable").tolist()
    groups = [order[i : i + data.batch] for i in range(0, len(order) - data.batch + 1, data.batch)]
    if len(groups) < data.steps:
        raise ValueError(f"{data.steps} steps of {data.batch} records need more than the {len(pool)} that there are")
    chosen = [groups[int((i + 0.5) / data.steps * len(groups))] for i in range(data.steps)]
    taken = [i for group in chosen for i in group]
    held = set(taken)
    return [pool[i] for i in taken], [pool[i] for i in order if i not in held]


def _behind(
    prompt: Tokens,
    chosen: Tokens,
    rejected: Tokens,
    corpus: Sequence[tuple[Tokens, Tokens, Tokens]],
    length: int,
    rng: np.random.Generator,
) -> Row:
    """The pair behind earlier conversations, so that its prompt has at least `length` tokens."""
    before: Tokens = []
    while len(before) + len(prompt) < length:
        other = corpus[int(rng.integers(len(corpus)))]
        before += other[0] + other[1]
    context = before + prompt
    return {"items": [[context, chosen], [context, rejected]], "pairs": [[0, 1]]}


def _stream(corpus: Sequence[tuple[Tokens, Tokens, Tokens]]) -> Iterator[int]:
    """The corpus' tokens, conversation after conversation, again and again."""
    while True:
        for prompt, chosen, rejected in corpus:
            yield from (*prompt, *chosen, *rejected)


def _take(stream: Iterator[int], n: int) -> Tokens:
    return [next(stream) for _ in range(n)]


def _list(data: Data, stream: Iterator[int]) -> Row:
    """One prompt and `k` responses of exact lengths; the first is preferred to the second, the third to the fourth."""
    prompt = _take(stream, data.prompt)
    responses = _distinct(stream, data.k, data.response)
    return {"items": [[prompt, r] for r in responses], "pairs": [[i, i + 1] for i in range(0, data.k, 2)]}


def _distinct(stream: Iterator[int], n: int, length: int) -> list[Tokens]:
    """`n` texts of `length` tokens, no two of which begin alike: what is shared is the prompt."""
    found: dict[int, Tokens] = {}
    while len(found) < n:
        text = _take(stream, length)
        found.setdefault(text[0], text)
    return list(found.values())


def _tree(data: Data, stream: Iterator[int], step: int = 24) -> Row:
    """Steps of an answer: at each depth the first way on is preferred to each of its siblings."""
    items: list[list[Tokens]] = []
    pairs: list[list[int]] = []
    above = [_take(stream, 4 * step)]
    for branches in data.branches:
        below = []
        for context in above:
            first = len(items)
            for text in _distinct(stream, branches, step):
                items.append([context, text])
                below.append(context + text)
            pairs += [[first, first + i] for i in range(1, branches)]
        above = below
    return {"items": items, "pairs": pairs}


def make_rows(data: Data, vocabulary: int, path: Path) -> None:
    """Write rows, steps and counts as JSON; token ids lie over the whole vocabulary, or are folded into a small one."""
    corpus, n_known = _corpus(path.parent / "corpus.json")
    spread = max(1, vocabulary // n_known)

    def ids(tokens: Tokens) -> Tokens:
        return [token % vocabulary * spread for token in tokens]

    rows, steps = rows_of(data, [tuple(ids(part) for part in row) for row in corpus])
    counts = {order: [count([rows[i] for i in step]) for step in found] for order, found in steps.items()}
    path.write_text(json.dumps({"rows": rows, "steps": steps, "counts": counts}))


def make_model(setting: Setting, path: Path) -> None:
    """Write the model of `setting`, with random weights, and the bundled tokenizer to the folder `path`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from unipref.engine import load_tokenizer

    shape = SHAPES[setting.shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    if setting.weights == "bfloat16":
        model = model.to(torch.bfloat16)
    model.save_pretrained(path)
    load_tokenizer("bundled").save_pretrained(path)
