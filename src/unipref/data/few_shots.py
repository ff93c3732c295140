"""Labelled pairs of one user as words before a question, for models that learn a taste from their prompt."""

import random
from collections.abc import Sequence

__all__ = ["Shot", "draw_shots", "few_shot_words"]

Shot = tuple[str, str, str, str]  # conversation, prompt, preferred response, the other one

_BEFORE = "What this user preferred before:"
_AFTER = "Answer what follows as this user prefers.\n"


def few_shot_words(shots: Sequence[Shot]) -> str:
    """The examples as text, in their order; "" of none."""
    if not shots:
        return ""
    told = [f"Question: {prompt}\nPreferred: {better}\nNot preferred: {worse}" for _, prompt, better, worse in shots]
    return "\n\n".join([_BEFORE, *told, _AFTER])


def draw_shots(shots: Sequence[Shot], conversation: str, n: int, seed: str) -> list[Shot]:
    """`n` of a user's `shots`, in an order drawn by `seed`, none of them from `conversation`; fewer where there are
    fewer.

    So the pair that is asked about is never among its own examples, nor is another pair of responses to its prompt,
    whose verdict would give it away.
    """
    others = sorted(shot for shot in shots if shot[0] != conversation)  # the order of a file does not matter
    return random.Random(seed).sample(others, min(n, len(others)))
