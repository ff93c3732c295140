"""What several stages of one process share: the loaded model and the tokenised records, each made once."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from unipref.core.records import Record
from unipref.data import DataReport
from unipref.engine import Policy
from unipref.training import Example

__all__ = ["Workbench"]

MOST_LISTS = 8  # of tokenised records that are held; the one not asked for longest goes first

Encoded = tuple[list[Example], DataReport]


class Workbench:
    """Hands out tokenizers, policies and examples; with `keep` one that was made before serves again.

    What is handed out is the stage's own to train and to fill: policies are copies, and examples share their records
    and tries alone.

    Args:
        keep: hold what was made. Costs the memory of one untrained model per starting point.

    Attributes:
        tokenised, reused: records that were tokenised, and records that were found tokenised.
        tokens: trie nodes that went through policies from here.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.tokenised = self.reused = self.tokens = 0
        self._tokenizers: dict[str, Any] = {}
        self._policies: dict[str, Policy] = {}
        self._lists: OrderedDict[int, tuple[Hashable, list[Record], Encoded]] = OrderedDict()
        self._made = 0

    def tokenizer(self, start: Any, load: Callable[[], Any]) -> Any:
        """The tokenizer of the model `start`, which `load` gives."""
        if str(start) not in self._tokenizers:
            self._tokenizers[str(start)] = load()
        return self._tokenizers[str(start)]

    def policy(self, start: Any, load: Callable[[], Policy], *, same: bool = True) -> Policy:
        """A policy with the weights of `start`, as `load` gives it, without heads, the caller's own.

        Args:
            same: every call of `load` gives the same. Fresh adapters differ by seed and are never kept.
        """
        policy = copy.deepcopy(self.untrained(start, load)) if self.keep and same else load()
        policy.register_forward_pre_hook(self._count)
        return policy

    def _count(self, policy: Policy, given: tuple[Any, ...]) -> None:
        self.tokens += len(given[0].token)

    def untrained(self, start: Any, load: Callable[[], Policy]) -> Policy:
        """The policy that `policy` gives copies of; not to be changed."""
        if not self.keep:
            return load()
        if str(start) not in self._policies:
            self._policies[str(start)] = load()
        return self._policies[str(start)]

    def examples(self, records: Sequence[Record], settings: Hashable, encode: Callable[[], Encoded]) -> Encoded:
        """What `encode` makes of `records`; lists of equal records under equal settings are encoded once.

        Args:
            settings: all that decides the encoding besides the records.
        """
        for number, (other, kept, found) in self._lists.items():
            if other == settings and len(kept) == len(records) and kept == list(records):
                self._lists.move_to_end(number)
                self.reused += len(records)
                return _fresh(found)
        found = encode()
        self.tokenised += len(records)
        if not self.keep:
            return found
        self._made += 1
        self._lists[self._made] = (settings, list(records), found)
        if len(self._lists) > MOST_LISTS:
            self._lists.popitem(last=False)
        return _fresh(found)


def _fresh(found: Encoded) -> Encoded:
    """The same without what models will say of them."""
    examples, report = found
    return [_bare(example) for example in examples], report


def _bare(example: Example) -> Example:
    mismatched = None if example.mismatched is None else _bare(example.mismatched)
    return Example(example.record, example.trie, mismatched=mismatched, tokens=dict(example.tokens))
