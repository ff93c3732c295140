"""What all parts of a dry run share: the clock, the meters, and how fast forwards and the disk are here."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.tries import Trie
from unipref.engine import Policy, score
from unipref.recipes._meters import Ledger, Peak, Peek, now
from unipref.recipes._run import RunData
from unipref.recipes._work import (
    FORWARD,
    CostModel,
    ModelShape,
    TrieSize,
    work_of,
)
from unipref.recipes.config import Recipe
from unipref.store import tokens_key
from unipref.training import Example, autocast

__all__ = ["TIMED_TEXTS", "Bench", "keys_of", "make_up", "sizes_of"]

TIMED_TEXTS = 8  # that a scorer with a model is timed on
STORE_ROW = 70  # of the score store's table, beside the float32 numbers


class Bench:
    """What all parts of one estimate share."""

    def __init__(self, recipe: Recipe, folder: Path, resume: bool, scratch: Path, clock: Callable[[], float]) -> None:
        self.recipe, self.folder, self.resume, self.scratch, self.clock = recipe, folder, resume, scratch, clock
        self.peek = Peek(folder.parent / ".scores")
        self.ledger = Ledger(self.peek, row=STORE_ROW)
        self.peak = Peak()
        self.available = self.peak.available()
        self.forward: dict[str, CostModel] = {}
        self.notes: list[str] = []
        self._speed: float | None = None

    def timed(self, call: Callable[[], Any]) -> tuple[Any, float]:
        """What `call` returns, and its seconds."""
        began = now(self.clock)
        found = call()
        return found, now(self.clock) - began

    def forward_model(
        self, name: str, shape: ModelShape, policy: Policy, tries: Sequence[Trie], precision: str, budget: int
    ) -> CostModel:
        """Seconds of forwards without gradient, of which a large and a small one are timed once for each `name`."""
        if name in self.forward:
            return self.forward[name]
        order = sorted(tries, key=lambda trie: -trie.n_nodes)
        n_large = max(1, int(np.searchsorted(np.cumsum([t.n_nodes for t in order]), budget, side="right")))
        middle = order[len(order) // 2 :]
        works, seconds = [], []
        for some in (middle[:2], order[:n_large], middle[: max(1, n_large // 4)]):
            with autocast(policy.device, precision):
                _, took = self.timed(lambda some=some: score(policy, some, max_tokens=budget))
            works.append(work_of(shape, [[TrieSize.of(trie) for trie in some]], FORWARD, path=policy.path))
            seconds.append(took)
        self.forward[name] = CostModel.fit(works[1:], seconds[1:])  # the first warms up
        return self.forward[name]

    def writing(self, n_bytes: float) -> float:
        """Seconds to write as much, at the speed with which 32 MB were written just now."""
        if self._speed is None:
            block = os.urandom(2**20) * 32
            path = self.scratch / "speed"
            self._speed = len(block) / max(self.timed(lambda: path.write_bytes(block))[1], 1e-6)
            path.unlink()
        return n_bytes / self._speed

    def slow_scoring(self, data: RunData) -> float:
        """Seconds of scorers that run a model, which reading the data left out."""
        scorers = {} if data.designer is None else {part.name: part.scorer for part in data.designer.parts}
        measured = data.designer is not None and any(part.normalise != "none" for part in data.designer.parts)
        sampled = set() if measured else set(scorers)
        scorers |= {} if data.judges is None else data.judges.scorers
        items = [item for record in data.train[:TIMED_TEXTS] for item in record.items][:TIMED_TEXTS]
        contexts, responses = [item.context for item in items], [item.response for item in items]
        seconds = 0.0
        for name, scorer in scorers.items():
            lacking = self.peek.lacking.get(scorer.name, 0)
            if name in sampled:  # of streamed rows; where something normalises, all were looked up
                lacking = round(lacking * data.n_train / max(len(data.train), 1))
            if lacking:
                scorer.score(contexts[:1], responses[:1])  # loads the model
                _, took = self.timed(lambda scorer=scorer: scorer.score(contexts, responses))
                seconds += took / len(items) * lacking
                self.notes.append(
                    f"{name}: {lacking:,} texts are not scored yet; {len(items)} were, and the rest are taken to "
                    "be like them."
                )
        return seconds


def make_up(examples: Sequence[Example], column: str) -> None:
    """Give `examples` log-probabilities under a name; they are random numbers."""
    draw = np.random.default_rng(len(column))
    for example in examples:
        lengths = [len(nodes) for nodes in example.trie.scored]
        example.ref_logp[column] = [draw.normal(-2, 1, length).astype(np.float32) for length in lengths]


def sizes_of(examples: Sequence[Example]) -> list[TrieSize]:
    return [TrieSize.of(example.trie) for example in examples]


def keys_of(trie: Trie) -> list[bytes]:
    """What the score store knows the items of `trie` by."""
    found = []
    for item, nodes in enumerate(trie.scored):
        tokens = trie.token[trie.path(item)]
        cut = len(tokens) - len(nodes)
        found.append(tokens_key(tokens[:cut], tokens[cut:]))
    return found
