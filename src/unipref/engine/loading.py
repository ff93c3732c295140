"""Models and tokenizers by name or path, and what identifies a model's weights."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError, nearest
from unipref.engine.policy import Policy
from unipref.engine.quantising import keep_trainable, quantisation

__all__ = ["BUNDLED", "fingerprint", "load_model", "load_tokenizer"]

BUNDLED = "bundled"  # the name of the model that ships with the package

_LORA_DEFAULTS: dict[str, Any] = {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"}
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Keys of a configuration that say where a model came from or how it is run, not what it computes.
_VOLATILE = {
    "_name_or_path", "_commit_hash", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"
}  # fmt: skip


def _locate(name_or_path: str | os.PathLike[str]) -> str:
    """A hub id as it is, a path checked, "bundled" as the folder in the package.

    Raises:
        ConfigError: a path does not exist, or the folder holds no model.
    """
    name = os.fspath(name_or_path)
    if name == BUNDLED:
        folder = files("unipref") / "assets" / "model"
        with as_file(folder) as path:
            if not (path / "config.json").exists():
                raise ConfigError(f"this installation has no bundled model in {path}; reinstall unipref")
            return str(path)
    path = Path(name).expanduser()
    looks_local = path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if not looks_local:
        return name
    if not path.is_dir():
        raise ConfigError(f"model: no folder at {name}; give a folder with config.json, a hub id, or 'bundled'")
    if not (path / "config.json").exists() and not (path / "adapter_config.json").exists():
        raise ConfigError(f"model: {name} is no saved model: it holds neither config.json nor adapter_config.json")
    return str(path)


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype = "auto",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    lora: Mapping[str, Any] | None = None,
    quantize: str | None = None,
    device: str | torch.device | None = None,
    headless: bool = False,
) -> nn.Module:
    """A causal language model ready to be trained, in eval mode, from the hub, a folder, or the package ("bundled").

    A folder that holds a peft adapter gives its base model with that adapter, trainable.

    Args:
        dtype: "auto" keeps the checkpoint's own.
        lora: put a fresh LoRA adapter on the model: r, alpha, dropout, target_modules (others as peft names them;
            "merge" is for the saving side and ignored here). The base model is frozen.
        quantize: "nf4", "fp4" or "int8": hold the frozen weights of linear layers so, by bitsandbytes. Needs adapters.
        headless: nothing will be read from its language head, so that a sequence classifier, which has none, will do.

    Raises:
        ConfigError: nothing is there, the architecture is no causal language model, or an option is unknown.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(dtype, str) and dtype != "auto" and dtype not in _DTYPES:
        raise ConfigError(f"no dtype named {dtype!r}{nearest(dtype, ['auto', *_DTYPES])}")
    config = _lora_config(lora) if lora is not None else None  # a wrong option shows before anything is loaded
    if quantize is not None:
        quantisation(quantize, torch.float32)
    location = _locate(name_or_path)
    adapter = None
    if os.path.exists(os.path.join(location, "adapter_config.json")):
        adapter = location
        with open(os.path.join(location, "adapter_config.json"), encoding="utf-8") as file:
            location = _locate(json.load(file)["base_model_name_or_path"])
        if config is not None:
            raise ConfigError(f"model: {adapter} is an adapter already; leave out lora, or merge the adapter first")
    if quantize is not None and adapter is None and config is None:
        raise ConfigError("model: quantised weights cannot be trained; give lora too, whose adapters are")
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else _DTYPES.get(dtype, dtype)}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    try:
        if quantize is not None:
            own = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code).dtype or torch.float32
            options["quantization_config"] = quantisation(quantize, own if dtype == "auto" else options["dtype"])
        model = AutoModelForCausalLM.from_pretrained(location, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError) as err:
        remote = "trust_remote_code" in str(err) and not trust_remote_code
        step = "set trust_remote_code: true if you trust its authors" if remote else "check the name and the network"
        raise ConfigError(f"model: cannot load {os.fspath(name_or_path)!r}; {step} ({_first_line(err)})") from err
    _refuse_classifier(location, model, headless)
    keep_trainable(model)
    if device is not None and quantize != "int8":  # which is put where it runs as it is loaded, for good
        model = model.to(device)
    if adapter is not None:
        from peft import PeftModel

        with _deprecations_of_peft():
            model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    elif config is not None:
        from peft import get_peft_model

        try:
            with _deprecations_of_peft():
                model = get_peft_model(model, config)
        except ValueError as err:
            name = os.fspath(name_or_path)
            raise ConfigError(f"model_options.lora does not fit {name!r}: {_first_line(err)}") from err
    return model.eval()


