"""The reward of any model that was trained as a reward model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Text, as_turns, plain_text
from unipref.rewards.as_trained import AsTrained, read_backbone
from unipref.rewards.scorers._common import UNIPREF, check_choice
from unipref.rewards.scorers._models import SequenceModel, check_model_options, load_sequence_model

__all__ = ["RewardModel"]

TEMPLATES = ("auto", "chat", "pair", "trained")


@method("reward_model", kind="scorer", source="unipref", formula="the model's one output", citation=UNIPREF)
@dataclass(frozen=True)
class RewardModel:
    """The one output of a reward model that reads the conversation and the response, in the model's own units.

    Its units are its own: give the objective `normalise` or `clip`. An empty response has no score.

    Args:
        model: hub id or folder of a sequence-classification model with one output.
        template: "trained" (as a reward model that was trained here read its training texts), "chat" (the chat template
            of the model's own tokenizer), "pair" (context and response as the two texts of a pair, for models without
            one), or "auto": the first of these that the model has.
        max_length: of a longer input the beginning is cut, so that the response is read; what the model can read where
            not given.
        dtype: "auto" keeps the checkpoint's own precision.
    """

    name: ClassVar[str] = "reward_model"
    model: str
    template: str = "auto"
    batch_size: int = 8
    max_length: int | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_model_options(self.name, self.model, self.batch_size, self.max_length, self.dtype)
        check_choice(self.name, "template", self.template, TEMPLATES)

    @property
    def version(self) -> str:
        """From the weights, the tokenizer with its chat template, and the options that decide the number."""
        template = repr(self._trained) if self._template == "trained" else self._template
        return f"1 {self._loaded.identity} {template} {self._loaded.max_length}"

    @cached_property
    def _loaded(self) -> SequenceModel:
        return load_sequence_model(
            self.name,
            self.model,
            dtype=self.dtype,
            max_length=self.max_length,
            trust_remote_code=self.trust_remote_code,
            outputs=1,
        )

    @cached_property
    def _template(self) -> str:
        if self.template == "trained" and self._trained is None:
            raise ConfigError(
                f"{self.name}: {self.model} does not say how its training texts were read; give template: chat or pair"
            )
        if self.template != "auto":
            return self.template
        if self._trained is not None:
            return "trained"
        return "chat" if self._loaded.tokenizer.chat_template else "pair"

    @cached_property
    def _trained(self) -> AsTrained | None:
        return read_backbone(self.model)

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) in the model's units; NaN for an empty response, and for one that its chat template refuses.

        Raises:
            ConfigError: the model cannot be loaded, has more than one output, or lacks the template asked for.
        """
        some = [i for i, response in enumerate(responses) if plain_text(response).strip()]
        scores = np.full(len(responses), np.nan)
        if some and self._template == "trained":
            ids = self._trained.encode(
                self._loaded.tokenizer,
                [contexts[i] for i in some],
                [responses[i] for i in some],
                self._loaded.max_length,
            )
            some = [i for i, found in zip(some, ids, strict=True) if found is not None]
            encoded = [found for found in ids if found is not None]
            scores[some] = self._loaded.logits(encoded, self.batch_size)[:, 0] if some else []
        elif some:
            encode = self._chat if self._template == "chat" else self._pair
            encoded, types = zip(*(encode(contexts[i], responses[i]) for i in some), strict=True)
            scores[some] = self._loaded.logits(encoded, self.batch_size, types)[:, 0]
        return scores

    def _chat(self, context: Text, response: Text) -> tuple[list[int], None]:
        """Token ids of the conversation; its special tokens are the template's own."""
        tokenizer = self._loaded.tokenizer
        text = tokenizer.apply_chat_template([*_turns(context, "user"), *_turns(response, "assistant")], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[-self._loaded.max_length :], None

    def _pair(self, context: Text, response: Text) -> tuple[list[int], list[int] | None]:
        """Token ids and token types of context and response as a pair of texts."""
        tokenizer = self._loaded.tokenizer
        tokenizer.truncation_side = "left"
        limit = self._loaded.max_length
        size = len(tokenizer(plain_text(response), add_special_tokens=False)["input_ids"])
        fits = size + tokenizer.num_special_tokens_to_add(pair=True) < limit
        encoded = tokenizer(
            plain_text(context),
            plain_text(response),
            truncation="only_first" if fits else "longest_first",  # the context gives way, while that is enough
            max_length=limit,
        )
        return encoded["input_ids"], encoded.get("token_type_ids")


def _turns(text: Text, role: str) -> list[dict[str, str]]:
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    return as_turns(text)
