"""A backbone with its reward head as transformers' own sequence classifier, and back again."""

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipref.core.errors import ConfigError
from unipref.engine.loading import _locate, load_model
from unipref.engine.policy import Policy, _inner_model
from unipref.engine.readouts import Head, reward_head

__all__ = ["as_classifier", "check_classifier", "load_reward_head", "load_reward_policy", "padding_token"]

HEAD = "score"  # what transformers calls the head of its decoder-only sequence classifiers
PADDING = "<|pad|>"
_PROBE = (3, 1, 4, 1, 5, 2, 6, 5)  # token ids that every vocabulary has
_TOLERANCE = 1e-3  # of the largest hidden number: rounding of a whole model, not another position or another norm


def as_classifier(model: nn.Module, head: Head) -> Any:
    """The sequence classifier of the model's architecture with one output, which is `head` on the last token.

    It shares the model's weights and is made to be saved: attention functions stay as they are set. Adapters have to be
    merged before.

    Raises:
        ConfigError: transformers has no such class for the architecture, or one that is built otherwise.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    inner = _inner_model(model)
    name = type(inner).__name__
    config = copy.deepcopy(inner.config)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ConfigError(
            f"transformers has no sequence classifier for {name} (model type {config.model_type!r}), so its reward "
            "model could not be loaded anywhere; start from an architecture that has one, such as Llama, Qwen2, "
            "Qwen3, Mistral, Gemma or GPT-2"
        )
    config.num_labels = 1
    config.get_text_config().pad_token_id = None  # an embedding would be built around it; the caller says which it is
    with torch.device("meta"):
        made = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config)
    body, score = made.base_model_prefix, getattr(made, HEAD, None)
    ours = getattr(inner, inner.base_model_prefix, None)
    same_head = isinstance(score, nn.Linear) and score.weight.shape == head.module.weight.shape and score.bias is None
    if type(getattr(made, body, None)) is not type(ours) or not same_head:
        raise ConfigError(
            f"{type(made).__name__} of transformers is not built as {name} with a linear head on its last token, so a "
            "reward model trained on it would score otherwise once saved; start from another architecture"
        )
    setattr(made, body, ours)
    setattr(made, HEAD, head.module)
    return made.eval()


@torch.no_grad()
def check_classifier(policy: Policy) -> None:
    """Refuse a policy whose reward model could not be saved so that transformers gives the same numbers.

    The classifier is tried on a few tokens with a head of random weights, since the one to be trained gives 0.

    Raises:
        ConfigError: it has no such class, or that gives other numbers.
    """
    head = reward_head(policy.heads["reward_head"].module.in_features).to(policy.device)
    nn.init.normal_(head.module.weight, generator=torch.Generator(policy.device).manual_seed(0))
    training = policy.training
    made = as_classifier(policy.eval().model, head)
    try:
        ids = torch.tensor([_PROBE], device=policy.device) % policy.config.get_text_config().vocab_size
        hidden = getattr(made, made.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
        dtype = hidden.dtype
        head.to(dtype)
        found, expected = made(input_ids=ids, use_cache=False).logits.double()[0, 0], head(hidden[0, -1:]).double()[0]
    finally:
        policy.train(training)
    allowed = _TOLERANCE if dtype in (torch.float32, torch.float64) else 0.05
    scale = float(hidden.double().norm(dim=-1).max()) * max(1.0, float(head.module.weight.double().std()))
    if not abs(float(found - expected)) <= allowed * scale:
        raise ConfigError(
            f"{type(made).__name__} of transformers gives {float(found):.4f} where its head on the last hidden state "
            f"gives {float(expected):.4f}, so a saved reward model would score otherwise; start from another "
            "architecture"
        )


def load_reward_head(start: Path | str) -> Head | None:
    """The head of the reward model in the folder `start`; None where that is no sequence classifier with one output.

    Raises:
        ConfigError: it is one, and its head is missing.
    """
    folder = Path(_locate(start))
    if not is_classifier(folder):
        return None
    weight = _tensor(folder, f"{HEAD}.weight")
    if weight is None or len(weight) != 1:
        raise ConfigError(
            f"{start} is a sequence classifier without a linear head of one output called {HEAD!r}; start from a "
            "causal language model, or from a reward model that has one"
        )
    head = reward_head(weight.shape[1])
    with torch.no_grad():
        head.module.weight.copy_(weight)
    return head


def is_classifier(folder: Path | str) -> bool:
    """Whether the saved model in `folder` is a sequence classifier, and so no language model."""
    try:
        told = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(str(name).endswith("ForSequenceClassification") for name in told.get("architectures") or ())


def load_reward_policy(
    folder: Path | str, *, dtype: str = "float32", trust_remote_code: bool = False, longest: int | None = None
) -> Policy:
    """The reward model that a run wrote into `folder`, as the engine runs it: tries to the column "reward_head".

    Raises:
        ConfigError: there is none.
    """
    head = load_reward_head(folder)
    if head is None:
        raise ConfigError(f"{folder} holds no reward model; its config.json names no sequence classifier")
    model = load_model(folder, dtype=dtype, trust_remote_code=trust_remote_code, headless=True)
    return Policy(model, heads={"reward_head": head}, longest=longest).eval()


def padding_token(tokenizer: Any, ends: Collection[int]) -> tuple[int, bool]:
    """The id of a padding token that ends no response, set in `tokenizer`, and whether it had to be added.

    A classifier of transformers reads its number at the last token that is no padding. Where padding is the token that
    ends responses, as it often is, that is one token too early, in every row. Then the token that begins texts stands
    in, which comes last nowhere, or else a new one.

    Args:
        ends: the tokens that responses end with.
    """
    for name in ("pad_token", "bos_token"):
        known = getattr(tokenizer, f"{name}_id")
        if known is not None and known != tokenizer.eos_token_id and known not in ends:
            tokenizer.pad_token = getattr(tokenizer, name)
            return known, False
    added = tokenizer.add_special_tokens({"pad_token": PADDING})
    return tokenizer.pad_token_id, bool(added)


def _tensor(folder: Path, name: str) -> torch.Tensor | None:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            if name in file.keys():  # noqa: SIM118 (no mapping)
                return file.get_tensor(name).float()
    return None
