"""Where the prompt ends when the data does not say: at a turn or a word boundary, never inside a word."""

import hashlib
import re

from unipref.core.records import Message, Text, plain_text
from unipref.data.report import RowFault

__all__ = [
    "first_user_turn",
    "parse_transcript",
    "rationale_question",
    "shared_length",
    "split_last_turn",
    "split_text",
]

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_UNSPACED = re.compile(  # scripts that write words without spaces between them, a character at a time
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff\u3001\u3002\uff01\uff1f]"
)


def parse_transcript(transcript: str) -> tuple[Message, ...]:
    r"""Turns of an HH-RLHF transcript ("\n\nHuman: ...\n\nAssistant: ..."), their contents stripped.

    Raises:
        RowFault: there is text before the first speaker, a turn is empty, or the last speaker is the human.

    Example:
        >>> [turn.role for turn in parse_transcript("\n\nHuman: Hi\n\nAssistant: Hello")]
        ['user', 'assistant']
    """
    head, *parts = _SPEAKER.split(transcript)
    if head.strip() or not parts:
        raise RowFault("not a transcript", "it does not start with 'Human:' or 'Assistant:'")
    turns = tuple(Message(_ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))
    if turns[-1].role != "assistant":
        raise RowFault("the transcript does not end with an assistant turn")
    if not turns[-1].content:
        raise RowFault("empty response", "the last assistant turn")
    if any(not turn.content for turn in turns):
        raise RowFault("empty turn in the conversation")
    return turns


def split_last_turn(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """(context, response) of a conversation whose last turn is the response.

    Two conversations that part before their last turn so keep a context each: what the user said, or what the
    assistant had said before, is not what the comparison is about.
    """
    return messages[:-1], messages[-1:]


def shared_length(first: str, second: str) -> int:
    """How many characters two texts start with in common."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # halving compares slices, which is far cheaper than characters one by one
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def split_text(first: str, second: str) -> tuple[str, str, str]:
    """(prompt, rest of `first`, rest of `second`): the longest shared start that ends where a word ends in both texts.

    White space before a response belongs to the response, as in the words of a byte-level vocabulary, so
    ``prompt + rest`` is the text, character for character. In scripts without spaces a boundary lies between any two
    characters. Both rests hold more than white space wherever the texts allow it.

    Example:
        >>> split_text("The sky is blue.", "The sky is black.")
        ('The sky is', ' blue.', ' black.')
    """
    cut = min(shared_length(first, second), len(first) - 1, len(second) - 1)
    while cut > 0 and not (
        _boundary(first, cut) and _boundary(second, cut) and first[cut:].strip() and second[cut:].strip()
    ):
        cut -= 1
    cut = max(cut, 0)
    return first[:cut], first[cut:], second[cut:]


def _boundary(text: str, cut: int) -> bool:
    before, after = text[cut - 1], text[cut]
    if before.isspace():
        return False
    return after.isspace() or bool(_UNSPACED.match(before) and _UNSPACED.match(after))


def first_user_turn(context: Text, response: Text) -> str:
    """What names the conversation: its first user turn; the whole prompt of a standard row; the response where
    there is no prompt."""
    if isinstance(context, str):
        if not context.strip():
            return response if isinstance(response, str) else "\n\n".join(message.content for message in response)
        parts = _SPEAKER.split(context)
        return parts[2] if len(parts) > 2 and not parts[0].strip() and parts[1] == "Human" else context
    for message in (*context, *response):
        if message.role == "user":
            return message.content
    return "\n\n".join(message.content for message in (*context, *response))


def rationale_question(context: Text, one: Text, other: Text) -> str:
    """The question that a rationale answers: which of two responses is better, and why.

    The responses stand in the order of their hashes, so the question is the same whichever of them won and their
    places say nothing of it; the code released for arXiv:2407.14477 lists the chosen one first.
    """
    if isinstance(context, str):
        asked = context
    elif len(context) == 1:
        asked = context[0].content
    else:
        asked = "\n\n".join(f"{message.role}: {message.content}" for message in context)
    texts = [plain_text(one), plain_text(other)]
    first, second = sorted(texts, key=lambda text: hashlib.sha256(f"{asked}\x00{text}".encode()).digest())
    return (
        f"Which of two responses to a prompt is better, and why?\n\nPrompt:\n{asked.strip()}\n\n"
        f"Response A:\n{first.strip()}\n\nResponse B:\n{second.strip()}\n\nExplanation:\n"
    )
