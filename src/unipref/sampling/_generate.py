"""Sampling that gives each prompt the same text whatever else is in its batch."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unipref.core.errors import ConfigError

__all__ = ["Sample", "check_settings", "generate"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One drawn response.

    Attributes:
        ids: its tokens, the end token included where one was drawn; what a log-probability of it is taken over.
        text: the tokens as text, without special tokens.
        stopped: the model ended the response itself; False where `max_new_tokens` did.
    """

    ids: tuple[int, ...]
    text: str
    stopped: bool


def generate(
    model: Any,
    tokenizer: Any,
    contexts_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_tokens: int = 16_384,
    progress: Callable[[int], None] | None = None,
) -> list[Sample]:
    """One response per context, in the order of the contexts.

    Each context has random numbers of its own, made from `seed`, its tokens and how often it occurred before, one
    per position, and a token is read off the cumulative distribution at that number. So a response depends on the
    other contexts only through rounding (padding and batch shape change log-probs in the last digits; in float64 we
    saw no change), and two models that differ little give mostly the same text to the same prompt: what makes a
    comparison before and after training a paired one.

    Runs without gradient, in evaluation mode, and leaves every module in the mode it was in. The generation settings
    shipped with a model (penalties, its own temperature) are not used; its end tokens are.

    Args:
        model: a transformers causal language model, or a peft model around one.
        tokenizer: gives the end and padding token and turns tokens into text.
        contexts_ids: each at least one token.
        temperature: 0 takes the likeliest token.
        top_p: draw from the fewest tokens that hold this probability, in (0, 1].
        batch_tokens: at most this many positions per batch, padding and new tokens included; one row at least.
        progress: called with the number of responses just finished.

    Raises:
        ConfigError: an argument is out of range, a context is empty, or neither model nor tokenizer has an end token.
    """
    check_settings(max_new_tokens, temperature, top_p)
    empty = [i for i, ids in enumerate(contexts_ids) if len(ids) == 0]
    if empty:
        raise ConfigError(f"context {empty[0]} has no tokens; start it with the tokenizer's first token or a prompt")
    inner = _inner(model)
    stops = _end_tokens(inner, tokenizer)
    uniforms = _uniforms(contexts_ids, max_new_tokens, seed)
    samples: list[Sample | None] = [None] * len(contexts_ids)
    with _plain_generation(inner), torch.no_grad():
        for rows in _batches([len(ids) for ids in contexts_ids], max_new_tokens, batch_tokens):
            drawn = _generate_batch(
                inner, [contexts_ids[i] for i in rows], uniforms[rows], stops, max_new_tokens, temperature, top_p
            )
            for row, ids in zip(rows, drawn, strict=True):
                samples[row] = _sample(ids, tokenizer, stops)
            if progress is not None:
                progress(len(rows))
    return samples


def check_settings(max_new_tokens: int, temperature: float, top_p: float) -> None:
    """Raise ConfigError where a setting of a draw is out of range; `generate` says which range."""
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature must be at least 0 (0 takes the likeliest token), got {temperature}")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p must be in (0, 1], got {top_p}")


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _sample(ids: Sequence[int], tokenizer: Any, stops: Sequence[int]) -> Sample:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Sample(tuple(ids), text, bool(ids) and ids[-1] in stops)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if tokenizer.eos_token_id is not None:
        ends = [*ends, tokenizer.eos_token_id]
    if not ends:
        raise ConfigError("neither the model nor the tokenizer has an end token; set tokenizer.eos_token")
    return sorted(set(ends))


def _uniforms(contexts_ids: Sequence[Sequence[int]], length: int, seed: int) -> np.ndarray:
    """(contexts, length) numbers in [0, 1), a row made from the seed, the context and its earlier occurrences."""
    seen: dict[tuple[int, ...], int] = {}
    rows = []
    for ids in contexts_ids:
        key = tuple(int(i) for i in ids)
        seen[key] = seen.get(key, -1) + 1
        rows.append(_uniform_row(key, length, seed, seen[key]))
    return np.stack(rows) if rows else np.zeros((0, length))


def _uniform_row(context: tuple[int, ...], length: int, seed: int, nth: int) -> np.ndarray:
    """(length,) the numbers of the draw that comes `nth`, counted from 0, of `context`; a shorter one starts it."""
    digest = hashlib.sha256(repr((seed, nth, context)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big")).random(length)


def _batches(lengths: Sequence[int], max_new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Rows of similar length together, the longest first: a batch that does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // (lengths[order[start]] + max_new_tokens))
        yield order[start : start + rows]
        start += rows


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Evaluation mode and empty generation settings, both put back."""
    from transformers import GenerationConfig

    modes = {module: module.training for module in model.modules()}
    settings = model.generation_config
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = settings
        for module, mode in modes.items():
            module.training = mode


def _generate_batch(
    model: Any,
    contexts: Sequence[Sequence[int]],
    uniforms: np.ndarray,
    stops: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    **further: Any,
) -> list[list[int]]:
    """Per context the tokens drawn; `further` goes to transformers' own `generate`, such as a streamer."""
    from transformers import GenerationConfig, LogitsProcessorList

    width = max(len(ids) for ids in contexts)
    ids = torch.full((len(contexts), width), stops[0], dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, context in enumerate(contexts):
        ids[row, width - len(context) :] = torch.as_tensor(list(context))
        mask[row, width - len(context) :] = 1
    device = model.get_input_embeddings().weight.device
    draw = [_Draw(torch.as_tensor(uniforms, device=device), width, temperature, top_p)] if temperature > 0 else []
    out = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        logits_processor=LogitsProcessorList(draw),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stops),
            pad_token_id=stops[0],
            use_cache=True,
        ),
        **further,
    )
    return [_until_end(row, stops) for row in out[:, width:].tolist()]


def _until_end(ids: list[int], stops: Sequence[int]) -> list[int]:
    ends = [i for i, token in enumerate(ids) if token in stops]
    return ids[: ends[0] + 1] if ends else ids


class _Draw:
    """Leaves the drawn token as the only one: a logits processor for `generate` without its own sampling."""

    def __init__(self, uniforms_BS: Tensor, width: int, temperature: float, top_p: float) -> None:
        self.uniforms_BS, self.width, self.temperature, self.top_p = uniforms_BS, width, temperature, top_p

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        uniform_B = self.uniforms_BS[:, input_ids.shape[1] - self.width]
        # float32 sums over a large vocabulary would lose the tail
        probabilities_BV = torch.softmax(scores_BV.double() / self.temperature, dim=-1)
        if self.top_p < 1:
            ordered_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
            before_BV = ordered_BV.cumsum(-1) - ordered_BV
            ordered_BV = ordered_BV.masked_fill(before_BV >= self.top_p, 0.0)
            probabilities_BV = torch.zeros_like(probabilities_BV).scatter(-1, order_BV, ordered_BV)
        heights_BV = probabilities_BV.cumsum(-1)
        # scaled by the total, a uniform below 1 stays below the last height: a token of probability 0 is never drawn
        point_B1 = (uniform_B * heights_BV[:, -1]).unsqueeze(-1)
        token_B1 = (heights_BV <= point_B1).sum(-1, keepdim=True)
        return torch.full_like(scores_BV, float("-inf")).scatter(-1, token_B1, 0.0)
