"""Examples: a record's trie with what is known of its items, and the batch an objective sees."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError
from unipref.core.records import ROLES, Record
from unipref.core.tries import SHARED, Trie, TrieBatch
from unipref.training.balance import cut

__all__ = ["Example", "assemble", "data_batch", "split_by_tokens"]

_TIED = 0.25  # share of an example's tokens that keeps it with another; a system prompt that all have ties nothing
_ALIKE = 0.8  # of the longest common beginning of a run: one that is shorter than this parts it before others do
_PAIR_COLUMNS = frozenset({"preference", "margin", "chosen", "rejected"})
_ROLE = {role: i for i, role in enumerate(ROLES)}


@dataclass(eq=False)
class Example:
    """One record, ready to train on.

    Attributes:
        record: the text and the facts.
        trie: its tokens.
        ref_logp: reference name -> per item the (len,) float32 log-probabilities of its scored tokens. The first
            reference is named "ref_logp", further ones "ref_logp.NAME".
        mismatched: KTO's other response to this record's context, a record of its own that is only scored.
        tokens: column -> per item the (len,) float32 numbers of its scored tokens ("diff", "segment", ...).
        vectors: column -> (n_items, d) float32, a vector per item ("embedding").
    """

    record: Record
    trie: Trie
    ref_logp: dict[str, list[np.ndarray]] = field(default_factory=dict)
    mismatched: "Example | None" = None
    tokens: dict[str, list[np.ndarray]] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


def split_by_tokens(
    examples: Sequence[Example], max_tokens: int, *, pair_cost: float = 0.0, alike: bool = False, share: bool = True
) -> list[list[Example]]:
    """`examples` in few groups of at most `max_tokens` trie nodes each (a longer one is alone), nearly equal in cost.

    Args:
        pair_cost: of attention between two tokens, where a token itself costs 1 (`ModelShape.pair_cost`).
        alike: examples of similar size share a group, so that little is padded; of no use where tries are run whole.
        share: groups will be packed with common beginnings once. Examples that have a good part of their tokens in
            common stay together then, and count these once.
    """
    tries = [example.trie for example in examples]
    families = [[i] for i in range(len(tries))] if alike or not share else _families(tries, max_tokens)
    sizes, costs = [], []
    for family in families:
        shared = [_in_common(tries[a], tries[b]) for a, b in pairwise(family)]
        sizes.append(sum(tries[i].n_nodes for i in family) - sum(shared))
        pairs = sum(tries[i].n_visible for i in family) - sum(n * (n + 1) // 2 for n in shared)
        costs.append(sizes[-1] + pair_cost * pairs)
    groups = cut(sizes, costs, max_tokens, alike=alike)
    return [[examples[i] for family in group for i in families[family]] for group in groups]


def _families(tries: Sequence[Trie], max_tokens: int) -> list[list[int]]:
    """Runs of `tries`, those that begin alike side by side; each has a good part in common with the one before.

    One that would hold more than `max_tokens` nodes is cut, where least is shared first.
    """
    order = sorted(range(len(tries)), key=lambda i: (tries[i].stem.tobytes(), i))
    shared = [0, *(_in_common(tries[a], tries[b]) for a, b in pairwise(order))]  # with the one before
    tied = [n >= max(SHARED, _TIED * tries[i].n_nodes) for n, i in zip(shared, order, strict=True)]
    sizes = [tries[i].n_nodes for i in order]
    families: list[list[int]] = []
    runs = _cut_before(range(len(order)), [not tie for tie in tied])[::-1]
    while runs:
        run = runs.pop()
        links = [shared[k] for k in run[1:]]
        if sum(sizes[k] for k in run) - sum(links) <= max_tokens:
            families.append([order[k] for k in run])
        elif min(links, default=0) < _ALIKE * max(links, default=0):
            weak = [False, *(n < _ALIKE * max(links) for n in links)]
            runs.extend(_cut_before(run, weak)[::-1])
        else:
            families.extend([order[k] for k in part] for part in _filled(run, sizes, shared, max_tokens))
    return families


def _cut_before(run: Sequence[int], cuts: Sequence[bool]) -> list[list[int]]:
    """`run` in parts, of which each but the first begins where `cuts` says so."""
    parts: list[list[int]] = []
    for k, here in zip(run, cuts, strict=True):
        if here or not parts:
            parts.append([])
        parts[-1].append(k)
    return parts


def _filled(run: Sequence[int], sizes: Sequence[int], shared: Sequence[int], most: int) -> list[list[int]]:
    """`run` in parts of as many as hold `most` nodes together."""
    parts: list[list[int]] = []
    used = 0
    for k in run:
        if parts and used + sizes[k] - shared[k] <= most:
            parts[-1].append(k)
            used += sizes[k] - shared[k]
        else:
            parts.append([k])
            used = sizes[k]
    return parts


def _in_common(one: Trie, other: Trie) -> int:
    """Tokens of the common beginning that a packed batch holds once."""
    a, b = one.stem, other.stem
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    shared = int(differs.argmax()) if differs.any() else n
    return shared if shared >= SHARED else 0


def _labels(record: Record) -> list[float]:
    """1, 0 or NaN per item: what a person said of it, or else its side of a comparison that is no tie."""
    labels = [np.nan if item.label is None else float(item.label) for item in record.items]
    for comparison in record.comparisons:
        if comparison.preference == 0.5:
            continue
        up, down = comparison.winner, comparison.loser
        if comparison.preference < 0.5:
            up, down = down, up
        labels[up] = 1.0 if np.isnan(labels[up]) else labels[up]
        labels[down] = 0.0 if np.isnan(labels[down]) else labels[down]
    return labels


def data_batch(
    examples: Sequence[Example],
    *,
    columns: Iterable[str] = (),
    tokens: Iterable[str] = (),
    clock: Clock | None = None,
) -> Batch:
    """What the data alone says of `examples`: everything of the batch but the policy's columns.

    Args:
        columns: item columns that the objective asks for ("reward", "rank", "embedding", ...); missing values are NaN.
        tokens: token columns that the objective asks for, of `Example.tokens`.

    Raises:
        ConfigError: a column is on no item of any example.
    """
    items: dict[str, torch.Tensor] = {
        "len": torch.tensor([len(nodes) for e in examples for nodes in e.trie.scored], dtype=torch.float32),
        "label": torch.tensor([label for e in examples for label in _labels(e.record)], dtype=torch.float32),
        "weight": torch.tensor([e.record.weight for e in examples for _ in e.record.items], dtype=torch.float32),
        "group": torch.tensor([g for g, e in enumerate(examples) for _ in e.record.items], dtype=torch.int64),
        "role": torch.tensor([_ROLE[item.role] for e in examples for item in e.record.items], dtype=torch.int64),
    }
    for name in sorted(set(columns) - set(items) - _PAIR_COLUMNS):
        items[name] = _item_column(examples, name)
    token_columns: dict[str, torch.Tensor] = {}
    for name in sorted(tokens):
        values = [per_item for e in examples for per_item in e.tokens[name]]
        token_columns[name] = torch.from_numpy(np.concatenate(values).astype(np.float32))
    for name in examples[0].ref_logp if examples else ():
        per_token = np.concatenate([values for e in examples for values in e.ref_logp[name]])
        token_columns[name] = torch.from_numpy(per_token)
        sums = [float(values.sum(dtype=np.float64)) for e in examples for values in e.ref_logp[name]]
        items[name] = torch.tensor(sums, dtype=torch.float32)

    if token_columns:
        token_columns["item"] = torch.repeat_interleave(items["len"].long())
    start = np.cumsum([0, *(len(e.record.items) for e in examples)])
    rows = [
        (int(s) + c.winner, int(s) + c.loser, c.preference, np.nan if c.margin is None else c.margin, e.record.weight)
        for e, s in zip(examples, start, strict=False)
        for c in e.record.comparisons
    ]
    pairs: dict[str, torch.Tensor] = {}
    if rows:
        winner, loser, preference, margin, weight = zip(*rows, strict=True)
        pairs = {
            "chosen": torch.tensor(winner),
            "rejected": torch.tensor(loser),
            "preference": torch.tensor(preference, dtype=torch.float32),
            "margin": torch.tensor(margin, dtype=torch.float32),
            "weight": torch.tensor(weight, dtype=torch.float32),
        }
    return Batch(items=items, pairs=pairs, tokens=token_columns, clock=clock or Clock())


def _item_column(examples: Sequence[Example], name: str) -> torch.Tensor:
    """(I,) or (I, d): what is known of every item under `name`; NaN where nothing is."""
    if any(name in e.vectors for e in examples):
        return torch.from_numpy(np.concatenate([e.vectors[name] for e in examples]).astype(np.float32))
    items = [item for e in examples for item in e.record.items]
    if name == "rank":
        ranks = [np.nan if item.rank is None else item.rank for item in items]
        return torch.tensor(ranks, dtype=torch.float32)
    if name == "uid":  # the same in whatever batch the item comes
        return torch.tensor([_uid(e.record.id, i) for e in examples for i in range(len(e.record.items))])
    return torch.tensor([item.columns.get(name, np.nan) for item in items], dtype=torch.float32)


def _uid(record_id: str, item: int) -> int:
    digest = hashlib.blake2b(f"{item} {record_id}".encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def assemble(
    data: Batch,
    tries: TrieBatch,
    logp_T: torch.Tensor | None,
    heads: Mapping[str, torch.Tensor],
    tokens: Mapping[str, torch.Tensor] | None = None,
    **further: torch.Tensor,
) -> Batch:
    """`data` with the policy's values: token and item log-probabilities and head outputs, on the policy's device.

    Args:
        logp_T: (T,) aligned with `tries.scored`, or None where nobody asked: the items' log-probabilities are NaN then.
        heads: head name -> (I,) or (I, d).
        tokens: what the engine gives per token besides, name -> (T,).
        further: live references, name -> (T,).

    Raises:
        ConfigError: a name is a column of the data already.
    """
    device = tries.token.device

    def total(values_T: torch.Tensor) -> torch.Tensor:
        return values_T.new_zeros(tries.n_items).index_add(0, tries.scored_item, values_T)

    unknown = torch.full((tries.n_items,), torch.nan, device=device)
    new = {
        "logp": unknown if logp_T is None else total(logp_T),
        **{name: total(value) for name, value in further.items()},
        **heads,
    }
    clash = sorted(set(new) & set(data.items))
    if clash:
        raise ConfigError(f"the data brings columns that the model computes: {', '.join(clash)}; rename or drop them")
    return Batch(
        items={**{name: value.to(device) for name, value in data.items.items()}, **new},
        pairs={name: value.to(device) for name, value in data.pairs.items()},
        tokens={
            **{name: value.to(device) for name, value in data.tokens.items()},
            **further,
            **(tokens or {}),
            **({} if logp_T is None else {"logp": logp_T}),
            "item": tries.scored_item,
        },
        statistics={name: value.to(device) for name, value in data.statistics.items()},
        clock=data.clock,
    )
