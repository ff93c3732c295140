"""Text-classification models as they are saved: loaded with care, run in batches that do not change their numbers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unipref.core.errors import ConfigError, nearest

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class SequenceModel:
    """A classification model and its tokenizer.

    Attributes:
        identity: changes with the weights, their precision, the configuration, the tokenizer or its chat template.
        max_length: the longest input in tokens, special tokens included.
    """

    model: Any
    tokenizer: Any
    identity: str
    max_length: int

    @property
    def config(self) -> Any:
        return self.model.config

    def logits(
        self, encoded: Sequence[Sequence[int]], batch_size: int, pairs: Sequence[Any] | None = None
    ) -> np.ndarray:
        """(n, outputs) float64 logits of token ids, in their order.

        Inputs are sorted by length and padded under a mask. A model without a padding token reads them one by one: with
        another token in its place some architectures take their number from the wrong position.

        Args:
            encoded: token ids with their special tokens.
            pairs: token type ids of each input, for models that have them.
        """
        pad = self.config.get_text_config().pad_token_id
        at_once = batch_size if pad is not None else 1
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
        rows: list[np.ndarray | None] = [None] * len(encoded)
        for start in range(0, len(order), at_once):
            some = order[start : start + at_once]
            longest = len(encoded[some[0]])
            shape = (len(some), longest)
            ids, mask = torch.full(shape, pad or 0), torch.zeros(shape, dtype=torch.long)
            types = torch.zeros(shape, dtype=torch.long)
            for row, i in enumerate(some):
                size = len(encoded[i])
                ids[row, :size] = torch.tensor(encoded[i])
                mask[row, :size] = 1
                if pairs is not None and pairs[i] is not None:
                    types[row, :size] = torch.tensor(pairs[i])
            inputs = {"input_ids": ids, "attention_mask": mask}
            if "token_type_ids" in self.tokenizer.model_input_names:
                inputs["token_type_ids"] = types
            with torch.inference_mode():
                out = self.model(**{name: tensor.to(self.model.device) for name, tensor in inputs.items()}).logits
            for row, i in enumerate(some):
                rows[i] = out[row].double().cpu().numpy()
        return np.array(rows, dtype=np.float64).reshape(len(encoded), -1)


def load_sequence_model(
    scorer: str, name: str, *, dtype: str, max_length: int | None, trust_remote_code: bool, outputs: int | None = None
) -> SequenceModel:
    """The classification model `name` (hub id or folder) in eval mode, on the GPU where there is one.

    Args:
        outputs: how many outputs it must have; None for any.

    Raises:
        ConfigError: nothing is there, it has another number of outputs, or its weights lack the head that gives the
            score (a base model would score at random).
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from unipref.engine import fingerprint

    options = {"trust_remote_code": trust_remote_code}
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    try:
        config = AutoConfig.from_pretrained(name, **options)
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"{scorer}: the model {name!r} cannot be loaded; give a folder with config.json or a hub id that this "
            f"machine can reach ({_first_line(err)})"
        ) from err
    if outputs is not None and config.num_labels != outputs:
        raise ConfigError(
            f"{scorer}: the model {name!r} has {config.num_labels} outputs, and {outputs} was expected; "
            "use the scorer classifier and name the labels that count"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError) as err:
        raise ConfigError(f"{scorer}: the model {name!r} cannot be loaded ({_first_line(err)})") from err
    if info["missing_keys"]:
        raise ConfigError(
            f"{scorer}: {name!r} is no trained classification model: its files lack {sorted(info['missing_keys'])}, "
            "which would be filled at random"
        )
    text_config = model.config.get_text_config()
    if text_config.pad_token_id is None:
        text_config.pad_token_id = tokenizer.pad_token_id
    longest = min(
        limit for limit in (max_length, tokenizer.model_max_length, _positions(text_config)) if limit is not None
    )
    identity = f"{fingerprint(model)}-{tokenizer_digest(tokenizer, text_config.pad_token_id)}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return SequenceModel(model.eval().to(device), tokenizer, identity, int(longest))


def tokenizer_digest(tokenizer: Any, *more: Any) -> str:
    """32 hex digits that change with the tokenizer's words and rules, its chat template, or `more`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256("|".join(map(str, (words, tokenizer.chat_template, *more))).encode()).hexdigest()[:32]


def _positions(config: Any) -> int | None:
    """How many tokens the architecture has positions for; RoBERTa's kind keeps two and more of them to itself."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return positions - (offset or 0)


def check_model_options(scorer: str, name: object, batch_size: object, max_length: object, dtype: object) -> None:
    """Refuse options that no model could be run with."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{scorer}: model is a hub id or a folder, not {name!r}")
    if name.startswith((".", "/", "~")) and not (Path(name).expanduser() / "config.json").is_file():
        raise ConfigError(f"{scorer}: there is no model at {name}; give a folder with config.json, or a hub id")
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ConfigError(f"{scorer}: batch_size is a whole number from 1, not {batch_size!r}")
    if max_length is not None and (not isinstance(max_length, int) or isinstance(max_length, bool) or max_length < 8):
        raise ConfigError(f"{scorer}: max_length is a number of tokens from 8, not {max_length!r}")
    if dtype not in DTYPES:
        raise ConfigError(f"{scorer}: no dtype named {dtype!r}{nearest(str(dtype), DTYPES)}")


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
