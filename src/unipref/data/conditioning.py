"""Words put before a prompt: a goal, a direction, a condition, a preference in plain language."""

from unipref.core.errors import ConfigError
from unipref.core.records import Message, Text

__all__ = ["PLACES", "put_before"]

PLACES = ("system", "user")


def put_before(context: Text, words: str, *, where: str = "system") -> Text:
    """`context` with `words` before it; without words it is the context itself, character for character.

    A conversation gets them as its system message ("system"; above the words of one that is there) or at the start of
    its last user turn ("user"); a text starts with them. A line break stands between them and what follows.

    Raises:
        ConfigError: there is no such place, or the conversation has no user turn to put them in.

    Example:
        >>> put_before("Tell me more.", "Be brief.")
        'Be brief.\\nTell me more.'
    """
    if where not in PLACES:
        raise ConfigError(f"words stand in the 'system' message or the 'user' turn, not in {where!r}")
    if not words:
        return context
    if isinstance(context, str):
        return f"{words}\n{context}"
    if where == "user":
        turns = [i for i, message in enumerate(context) if message.role == "user"]
        if not turns:
            raise ConfigError("a conversation without a user turn takes no words there; use where='system'")
        at = turns[-1]
        return (*context[:at], Message("user", f"{words}\n{context[at].content}"), *context[at + 1 :])
    if context and context[0].role == "system":
        return (Message("system", f"{words}\n{context[0].content}"), *context[1:])
    return (Message("system", words), *context)
