"""A policy whose weights are spread over the ranks (FSDP2), and files of it that any number of ranks can read.

`accelerate launch` with a configuration of FSDP says how; the sharding is done here, because accelerate has it on GPUs
alone, and after the optimiser was made. Here a policy is sharded before anything is scored with it, block by block, so
that no device ever holds all of it, and the same code runs, and is tested, in processes on a CPU.

The decoder blocks are gathered one by one while they run. What is left (embeddings, final norm, head) belongs to the
policy itself and is whole from its forward to the end of its backward: the head's weight is read there directly, tile
by tile, and a tied one from two places.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.core.tries import Trie, build_trie
from unipref.engine import Policy, score
from unipref.engine.scoring import chunks
from unipref.training.ranks import n_processes

__all__ = ["SHARDS", "Sharding", "asked_sharding", "is_sharded", "make_whole", "placed", "score_shared", "shard"]

SHARDS = "shards"  # the folder, inside a checkpoint, of what the ranks wrote
_ASKED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG")
_MODEL, _OPTIMIZER, _GROUPS = "model/", "optimizer/", "groups"
_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "rmsprop", "sgd")  # element by element, so that a shard is enough


@dataclass(frozen=True)
class Sharding:
    """How a policy is to be sharded, as accelerate's configuration says it.

    Attributes:
        reshard: free a block's weights after its forward and gather them again for its backward.
        offload: shards, gradients and optimiser state are kept in the host's memory.
        full_checkpoints: checkpoints also hold the gathered model, as `AutoModelForCausalLM` loads it.
        checkpointing: recompute activations in the backward pass.
        blocks: class names of what is gathered at once; empty: those that the model names.
        replicas: groups of ranks that each hold the whole model between them (HSDP); 1: all ranks share one.
    """

    reshard: bool = True
    offload: bool = False
    full_checkpoints: bool = False
    checkpointing: bool = False
    blocks: tuple[str, ...] = ()
    replicas: int = 1


def asked_sharding(environment: Mapping[str, str] = os.environ) -> Sharding | None:
    """What the launcher's configuration asks for; None where it asks for no sharding or there is only one process.

    Raises:
        ConfigError: the configuration asks for something that is not here, or would be wrong.
    """

    def says(name: str, default: str = "false") -> bool:
        return environment.get(name, default).lower() in ("true", "1", "yes")

    if says("ACCELERATE_USE_DEEPSPEED") and environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        raise ConfigError(
            "DeepSpeed ZeRO-3 is not supported: the head's weight is read where ZeRO-3 has taken it away; FSDP2 shares "
            "out the same things (`unipref launcher fsdp2` writes its configuration), and ZeRO-1 and ZeRO-2 work"
        )
    if not says("ACCELERATE_USE_FSDP") or n_processes() == 1:
        return None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7):
        raise ConfigError(f"sharded weights (FSDP2) need torch 2.7 or later; upgrade torch, now {torch.__version__}")
    version = environment.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(f"fsdp_version {version} is not supported; set it to 2 in the accelerate configuration")
    if says("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise ConfigError(
            "fsdp_cpu_ram_efficient_loading leaves all processes but one without weights, and each of them checks the "
            "model that it was given; set fsdp_cpu_ram_efficient_loading: false in the accelerate configuration"
        )
    policy = environment.get("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP").upper()
    if policy != "TRANSFORMER_BASED_WRAP":
        raise ConfigError(f"fsdp_auto_wrap_policy {policy} is not supported; set it to TRANSFORMER_BASED_WRAP")
    return Sharding(
        reshard=says("FSDP_RESHARD_AFTER_FORWARD", "true"),
        offload=says("FSDP_OFFLOAD_PARAMS"),
        full_checkpoints=environment.get("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT").upper() == "FULL_STATE_DICT",
        checkpointing=says("FSDP_ACTIVATION_CHECKPOINTING"),
        blocks=tuple(filter(None, environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "").split(","))),
        replicas=_replicas(environment) if says("ACCELERATE_USE_PARALLELISM_CONFIG") else 1,
    )


def _replicas(environment: Mapping[str, str]) -> int:
    prefix = "PARALLELISM_CONFIG_"
    keys = ("DP_REPLICATE", "DP_SHARD", "TP", "CP", "SP")
    size = {key: int(environment.get(f"{prefix}{key}_SIZE", "1")) for key in keys}
    others = [key.lower() for key in ("TP", "CP", "SP") if size[key] > 1]
    if others:
        raise ConfigError(f"parallelism_config: {', '.join(others)} is not supported; set its size to 1")
    world = n_processes()
    if size["DP_REPLICATE"] * size["DP_SHARD"] != world:
        raise ConfigError(
            f"parallelism_config: dp_replicate_size {size['DP_REPLICATE']} times dp_shard_size {size['DP_SHARD']} is "
            f"not the number of processes, {world}"
        )
    return size["DP_REPLICATE"]


@contextlib.contextmanager
def accelerate_unsharded() -> Iterator[None]:
    """Inside, accelerate does not see that FSDP is asked for, and leaves the policy's weights alone."""
    hidden = {name: os.environ.pop(name) for name in _ASKED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was here."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def shard(policy: Policy, how: Sharding, *, device: torch.device, precision: str = "float32") -> Policy:
    """`policy`, its weights spread over all ranks, in place; each rank has the same weights before. Once is enough.

    With bfloat16 the blocks' weights are gathered in it, half the bytes: in their matrix products they would be cast to
    it anyway. Gradients are summed in the weights' own type, and embeddings, final norm and head are gathered in it.

    Raises:
        ConfigError: the blocks of the model are not known.
    """
    if is_sharded(policy):
        return policy
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    world = dist.get_world_size()
    if how.replicas > 1:
        names = ("dp_replicate", "dp_shard")
        mesh = init_device_mesh(device.type, (how.replicas, world // how.replicas), mesh_dim_names=names)
    else:
        mesh = init_device_mesh(device.type, (world,))
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # nothing is changed in place of what they give
    packed = {p for p in policy.parameters() if not p.is_floating_point()}  # quantised weights stay whole on every rank
    options: dict[str, Any] = {
        "mesh": mesh,
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type != "cpu") if how.offload else OffloadPolicy(),
        **({"ignored_params": packed} if packed else {}),
    }
    for parameter in packed:
        parameter.data = parameter.data.to(device)
    if how.checkpointing:
        policy.activation_checkpointing_enable()
    gathered = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bfloat16" else None,
        reduce_dtype=torch.float32 if precision == "bfloat16" else None,
        cast_forward_inputs=False,  # the residual stream stays as it is
    )
    for block in _blocks(policy, how):
        fully_shard(block, reshard_after_forward=how.reshard, mp_policy=gathered, **options)
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    for head in policy.heads.values():  # a group has one type of trainable weights, and a head may have its own
        fully_shard(head, reshard_after_forward=False, mp_policy=plain, **options)
    fully_shard(policy, reshard_after_forward=False, mp_policy=plain, **options)
    register_fsdp_forward_method(policy, "hidden")
    return policy


def placed(policy: Policy, device: torch.device, precision: str = "float32") -> Policy:
    """`policy` where it will run: its weights shared out over the ranks where the launcher's configuration asks for
    that, on `device` otherwise. All ranks call it."""
    how = asked_sharding()
    return policy.to(device) if how is None else shard(policy, how, device=device, precision=precision)


def _blocks(policy: Policy, how: Sharding) -> list[nn.Module]:
    """The decoder blocks, outermost modules of the classes that the user or the model names."""
    inner = policy.model.get_base_model() if hasattr(policy.model, "get_base_model") else policy.model
    names = set(how.blocks or getattr(inner, "_no_split_modules", None) or ())
    found = [module for module in policy.model.modules() if type(module).__name__ in names]
    inside = {id(part) for block in found for part in block.modules() if part is not block}
    found = [block for block in found if id(block) not in inside]
    if not found:
        told = ", ".join(sorted(names)) or "nothing"
        raise ConfigError(
            f"{type(inner).__name__} has no blocks to shard by ({told} was looked for); name their class in the "
            "accelerate configuration: fsdp_transformer_layer_cls_to_wrap"
        )
    return found


def _reshard(policy: nn.Module) -> None:
    """Free what a forward without a backward left gathered, so that the parameters are the shards."""
    from torch.distributed.fsdp import FSDPModule

    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _is_dtensor(value: Any) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def gathered_state(policy: Policy) -> dict[str, Tensor]:
    """On rank 0 the whole weights of `policy` in the host's memory, tied ones as one tensor; nothing elsewhere.

    All ranks call it. Of a model with adapters it is the weights that are trained.
    """
    _reshard(policy)
    adapted = hasattr(policy.model, "peft_config")
    first = dist.get_rank() == 0
    seen: dict[int, Tensor] = {}
    found = {}
    for name, value in policy.state_dict(keep_vars=True).items():
        if adapted and not value.requires_grad:
            continue
        if id(value) not in seen:
            whole = _whole(value) if _is_dtensor(value) else value.detach()
            seen[id(value)] = whole.cpu() if first else whole.new_empty(0)  # tied: once, on every rank
        if first:
            found[name] = seen[id(value)]
    return found


def _whole(value: Any) -> Tensor:
    """All of a sharded tensor, on the device that its ranks talk through."""
    return value.detach().to(_mesh_device(value)).full_tensor()


def _mesh_device(value: Any) -> torch.device:
    kind = value.device_mesh.device_type
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


def make_whole(policy: Policy) -> None:
    """End the sharding: on rank 0 `policy` becomes an ordinary module in the host's memory, to be merged and saved.

    All ranks call it. On the others the policy keeps its shards; nobody can run it any more.
    """
    if not is_sharded(policy):
        return
    _reshard(policy)
    first = dist.get_rank() == 0
    seen: dict[int, nn.Parameter] = {}
    for module in policy.modules():
        for name, value in module._parameters.items():
            if value is None:
                continue
            if id(value) not in seen:
                whole = _whole(value) if _is_dtensor(value) else value.detach()
                plain = first and value.is_floating_point()  # quantised weights know more than their numbers
                seen[id(value)] = nn.Parameter(whole.cpu(), requires_grad=value.requires_grad) if plain else value
            if first:
                module._parameters[name] = seen[id(value)]
    if first:
        _forget_sharding(policy)
        for module in policy.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.cpu()


def _forget_sharding(policy: Policy) -> None:
    """Take away what `fully_shard` did to the modules besides their parameters; torch has no way back of its own."""
    from torch.distributed.fsdp import FSDPModule

    for module in policy.modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            state._pre_forward_hook_handle.remove()
            state._post_forward_hook_handle.remove()
            module.__class__ = type(module).__bases__[1]
    vars(policy).pop("hidden", None)


# ---- scoring ----


def score_shared(
    policy: Policy, tries: Sequence[Trie], *, max_tokens: int = 16384, reference: bool = False
) -> list[list[np.ndarray]]:
    """`engine.score` of `tries`, each rank scoring its share; every rank gets all of it.

    All ranks call it, with the same tries. The shares are about equal in tokens. A sharded policy is run as often on
    every rank, because its weights are gathered from all of them.
    """
    world = n_processes()
    if world == 1:
        return score(policy, tries, max_tokens=max_tokens, reference=reference)
    rank = dist.get_rank()
    order = sorted(range(len(tries)), key=lambda i: -tries[i].n_nodes)
    shares = [_every_other(order, r, world) for r in range(world)]
    mine = shares[rank]
    found = score(policy, [tries[i] for i in mine], max_tokens=max_tokens, reference=reference) if mine else []
    if is_sharded(policy):
        runs = [sum(1 for _ in chunks([tries[i] for i in share], max_tokens)) for share in shares]
        for _ in range(max(runs) - runs[rank]):
            score(policy, [build_trie([([0], [0])])], reference=reference)
    results: list[list[np.ndarray]] = [[] for _ in tries]
    for share, values in zip(shares, gather_object([found]), strict=True):
        for i, value in zip(share, values, strict=True):
            results[i] = value
    return results


def _every_other(order: Sequence[int], rank: int, world: int) -> list[int]:
    """This rank's part of `order`, there and back again, so that of things sorted by size all get about the same."""
    return [i for n, i in enumerate(order) if (n % world if n // world % 2 == 0 else world - 1 - n % world) == rank]


# ---- files that any number of ranks can read ----


def _trained(policy: Policy) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


def _plain_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def check_optimizer(name: str) -> None:
    """Raise ConfigError where an optimiser reads more of a weight than a rank holds."""
    if name not in _OPTIMIZERS:
        raise ConfigError(f"train.optimizer: {name} is not supported with sharded weights (FSDP2); take adamw")


def save_shards(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """Write the trained weights and the optimiser's state to `folder`, each rank its share. All ranks call it."""
    import torch.distributed.checkpoint as dcp

    _reshard(policy)
    inner = _plain_optimizer(optimizer)
    trained = _trained(policy)
    state: dict[str, Any] = {_MODEL + name: value.detach() for name, value in trained.items()}
    for name, parameter in trained.items():
        for key, value in inner.state.get(parameter, {}).items():
            state[f"{_OPTIMIZER}{name}/{key}"] = value
    state[_GROUPS] = json.dumps([{k: v for k, v in group.items() if k != "params"} for group in inner.param_groups])
    dcp.save(state, checkpoint_id=str(folder))


def load_shards(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Read what `save_shards` wrote, on however many ranks, sharded or not: the weights, or the optimiser's state.

    Args:
        optimizer: read its state and leave the weights alone.

    Raises:
        ConfigError: the folder was written of another model.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    if is_sharded(policy):
        _reshard(policy)
    reader = dcp.FileSystemReader(str(folder))
    written = reader.read_metadata().state_dict_metadata
    trained = _trained(policy)
    wanted = {_MODEL + name: tuple(value.shape) for name, value in trained.items()}
    there = {name: tuple(kept.size) for name, kept in written.items() if name.startswith(_MODEL)}
    if wanted != there:
        unlike = min(name for name, _ in wanted.items() ^ there.items())
        raise ConfigError(
            f"the checkpoint {folder} is of another model: {unlike.removeprefix(_MODEL)} is {there.get(unlike)} there "
            f"and {wanted.get(unlike)} here; resume with the recipe that it was written with"
        )
    if optimizer is None:
        _read(dcp, reader, {_MODEL + name: value.detach() for name, value in trained.items()})
        return
    template: dict[str, Any] = {_GROUPS: ""}
    for name, parameter in trained.items():
        prefix = f"{_OPTIMIZER}{name}/"
        for key in (key for key in written if key.startswith(prefix)):
            kept = written[key]
            if not isinstance(kept, TensorStorageMetadata):
                template[key] = None
            elif kept.size == parameter.shape:
                template[key] = torch.zeros_like(parameter.detach(), dtype=kept.properties.dtype)
            else:
                template[key] = torch.zeros(kept.size, dtype=kept.properties.dtype)
    _read(dcp, reader, template)
    inner = _plain_optimizer(optimizer)
    names = {id(parameter): name for name, parameter in trained.items()}
    state, groups, i = {}, [], 0
    for group, options in zip(inner.param_groups, json.loads(template[_GROUPS]), strict=True):
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        groups.append({**options, "params": list(range(i, i + len(group["params"])))})
        for parameter in group["params"]:
            prefix = f"{_OPTIMIZER}{names[id(parameter)]}/"
            own = {key.removeprefix(prefix): value for key, value in template.items() if key.startswith(prefix)}
            if own:
                state[i] = own
            i += 1
    inner.load_state_dict({"state": state, "param_groups": groups})


def _read(dcp: Any, reader: Any, state: dict[str, Any]) -> None:
    with warnings.catch_warnings():  # that a single process reads is no fault
        warnings.filterwarnings("ignore", message=".*torch.distributed is")
        dcp.load(state, storage_reader=reader)


def load_whole_optimizer(file: Path, optimizer: torch.optim.Optimizer) -> None:
    """Read the state that a run without shards wrote into a sharded optimiser: of every tensor this rank's part."""
    from torch.distributed.tensor import distribute_tensor

    inner = _plain_optimizer(optimizer)
    saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    parameters = [parameter for group in inner.param_groups for parameter in group["params"]]

    def mine(value: Any, parameter: Tensor) -> Any:
        if not isinstance(value, Tensor) or not _is_dtensor(parameter) or value.shape != parameter.shape:
            return value
        value = value.to(_mesh_device(parameter))
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)

    state = {i: {k: mine(v, parameters[i]) for k, v in values.items()} for i, values in saved["state"].items()}
    inner.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
