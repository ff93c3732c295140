"""Frozen weights in 4 or 8 bits under adapters that are trained (QLoRA), by bitsandbytes.

What is quantised are the decoder's linear layers. Embeddings, norms and the language-model head stay as the checkpoint
has them, so that log-probabilities are read from an ordinary head.
"""

import importlib
import logging
import warnings
from typing import Any

import torch
from torch import nn

from unipref.core.errors import ConfigError, nearest

__all__ = ["QUANTISED", "is_quantised", "keep_trainable", "merged", "quantisation", "require_bitsandbytes"]

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
