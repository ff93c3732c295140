"""Which prompts belong to the evaluation part: decided by a hash of the conversation, never by a random state."""

import hashlib
import unicodedata

__all__ = ["conversation_key", "is_heldout"]


def conversation_key(first_user_turn: str) -> str:
    """Name of the conversation that starts with `first_user_turn`, whatever its white space and case.

    Two prompts of which one continues the other share their first turn, hence their side of every split; splitting
    by the whole prompt would put a conversation's second turn in training and its third in evaluation.

    Example:
        >>> conversation_key("How  are\\nyou? ") == conversation_key("how are you?")
        True
    """
    return " ".join(unicodedata.normalize("NFKC", first_user_turn).casefold().split())


def is_heldout(key: str, *, share: float, salt: str = "unipref-split-1") -> bool:
    """True where the conversation `key` is in the evaluation part that holds about `share` of all conversations.

    Adding rows, reordering a file or changing a seed moves no conversation, and a larger share contains every
    smaller one.

    Raises:
        ValueError: `share` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"the evaluation share must be in [0, 1): {share}")
    digest = hashlib.sha256(f"{salt}\x00{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share
