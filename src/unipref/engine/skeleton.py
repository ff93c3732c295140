"""What a model is, from its configuration alone: no weight is read, so that asking costs neither memory nor time."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipref.core.errors import ConfigError
from unipref.engine.loading import _first_line, _locate

__all__ = ["ModelFacts", "model_facts"]

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_OTHERS = (nn.Embedding, nn.Conv1d, nn.Conv2d)  # an adapter sits on them where they are named
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model without its weights.

    Attributes:
        config: of the text model, where there are several.
        n_parameters: None where the architecture cannot be built without weights.
        positions: the longest input it was made for; None where it sets no bound.
        vocabulary: rows of its embedding.
        stop_ids: the tokens at which its own generation settings stop.
        adaptable: names of the modules that a low-rank adapter on all linear ones sits on.
        named: names of all modules that an adapter can be put on by name: those, embeddings and the head.
        adapter: the folder holds an adapter; the facts are those of the model below it.
        missing: weight files that a local folder should hold and does not; always empty for a hub id.
    """

    name: str
    config: Any
    n_parameters: int | None
    positions: int | None
    vocabulary: int | None
    stop_ids: tuple[int, ...]
    adaptable: tuple[str, ...]
    named: tuple[str, ...]
    adapter: bool
    missing: tuple[str, ...]


def model_facts(name: str, *, trust_remote_code: bool = False) -> ModelFacts:
    """The facts of the model `name`: "bundled", a folder, or a hub id.

    Raises:
        ConfigError: there is none, or its configuration is not that of a causal language model.
    """
    from transformers import AutoConfig

    location = _locate(name)
    missing = _missing_weights(Path(location)) if Path(location).is_dir() else ()
    settings = Path(location) / "adapter_config.json"
    adapter = settings.exists()
    if adapter:
        location = _locate(json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"])
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"model: cannot read the configuration of {name!r}; check the name and the network ({_first_line(err)})"
        ) from err
    text = config.get_text_config()
    model = _empty(config, trust_remote_code)
    modules = {} if model is None else dict(model.named_modules())
    head = None if model is None else model.get_output_embeddings()
    return ModelFacts(
        name=name,
        config=text,
        n_parameters=None if model is None else sum(p.numel() for p in model.parameters()),
        positions=getattr(text, "max_position_embeddings", None),
        vocabulary=getattr(text, "vocab_size", None),
        stop_ids=_stop_ids(location, config, trust_remote_code),
        adaptable=tuple(n for n, module in modules.items() if _linear(module) and module is not head),
        named=tuple(n for n, module in modules.items() if _linear(module) or isinstance(module, _OTHERS)),
        adapter=adapter,
        missing=missing,
    )


def _missing_weights(folder: Path) -> tuple[str, ...]:
    for index in _INDEXES:
        if (folder / index).exists():
            shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
            return tuple(sorted(shard for shard in shards if not (folder / shard).exists()))
    if any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        return ()
    return ("adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors",)


def _empty(config: Any, trust_remote_code: bool) -> nn.Module | None:
    """The architecture on the meta device; None where it cannot be built there."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, RuntimeError, NotImplementedError):
        return None


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # the latter is GPT-2's


def _stop_ids(location: str, config: Any, trust_remote_code: bool) -> tuple[int, ...]:
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(location).eos_token_id
    except (OSError, ValueError):  # it has none, and its configuration says where generation ends
        ends = getattr(config.get_text_config(), "eos_token_id", None)
    return tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (ends,)
