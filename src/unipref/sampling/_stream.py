"""One response, shown while it is drawn: the tokens that `generate` draws, and text that never splits a character."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from unipref.core.errors import ConfigError
from unipref.sampling._generate import (
    Sample,
    _end_tokens,
    _generate_batch,
    _inner,
    _plain_generation,
    _sample,
    _uniform_row,
    check_settings,
)

__all__ = ["printable", "stream"]

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a byte of a character, in vocabularies made by SentencePiece
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character are decoded to
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_CONTROLS |= {127: 0x2421, **dict.fromkeys(range(128, 160), ord(_UNFINISHED))}
# what turns the direction of the text that follows, so that it reads as something else
_CONTROLS |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), ord(_UNFINISHED))


def stream(
    model: Any,
    tokenizer: Any,
    context_ids: Sequence[int],
    *,
    show: Callable[[str], None],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    nth: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Sample:
    """A response to one context, `show`n piece by piece as it is drawn.

    The tokens are those that `generate` draws for this context alone, from the same random numbers, and the pieces
    joined are the text. A piece ends where a character does: bytes of one that is not whole yet wait for the rest.
    What the model has computed for earlier tokens is kept and not computed again.

    Args:
        show: called with each piece of text, never an empty one, as soon as it is known.
        nth: which draw of this context, counted from 0; `generate` gives a context that it meets again the next one.
        stop: asked after every token; True ends the response there, and what was drawn comes back.

    Raises:
        ConfigError: an argument is out of range, the context is empty, or neither model nor tokenizer has an end token.
    """
    check_settings(max_new_tokens, temperature, top_p)
    if len(context_ids) == 0:
        raise ConfigError("the context has no tokens; start it with the tokenizer's first token or a prompt")
    inner = _inner(model)
    stops = _end_tokens(inner, tokenizer)
    uniforms = _uniform_row(tuple(int(i) for i in context_ids), max_new_tokens, seed, nth)[None]
    pieces = _Pieces(tokenizer, show)
    further: dict[str, Any] = {"streamer": pieces}
    if stop is not None:
        from transformers import StoppingCriteriaList

        further["stopping_criteria"] = StoppingCriteriaList([_Asked(stop)])
    with _plain_generation(inner), torch.no_grad():
        (ids,) = _generate_batch(inner, [context_ids], uniforms, stops, max_new_tokens, temperature, top_p, **further)
    return _sample(ids, tokenizer, stops)


def printable(text: str) -> str:
    """`text` safe to show in a terminal: control characters, which could move the cursor or hide text, made visible.

    Line breaks and tabs stay.

    Example:
        >>> printable("a" + chr(27) + "[31mb")
        'a␛[31mb'
    """
    return text.translate(_CONTROLS)


class _Pieces:
    """What transformers' `generate` tells of each token, as text; the first call brings the context."""

    def __init__(self, tokenizer: Any, show: Callable[[str], None]) -> None:
        self.tokenizer, self.show = tokenizer, show
        self.ids: list[int] | None = None
        # A token may be written differently at the start of a text, so the last one shown is decoded along.
        self.before = self.shown = 0
        self.text = ""

    def put(self, ids: torch.Tensor) -> None:
        if self.ids is None:
            self.ids = []
            return
        self.ids += ids.flatten().tolist()
        known = self._decode(self.ids[self.before : self.shown])
        text = self._decode(self.ids[self.before :])
        if len(text) <= len(known) or text.endswith(_UNFINISHED) or self._ends_in_a_byte():
            return
        self._give(text[len(known) :])
        self.before, self.shown = self.shown, len(self.ids)

    def end(self) -> None:
        """Show what waits: bytes that never became a character."""
        self._give(self._decode(self.ids or [])[len(self.text) :])

    def _ends_in_a_byte(self) -> bool:
        return bool(_BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(self.ids[-1]) or ""))

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True) if ids else ""

    def _give(self, piece: str) -> None:
        if piece:
            self.text += piece
            self.show(piece)


class _Asked:
    """A criterion of transformers' `generate`: the caller wants the response to end."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stop(), dtype=torch.bool, device=input_ids.device)
