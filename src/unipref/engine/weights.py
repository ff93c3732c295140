"""Putting saved weights back into a model that is already built (and perhaps already wrapped)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from unipref.core.errors import ConfigError

__all__ = ["average", "extrapolate", "load_weights"]


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

        saved = load_peft_weights(str(folder), device="cpu")
        if any(_is_shard(parameter) for parameter in model.parameters()):
            _load_adapter_shards(model, saved, folder)
        else:
            set_peft_model_state_dict(model, saved)
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
            copy_whole(tensor, state[name])


def copy_whole(tensor: torch.Tensor, whole: torch.Tensor) -> None:
    """Copy `whole` into `tensor`, in place; where that is sharded over ranks, the part that this rank holds."""
    if not _is_shard(tensor):
        tensor.copy_(whole)
        return
    from torch.distributed.tensor import distribute_tensor

    mesh = tensor.device_mesh
    part = distribute_tensor(whole.to(mesh.device_type), mesh, tensor.placements, src_data_rank=None)
    tensor.to_local().copy_(part.to_local())


def _is_shard(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "device_mesh")  # a DTensor; importing its module costs a second


def _load_adapter_shards(model: nn.Module, saved: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Copy a saved adapter into a sharded model; peft would copy whole tensors into parts of them."""
    own = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for adapter in model.peft_config:
                name = name.replace(f".modules_to_save.{adapter}.", ".").replace(f".{adapter}.", ".")
            own[name] = parameter
    if own.keys() != saved.keys():
        unlike = min(own.keys() ^ saved.keys())
        raise ConfigError(f"the adapter in {folder} does not fit the model: {unlike}; load the model from that folder")
    with torch.no_grad():
        for name, parameter in own.items():
            copy_whole(parameter, saved[name])


@torch.no_grad()
def extrapolate(model: nn.Module, before: nn.Module, momentum: float) -> None:
    """Move the weights of `model` on: to now + `momentum` * (now - before).

    Source: arXiv:2410.06293, the practical form of its outer step. For a softmax over logits it equals the step on
    probabilities; in a network the two differ.

    Args:
        before: the earlier model, on any device; it is not changed.
    """
    earlier = dict(before.named_parameters())
    for name, value in model.named_parameters():  # tied weights once
        value += momentum * (value - earlier[name].to(value))


@torch.no_grad()
def average(model: nn.Module, folders: Sequence[Path | str], weights: Sequence[float]) -> None:
    """Give `model` the mean of the weights saved in `folders`, each counted by its weight.

    One folder is in memory at a time, and the sum is in float32 at least.

    Raises:
        ConfigError: weights and folders differ in number, a weight is negative, or the weights do not add up to 1; or
            a folder's weights do not fit, and the model then holds those of the folder before it.
    """
    if len(folders) != len(weights):
        raise ConfigError(f"{len(weights)} weights for {len(folders)} folders; give one for each")
    if min(weights, default=0.0) < 0 or not math.isclose(sum(weights), 1.0, rel_tol=1e-6):
        raise ConfigError(f"the weights of a mean are at least 0 and add up to 1, got {list(weights)}")
    total: dict[str, torch.Tensor] = {}
    for folder, weight in zip(folders, weights, strict=True):
        load_weights(model, folder)
        for name, value in model.named_parameters():  # tied weights once
            part = weight * value.to(torch.promote_types(value.dtype, torch.float32))
            total[name] = total[name] + part if name in total else part
    for name, value in model.named_parameters():
        value.copy_(total[name])