def _refuse_classifier(name: str, model: nn.Module, headless: bool) -> None:
    """A saved classifier loads as a language model, too, with a head that is random or was never trained for it."""
    saved = [each for each in model.config.architectures or () if each.endswith("ForSequenceClassification")]
    if saved and not headless:
        raise ConfigError(
            f"model: {name} is a sequence classifier ({saved[0]}), which writes no text; as a reward model it scores "
            "(scorer: reward_model) and can be trained further (method: bt)"
        )
    if saved and not os.path.isdir(name):
        raise ConfigError(
            f"model: {name} is a sequence classifier ({saved[0]}) of the hub; to train it further, download it and "
            "give its folder"
        )


@contextmanager
def _deprecations_of_peft() -> Iterator[None]:
    """Without the warning that peft 0.19 draws from transformers 5.23; it concerns their authors, not the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def _lora_config(lora: Mapping[str, Any]) -> Any:
    from peft import LoraConfig, TaskType

    options = {**_LORA_DEFAULTS, **lora}
    options.pop("merge", None)
    renamed = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
    options = {renamed.get(key, key): value for key, value in options.items()}
    known = set(LoraConfig.__dataclass_fields__)
    for key in options:
        if key not in known:
            raise ConfigError(f"model_options.lora has no option {key!r}{nearest(key, known | set(_LORA_DEFAULTS))}")
    return LoraConfig(task_type=TaskType.CAUSAL_LM, **options)


def load_tokenizer(name_or_path: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model, which must have an end-of-sequence token; padding, where it has none, is that token.

    Raises:
        ConfigError: nothing is there, or the tokenizer has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    location = _locate(name_or_path)
    adapter = os.path.join(location, "adapter_config.json")
    if os.path.exists(adapter) and not os.path.exists(os.path.join(location, "tokenizer_config.json")):
        with open(adapter, encoding="utf-8") as file:
            location = _locate(json.load(file)["base_model_name_or_path"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as err:
        raise ConfigError(f"tokenizer: cannot load {os.fspath(name_or_path)!r} ({_first_line(err)})") from err
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of {os.fspath(name_or_path)!r} has no end-of-sequence token, so responses could never end; "
            "set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__


def fingerprint(model: nn.Module, *, reference: bool = False) -> str:
    """32 hex digits that change when any weight, its dtype, or a setting that the model computes with changes.

    The same model has the same fingerprint in every process, on every device, and whether or not adapters that are
    left out lie over it: the fingerprint of a LoRA model's reference is that of its base model.

    Args:
        model: a model or a `Policy`; of a policy the model counts, not its heads.
        reference: leave the adapters out.
    """
    if isinstance(model, Policy):
        model = model.model
    adapters = getattr(model, "peft_config", {})
    inner = model.get_base_model() if adapters else model
    seen: set[tuple[int, torch.Size]] = set()
    entries: list[tuple[str, Tensor]] = []
    for name, tensor in sorted(inner.state_dict(keep_vars=True).items()):
        # The head under another name than the embeddings it is tied to is still one tensor.
        identity = (id(tensor) if hasattr(tensor, "full_tensor") else tensor.data_ptr(), tensor.shape)
        if (reference and _of_adapter(name, adapters)) or (tensor.numel() and identity in seen):
            continue
        seen.add(identity)
        entries.append((name.replace(".base_layer.", "."), tensor.detach()))
    if any(hasattr(tensor, "full_tensor") for _, tensor in entries):  # shards: gathered from all ranks, one at a time
        sums = [_tensor_hash(_whole(tensor)) for _, tensor in entries]
    else:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing releases the interpreter lock
            sums = list(pool.map(_tensor_hash, (tensor for _, tensor in entries)))
    total = hashlib.sha256()
    for (name, tensor), digest in zip(entries, sums, strict=True):
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode() + digest)
    settings = {key: value for key, value in inner.config.to_dict().items() if key not in _VOLATILE}
    if adapters and not reference:
        settings["adapters"] = {name: [a.peft_type, _scalings(inner, name)] for name, a in adapters.items()}
    total.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return total.hexdigest()[:32]


def _scalings(model: nn.Module, adapter: str) -> list[float]:
    """What the adapter's layers multiply their output with, layer by layer: part of what the model computes."""
    scalings = (getattr(module, "scaling", None) for module in model.modules())
    return [scaling[adapter] for scaling in scalings if isinstance(scaling, dict) and adapter in scaling]


def _of_adapter(name: str, adapters: Mapping[str, Any]) -> bool:
    return any(f".{adapter}." in f".{name}." for adapter in adapters)


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor whose parts lie on several ranks; all of them must ask."""
    return tensor.to(tensor.device_mesh.device_type).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _tensor_hash(tensor: Tensor) -> bytes:
    flat = tensor.to("cpu").contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy() if flat.numel() else b"").digest()
