"""Token weights read off what a model's blocks do, without training anything."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.core.tries import Trie, pack
from unipref.engine.policy import Policy
from unipref.engine.scoring import chunks, forward_only

__all__ = ["activation_mask"]

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe")


def activation_mask(
    policy: Policy,
    tries: Sequence[Trie],
    *,
    max_tokens: int = 16384,
    reference: bool = False,
) -> list[list[np.ndarray]]:
    """Per trie and item: (len,) float32 in [0, 1], how active the network is where it predicts each scored token.

    The outputs of attention, of the MLP and of the whole block are averaged over their features, each layer's numbers
    are stretched to [0, 1] over the tokens of the response, and the results are averaged over layers within a kind,
    then over the three kinds. A layer that says the same of every token of a response (of a single one, always) gives
    1: the token counts in full, as without a mask. The authors' code divides by zero there.

    Read at the position that *predicts* the token, as the authors shift a mask made of hidden states.

    Source: arXiv:2410.05102, MaPO, in the authors' code (huawei-noah/HEBO, SparsePO/src/trainers/mapo_trainer.py).
    They z-normalise over the response first, which the stretching undoes, so it is left out here; and they keep
    extremes in float16, we in float32. Their further kind, the logits under `all`, is not read.

    Args:
        policy: the reference, or with `reference` the policy with its adapters switched off.
        max_tokens: trie nodes per forward, as in `score`.

    Raises:
        ConfigError: the model's blocks, or attention and MLP in them, go by names unknown here; or the model computes
            positions that are no tokens (a learned prompt).
    """
    results: list[list[np.ndarray]] = [[] for _ in tries]
    kinds = _kinds(policy)
    with forward_only(policy, reference=reference), _Recorder(kinds) as recorder:
        for chunk in chunks(tries, max_tokens):
            batch = pack([tries[i] for i in chunk]).to(policy.device)
            recorder.clear()
            hidden, begin = policy.hidden(batch)
            source = batch.parent[batch.scored]
            place = source if begin is None else begin[batch.scored_item] + batch.depth[source]
            activity = recorder.take(len(hidden))[..., place]  # (kinds, layers, T)
            length = batch.length.tolist()
            items = iter([_stretched(x).mean(1).mean(0).cpu().numpy() for x in activity.split(length, dim=2)])
            for i in chunk:
                results[i] = [next(items) for _ in range(tries[i].n_items)]
    return results


def _stretched(activity: Tensor) -> Tensor:
    """(..., T) moved and scaled to [0, 1] along the last dimension; 1 where all are equal."""
    low, high = activity.amin(-1, keepdim=True), activity.amax(-1, keepdim=True)
    return torch.where(high > low, (activity - low) / (high - low), torch.ones_like(activity))


def _kinds(policy: Policy) -> list[list[nn.Module]]:
    """The attentions, the MLPs and the blocks of the decoder, each from the first layer to the last."""
    n_layers = policy.config.get_text_config().num_hidden_layers
    name = policy.config.model_type
    lists = (m for m in policy.model.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers)
    blocks = next(lists, None)
    if blocks is None:
        raise ConfigError(f"activation masks: {name!r} has no list of {n_layers} blocks; use another reference model")
    kinds: list[list[nn.Module]] = [[], [], list(blocks)]
    for block in blocks:
        children = dict(block.named_children())
        for kind, words in zip(kinds, (_ATTENTION, _MLP), strict=False):
            found = [children[word] for word in words if word in children]
            if not found:
                raise ConfigError(
                    f"activation masks: a block of {name!r} has none of {', '.join(words)}; it has "
                    f"{', '.join(children)}; use another reference model"
                )
            kind.append(found[0])
    return kinds


class _Recorder:
    """While entered: what the modules give, averaged over features, forward by forward."""

    def __init__(self, kinds: list[list[nn.Module]]) -> None:
        self._kinds = kinds
        self._found: dict[nn.Module, list[Tensor]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "_Recorder":
        self._handles = [m.register_forward_hook(self._keep) for kind in self._kinds for m in kind]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, given: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        self._found.setdefault(module, []).append(states.float().mean(-1).flatten())

    def clear(self) -> None:
        self._found = {}

    def take(self, n_positions: int) -> Tensor:
        """(kinds, layers, M) of all forwards since `clear`, laid end to end."""
        found = torch.stack([torch.stack([torch.cat(self._found[m]) for m in kind]) for kind in self._kinds])
        if found.shape[-1] != n_positions:
            raise ConfigError(
                f"activation masks: the model computes {found.shape[-1]} positions for {n_positions} tokens; "
                "use a model without a learned prompt"
            )
        return found
