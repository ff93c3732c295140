"""A planted world of texts: three people who choose between answers by the words that they like."""

import json

import numpy as np

__all__ = ["LIKES", "rows", "write"]

LIKES = {"ann": "kind", "ben": "brief", "cleo": "precise"}
FILLER = tuple("the answer of a day in the life by the sea with its own small story and more".split())  # noqa: SIM905


def rows(n, seed=0, users=LIKES, domain=None):
    """n rows, users in turn: the chosen answer has the user's word, the other one the word of somebody else."""
    rng = np.random.default_rng(seed)
    names = list(users)
    found = []
    for i in range(n):
        user = names[i % len(names)]
        word = users[user]
        other = rng.choice([each for each in LIKES.values() if each != word])
        texts = [
            " ".join(rng.permutation([*rng.choice(FILLER, size=3), own])) + f" {seed}-{i}-{side}"
            for side, own in enumerate((word, other))
        ]
        found.append({"prompt": f"Question {seed}-{i}?", "chosen": texts[0], "rejected": texts[1], "user": user})
        if domain is not None:
            found[-1]["domain"] = domain(i)
    return found


def write(path, found):
    """A JSON-lines file of `found`; its path as a string."""
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(path)
