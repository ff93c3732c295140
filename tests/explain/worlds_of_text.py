"""Pairs of short texts whose winners follow known habits."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from unipref.core.records import Comparison, Item, Record

WORDS = [f"word{i}" for i in range(60)]
# letters alone and as long as what wins, so that neither digits nor length tell anything
EVEN = ["".join(letters) + "s" * (i % 2) for i, letters in enumerate(product("bdfg", "aeiou", "mnt"))]


def records(
    n: int = 400,
    *,
    seed: int = 0,
    own: dict[str, str] | None = None,
    shared: str = "zap",
    words: Sequence[str] = WORDS,
) -> list[Record]:
    """`n` pairs in each domain: who says `shared` wins nine times in ten everywhere, and in a domain who says its word.

    Args:
        own: domain -> the word that wins there alone. words: that fill the texts; those of WORDS are longer than what
            wins, so that length and digits tell a little, too.
    """
    rng = np.random.default_rng(seed)
    own = {"law": "lex", "food": "ghee"} if own is None else own
    found = []
    for domain, word in own.items():
        for i in range(n):
            texts, utility = [], []
            for _ in range(2):
                has = (rng.random(3) < 0.4).tolist()
                said = [each for each, there in zip((shared, word, "nix"), has, strict=True) if there]
                texts.append(" ".join([*said, *rng.choice(words, 9 - len(said))]))  # all of as many words
                utility.append(2.2 * has[0] + 2.2 * has[1])
            first = rng.random() < 1 / (1 + np.exp(utility[1] - utility[0]))
            winner, loser = (0, 1) if first else (1, 0)
            items = tuple(Item("Ask.", text) for text in texts)
            found.append(
                Record(
                    f"{domain}-{i}", items, (Comparison(winner, loser),), domain=domain, conversation=f"{domain} {i}"
                )
            )
    return found
