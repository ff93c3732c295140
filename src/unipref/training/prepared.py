"""Examples of data that do not fit in memory: each is made when it is asked for, from files that are mapped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from unipref.core.errors import ConfigError
from unipref.core.records import Item, Record
from unipref.core.tries import Trie, build_trie, prompt_key
from unipref.data.operators import strangers
from unipref.training.examples import Example

__all__ = ["Known", "Mismatched", "PreparedExamples", "Rows", "known_of", "pairs_of", "prompts_of", "sizes_of"]

DRAW = 2  # version of the draw of strangers, so that what a store holds of another draw's rows is not served


@dataclass(frozen=True)
class Known:
    """What examples have, all together: what a trainer must know of them before the first step.

    Attributes:
        columns: of items, that some item has, "rank" among them; of vectors too.
        tokens: columns per token that every example has.
        references: columns of log-probabilities that are cached.
        roles: of items.
        compares: some record holds a comparison; `lists`: some record holds two responses.
        mismatched: every example has a mismatched response.
        degrees: the highest of the column "degree", -1 without one.
    """

    columns: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    compares: bool = False
    lists: bool = False
    mismatched: bool = False
    degrees: int = -1

    @classmethod
    def of_records(cls, records: Iterable[Record]) -> "Known":
        """What the facts of `records` say; of no token, reference or vector."""
        columns: set[str] = set()
        roles: set[str] = set()
        compares = lists = False
        degrees = -1
        for record in records:
            compares = compares or bool(record.comparisons)
            lists = lists or sum(item.role == "response" for item in record.items) > 1
            for item in record.items:
                roles.add(item.role)
                columns.update(item.columns)
                if item.rank is not None:
                    columns.add("rank")
                if item.columns.get("degree", -1) > degrees:
                    degrees = int(item.columns["degree"])
        return cls(frozenset(columns), roles=frozenset(roles), compares=compares, lists=lists, degrees=degrees)

    def joined(self, other: "Known") -> "Known":
        """What the records of both have, of facts alone."""
        return Known(
            self.columns | other.columns,
            roles=self.roles | other.roles,
            compares=self.compares or other.compares,
            lists=self.lists or other.lists,
            degrees=max(self.degrees, other.degrees),
        )

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return {
            "columns": sorted(self.columns),
            "roles": sorted(self.roles),
            "compares": self.compares,
            "lists": self.lists,
            "degrees": self.degrees,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Known":
        """What `to_dict` wrote."""
        sets = {name: frozenset(values[name]) for name in ("columns", "roles")}
        return cls(**{**values, **sets})


def known_of(examples: Sequence[Example]) -> Known:
    """What `examples` have; a sequence that can say so is asked, and others are looked at one by one."""
    known = getattr(examples, "known", None)
    if known is not None:
        return known
    facts = Known.of_records(example.record for example in examples)
    some = examples[0] if len(examples) else None
    tokens = None if some is None else frozenset(some.tokens)
    for example in examples:
        tokens &= frozenset(example.tokens)
    return Known(
        facts.columns.union(*(example.vectors for example in examples)),
        tokens or frozenset(),
        frozenset() if some is None else frozenset(some.ref_logp),
        facts.roles,
        facts.compares,
        facts.lists,
        all(example.mismatched is not None for example in examples),
        facts.degrees,
    )


def sizes_of(examples: Sequence[Example]) -> np.ndarray:
    """(n,) trie nodes of each of `examples`, without making those that are not in memory."""
    sizes = getattr(examples, "sizes", None)
    return np.array([example.trie.n_nodes for example in examples]) if sizes is None else np.asarray(sizes)


def pairs_of(examples: Sequence[Example]) -> np.ndarray:
    """(n,) pairs of tokens of which one sees the other, of each of `examples`."""
    costs = getattr(examples, "costs", None)
    return np.array([example.trie.n_visible for example in examples]) if costs is None else np.asarray(costs)


def prompts_of(examples: Sequence[Example]) -> np.ndarray:
    """(n,) int64, equal for rows of one conversation or, where none is named, of one prompt's tokens."""
    prompts = getattr(examples, "prompt", None)
    if prompts is None:
        return np.array([prompt_key(e.trie, e.record.conversation) for e in examples], dtype=np.int64)
    return np.asarray(prompts)


class Rows(Protocol):
    """The part of `unipref.data.prepared.Prepared` that is used here; `digest` differs where the tries do."""

    sizes: np.ndarray
    costs: np.ndarray
    prompt: np.ndarray
    n_scored: np.ndarray
    digest: str

    def __len__(self) -> int: ...

    def trie(self, i: int) -> Trie: ...

    def facts(self, i: int) -> Record: ...


class Values(Protocol):
    """The part of `unipref.store.Column` that is used here."""

    def values(self, row: int) -> np.ndarray: ...


