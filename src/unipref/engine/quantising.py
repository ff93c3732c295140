"""Frozen weights in 4 or 8 bits under adapters that are trained (QLoRA), by bitsandbytes.

What is quantised are the decoder's linear layers. Embeddings, norms and the language-model head stay as the checkpoint
has them, so that log-probabilities are read from an ordinary head.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError, nearest

__all__ = [
    "QUANTISED",
    "WeightBytes",
    "is_quantised",
    "keep_trainable",
    "merged",
    "n_weights",
    "quantisation",
    "require_bitsandbytes",
    "weight_bytes",
]

QUANTISED = ("nf4", "fp4", "int8")

# peft imports bitsandbytes wherever it is installed, which on some CPUs says each time that an optional kernel is not.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def require_bitsandbytes(what: str) -> None:
    """Raise ConfigError, which says `what` asked for it, where bitsandbytes is missing or does not load."""
    try:
        importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as err:  # its compiled library may lack what it was built against
        raise ConfigError(
            f"{what} needs bitsandbytes, which is not here ({str(err).strip() or type(err).__name__}); install it "
            "(pip install 'unipref[qlora]') or leave the option out"
        ) from err


def quantisation(kind: str, dtype: torch.dtype) -> Any:
    """What `from_pretrained` takes as its `quantization_config`.

    Source: nf4 and the second quantisation, of the scales themselves, are arXiv:2305.14314's; int8 is arXiv:2208.07339.

    Args:
        kind: one of QUANTISED.
        dtype: what products are computed in, once weights are unpacked.

    Raises:
        ConfigError: the kind is unknown, or bitsandbytes is missing.
    """
    if kind not in QUANTISED:
        raise ConfigError(f"no quantisation named {kind!r}{nearest(kind, QUANTISED)}")
    require_bitsandbytes(f"quantize: {kind}")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def keep_trainable(model: nn.Module) -> None:
    """Let no forward of `model` repack its 4-bit weights.

    On CPUs with bfloat16 instructions, bitsandbytes 0.50 does so, for good, in the first forward in eval mode, and its
    product of repacked weights has no gradient: a policy that was scored first would then be trained wrongly.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantised(model: nn.Module) -> bool:
    """Whether weights of `model`, with adapters or without, are held in fewer bits than they are computed in."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return bool(getattr(inner, "is_quantized", False))


@dataclass(frozen=True)
class WeightBytes:
    """Bytes that a model holds, each storage once.

    Attributes:
        packed: of weights that are held in fewer bits than they are computed in.
        constants: of what unpacks these: scales, scales of scales, code books.
        whole: of all other weights, of adapters too, and of buffers.
        unpacked: that the packed weights would have in the type of the embeddings, which merging gives them.
    """

    packed: int
    constants: int
    whole: int
    unpacked: int

    @property
    def held(self) -> int:
        """All that is held now."""
        return self.packed + self.constants + self.whole


def weight_bytes(model: nn.Module) -> WeightBytes:
    """What the weights of `model`, a policy or a model with adapters or without, take."""
    packed: dict[int, int] = {}
    constants: dict[int, int] = {}
    whole: dict[int, int] = {}
    n_packed = 0
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            storage = parameter.untyped_storage()
            if not _is_packed(parameter):
                whole[storage.data_ptr()] = storage.nbytes()
            elif storage.data_ptr() not in packed:
                packed[storage.data_ptr()] = storage.nbytes()
                n_packed += n_weights(parameter)
                constants |= {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _constants(module)}
        for buffer in module.buffers(recurse=False):
            whole[buffer.untyped_storage().data_ptr()] = buffer.untyped_storage().nbytes()
    width = next((p.element_size() for p in model.parameters() if p.is_floating_point()), 0)  # the embeddings are first
    return WeightBytes(*(sum(found.values()) for found in (packed, constants, whole)), n_packed * width)


def n_weights(parameter: Tensor) -> int:
    """How many weights `parameter` stands for; of two in 4 bits, one number is held."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else prod(state.shape)


def _is_packed(parameter: Tensor) -> bool:
    return not parameter.is_floating_point()


def _constants(module: nn.Module) -> Iterator[Tensor]:
    """What unpacks the weight of `module`."""
    weight = getattr(module, "weight", None)
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (t for t in (state.absmax, state.code, state.offset) if isinstance(t, Tensor))
        state = state.state2
    for holder in (weight, getattr(module, "state", None)):  # the first forward of int8 moves its scales
        scales = getattr(holder, "SCB", None)
        if isinstance(scales, Tensor):
            yield scales


def merged(model: nn.Module) -> nn.Module:
    """`model` with its adapters merged into its weights, for good: what `from_pretrained` loads without peft.

    Quantised weights are unpacked first, since an update of a few parts in a thousand would be lost in the next
    rounding to 4 bits. So what comes back computes what was trained, at the size of the unquantised model.
    """
    if not is_quantised(model):
        return model.merge_and_unload()
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config, adapters = model.peft_config[model.active_adapter], get_peft_model_state_dict(model)
    dtype = model.get_base_model().get_input_embeddings().weight.dtype
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        plain = get_peft_model(model.unload().dequantize(dtype), config)
    set_peft_model_state_dict(plain, adapters)
    return plain.merge_and_unload()
