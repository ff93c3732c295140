"""Putting saved weights back into a model that is already built (and perhaps already wrapped)."""

from pathlib import Path

import torch
from torch import nn

from unipref.core.errors import ConfigError

__all__ = ["extrapolate", "load_weights"]


def load_weights(model: nn.Module, folder: Path | str) -> None:
    """Copy the weights that `save_pretrained` wrote to `folder` into `model`, in place.

    An adapter folder gives the adapter's weights. Loading goes through `from_pretrained`, because a saved file may name
    tensors otherwise than the module does.

    Raises:
        ConfigError: the folder holds no weights, or weights of another architecture; the model is unchanged then.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    try:
        saved = type(model).from_pretrained(folder, dtype=next(model.parameters()).dtype)
    except OSError as err:
        raise ConfigError(f"cannot load the weights in {folder}; give a folder that save_pretrained wrote") from err
    state, own = saved.state_dict(), model.state_dict()
    shapes, expected = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (state, own))
    if shapes != expected:
        unlike = min(name for name, _ in shapes.items() ^ expected.items())
        raise ConfigError(
            f"the weights in {folder} do not fit the model: {unlike} is {shapes.get(unlike)} there and "
            f"{expected.get(unlike)} here; load the model from that folder instead"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


@torch.no_grad()
def extrapolate(model: nn.Module, before: Path | str, momentum: float) -> None:
    """Move the weights of `model` on: to now + `momentum` * (now - before).

    Source: arXiv:2410.06293, the practical form of its outer step. For a softmax over logits it equals the step on
    probabilities; in a network the two differ.

    Args:
        before: folder of the weights of the earlier model.
    """
    now = {name: value.clone() for name, value in model.named_parameters()}  # tied weights once
    load_weights(model, before)
    for name, value in model.named_parameters():
        value.copy_(now[name] + momentum * (now[name] - value))