@dataclass(eq=False)
class PreparedExamples(Sequence[Example]):
    """The examples of prepared data, one made at each access and none kept.

    What a model says of them lies in columns beside them (`add_reference`), never in the examples: what is written into
    one that was handed out is lost with it.

    Args:
        data: tries and facts by row.
        facts: what the rows have (`Known.of_records`); None goes through all of them once.
        tokens: columns per token that `data` holds.
        mismatched: for KTO's reference point, per row another record that is only scored.

    Attributes:
        references: column of log-probabilities -> its numbers by row, or several with the weights they are mixed by.
    """

    data: Rows
    facts: Known | None = None
    tokens: Sequence[str] = ()
    mismatched: "PreparedExamples | None" = None
    references: dict[str, list[tuple[float | None, Values]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.facts is None:
            self.facts = Known.of_records(self.data.facts(i) for i in range(len(self)))
        if self.mismatched is not None and len(self.mismatched) != len(self):
            raise ConfigError(f"{len(self)} rows have {len(self.mismatched)} mismatched ones; there must be one each")

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, row: int) -> Example:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = int(row)
        if not -len(self) <= row < len(self):
            raise IndexError(f"there are {len(self)} examples, and no number {row}")
        row %= len(self)
        trie = self.data.trie(row)
        ends = np.cumsum([len(scored) for scored in trie.scored])[:-1]
        return Example(
            self.data.facts(row),
            trie,
            ref_logp={name: np.split(self._reference(name, row), ends) for name in self.references},
            mismatched=None if self.mismatched is None else self.mismatched[row],
            tokens={name: np.split(self.data.tokens(row, name), ends) for name in self.tokens},
        )

    def _reference(self, name: str, row: int) -> np.ndarray:
        parts = self.references[name]
        if parts[0][0] is None:
            return parts[0][1].values(row)
        return sum(weight * column.values(row) for weight, column in parts).astype(np.float32)

    @property
    def known(self) -> Known:
        """What the examples have, all together."""
        others = self.mismatched
        return Known(
            self.facts.columns,
            frozenset(self.tokens),
            frozenset(self.references),
            self.facts.roles,
            self.facts.compares,
            self.facts.lists,
            others is not None,
            self.facts.degrees,
        )

    @property
    def sizes(self) -> np.ndarray:
        """(n,) trie nodes of each."""
        return self.data.sizes

    @property
    def costs(self) -> np.ndarray:
        """(n,) pairs of tokens of which one sees the other."""
        return self.data.costs

    @property
    def prompt(self) -> np.ndarray:
        """(n,) a number that rows of one prompt share."""
        return self.data.prompt

    def add_reference(self, name: str, column: Values) -> None:
        """Let the examples have the log-probabilities `name` of `column`."""
        self.references[name] = [(None, column)]

    def mix_references(self, name: str, weights: Mapping[str, float]) -> None:
        """Put one column `name` in the place of several: their weighted sum."""
        self.references[name] = [(weight, self.references.pop(part)[0][1]) for part, weight in weights.items()]


class Mismatched:
    """Rows for KTO's reference point: each row's first context with the responses of another prompt's row.

    They are made of tokens that are there already, fixed by the seed alone, and each row's responses are used once,
    unless one prompt holds more than half of the rows: then the responses of the others are drawn with replacement.
    Rows with one response each have the strangers that they have in memory (`unipref.data.mismatch`), as far as
    `data.prompt` tells the same prompts apart: it counts a conversation as one.

    A context is cut at its start where both together are too long. Two responses' tokens are put behind each other's
    context as they are; a tokenizer that would join the words at the seam is not asked again.

    Args:
        data: rows whose items are responses to one context each.
        max_length: tokens of context and response together.
        bos: kept where a context that begins with it is cut.

    Raises:
        DataError: fewer than two different prompts, so that no response is a stranger's.
    """

    def __init__(self, data: Rows, *, seed: int, max_length: int | None = None, bos: int | None = None) -> None:
        self.data, self.max_length, self.bos = data, max_length, bos
        self.donor = strangers(np.asarray(data.prompt), seed=seed)
        self.digest = f"{data.digest}, responses of others: {DRAW}, {seed}, {max_length}, {bos}"

    def __len__(self) -> int:
        return len(self.data)

    @property
    def n_scored(self) -> np.ndarray:
        """(n,) scored tokens of each."""
        return np.asarray(self.data.n_scored)[self.donor]

    def trie(self, i: int) -> Trie:
        """The tokens of row `i`."""
        own, other = self.data.trie(i), self.data.trie(int(self.donor[i]))
        path = own.path(0)
        context = own.token[path[: len(path) - len(own.scored[0])]]
        responses = [other.token[scored] for scored in other.scored]
        longest = max(map(len, responses))
        if self.max_length is not None and len(context) + longest > self.max_length:
            n = max(self.max_length - longest, 1)
            context = (
                np.concatenate([context[:1], context[len(context) - n + 1 :]])
                if context[0] == self.bos
                else (context[-n:])
            )
        return build_trie([(context, response) for response in responses])

    def facts(self, i: int) -> Record:
        """What is known of row `i`: its responses are nobody's, and have its own weight."""
        own, other = self.data.facts(i), self.data.facts(int(self.donor[i]))
        return replace(own, id=f"{own.id}~", items=tuple(Item("", "") for _ in other.items), comparisons=())
