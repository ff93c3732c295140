"""Putting saved weights back into a model that is already built (and perhaps already wrapped)."""

from pathlib import Path

import torch
from torch import nn

__all__ = ["load_weights"]


def load_weights(model: nn.Module, folder: Path | str) -> None:
    """Copy the weights that `save_pretrained` wrote to `folder` into `model`, in place.

    An adapter folder gives the adapter's weights. Loading goes through `from_pretrained`, because a saved file may name
    tensors otherwise than the module does.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    saved = type(model).from_pretrained(folder, dtype=next(model.parameters()).dtype)
    state = saved.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(state[name])
