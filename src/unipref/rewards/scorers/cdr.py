"""The log density ratio of a strong language model over a weak one, as a reward that nobody trained."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Item, Message, Text, last_user_turn, plain_text
from unipref.rewards.scorers._common import check_choice, strings
from unipref.rewards.scorers._language import (
    LanguageModel,
    as_plain,
    check_language_model,
    load_language_model,
    turns,
)

__all__ = ["DensityRatio"]

REDUCE = ("sum", "mean")
READERS = ("strong", "both")
DOMAIN_KEYS = ("when", "instruction", "exemplars")


@method(
    "cdr",
    kind="scorer",
    source="arXiv:2411.02481, its abstract, and the authors' code",
    formula="sum_t log pi_strong(y_t | i_d, x, y_<t) - sum_t log pi_weak(y_t | x, y_<t)",
    citation=Citation(
        "Dr. SoW: Density Ratio of Strong-over-weak LLMs for Reducing the Cost of Human Annotation in Preference "
        "Tuning",
        ("Guangxuan Xu", "Kai Xu", "Shivchander Sudalairaj", "Hao Wang", "Akash Srivastava"),
        2024,
        "2411.02481",
    ),
)
@dataclass(frozen=True)
class DensityRatio:
    """How much likelier a strong language model finds a response than a weak one does, in nats.

    Two equal models give exactly 0. A strong model that is the weak one tilted by exp(r / beta) gives r / beta up to a
    number of the prompt, so it orders responses to one prompt as r does: the ratio is DPO's implicit reward for any two
    models. The wider apart the two are in quality, the better the reward.

    Each model reads the text with its own tokenizer and, where it has one, in its own chat template (the released code
    sends one rendered text to both). Special tokens do not count, as in that code; line breaks do, which it leaves out.
    A response that is empty, or that is longer with its prompt than either model reads, has no score; nothing is cut,
    since the two would be asked about different texts.

    An instruction says what is wanted, so that the same models judge by other criteria. It stands in the system message
    (before the prompt, for a model without a chat template), for all prompts or by domain.

    Args:
        strong, weak: hub ids or folders of causal language models, or "bundled".
        reduce: "sum" over the response's tokens; or "mean", the sum divided by the tokens that the strong model reads,
            as the released code has it beside the sum. A sum adds up over the parts of a response and grows with its
            length where the strong model is surer throughout; a mean does neither.
        instruction: what the response should be, in words, for prompts that no domain claims.
        exemplars: texts that stand behind the instruction, each written out as the model should read it.
        domains: name -> {when: pattern or list of patterns, instruction: ..., exemplars: [...]}. The first domain of
            which a pattern (a regular expression, whatever the case) is found in the last user turn gives both.
        instructed: "strong" alone is told the instruction, or "both".
        max_length: tokens of the longest text that is read; what each model can read where not given.
        max_tokens_per_forward: of one pass through a model; changes time and memory alone.
        dtype: "auto" is float32 on a CPU and the checkpoint's own precision on a GPU.
    """

    name: ClassVar[str] = "cdr"
    strong: str
    weak: str
    reduce: str = "sum"
    instruction: str | None = None
    exemplars: tuple[str, ...] = ()
    domains: Mapping[str, Mapping[str, Any]] | None = None
    instructed: str = "strong"
    max_length: int | None = None
    max_tokens_per_forward: int = 4096
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for option in ("strong", "weak"):
            check_language_model(
                self.name,
                option,
                getattr(self, option),
                dtype=self.dtype,
                max_length=self.max_length,
                budget=self.max_tokens_per_forward,
                trust=self.trust_remote_code,
            )
        check_choice(self.name, "reduce", self.reduce, REDUCE)
        check_choice(self.name, "instructed", self.instructed, READERS)
        object.__setattr__(self, "exemplars", strings(self.name, "exemplars", self.exemplars))
        _ = self._domains

    @property
    def version(self) -> str:
        """From the weights and tokenizers of both models, and the options that decide the number."""
        strong, weak = self._models
        told = (self.instruction, self.exemplars, [(d.patterns, d.text) for d in self._domains], self.instructed)
        lengths = strong.longest, weak.longest
        return f"1 {strong.identity} {weak.identity} {self.reduce} {lengths} {told!r}"

    @cached_property
    def _domains(self) -> tuple["_Domain", ...]:
        if self.domains is not None and not isinstance(self.domains, Mapping):
            raise ConfigError(f"cdr: domains is a mapping from names to {{when, instruction}}, not {self.domains!r}")
        return tuple(_Domain.of(str(name), given) for name, given in (self.domains or {}).items())

    @cached_property
    def _models(self) -> tuple[LanguageModel, LanguageModel]:
        def load(name: str) -> LanguageModel:
            return load_language_model(
                self.name,
                name,
                dtype=self.dtype,
                max_length=self.max_length,
                budget=self.max_tokens_per_forward,
                trust_remote_code=self.trust_remote_code,
            )

        strong = load(self.strong)
        return strong, strong if self.weak == self.strong else load(self.weak)

    def domain_of(self, context: Text) -> str | None:
        """The name of the domain that claims `context`; None where none does."""
        return next((domain.name for domain in self._domains if domain.claims(context)), None)

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) nats (a token, with `reduce="mean"`); NaN for a response that is empty, too long, or that a chat
        template refuses.

        Raises:
            ConfigError: a model cannot be loaded.
            DataError: not one response can be put before a model.
        """
        some = [i for i, response in enumerate(responses) if plain_text(response).strip()]
        scores = np.full(len(responses), np.nan)
        if not some:
            return scores
        strong, weak = self._models
        pairs = [(contexts[i], responses[i]) for i in some]
        found = [
            model.token_logp([self._item(model, *pair, told=told) for pair in pairs])
            for model, told in ((strong, True), (weak, self.instructed == "both"))
        ]
        for i, sure, unsure in zip(some, *found, strict=True):
            if sure is not None and unsure is not None:
                ratio = sure[1].sum() - unsure[1].sum()
                scores[i] = ratio / len(sure[1]) if self.reduce == "mean" else ratio
        return scores

    def _item(self, model: LanguageModel, context: Text, response: Text, *, told: bool) -> Item:
        """The response in its context as `model` reads it, with the instruction where it is told one."""
        instruction = self._instruction(context) if told else ""
        if not model.chats:
            before = f"{instruction}\n\n" if instruction else ""
            return Item(before + as_plain(context), plain_text(response))
        messages = turns(context, "user")
        if instruction and messages and messages[0].role == "system":
            first = replace(messages[0], content=f"{instruction}\n\n{messages[0].content}")
            messages = (first, *messages[1:])
        elif instruction:
            messages = (Message("system", instruction), *messages)
        return Item(messages, turns(response, "assistant"))

    def _instruction(self, context: Text) -> str:
        for domain in self._domains:
            if domain.claims(context):
                return domain.text
        return "\n\n".join((*((self.instruction,) if self.instruction else ()), *self.exemplars))


@dataclass(frozen=True)
class _Domain:
    name: str
    patterns: tuple[str, ...]
    text: str

    @classmethod
    def of(cls, name: str, given: object) -> "_Domain":
        if not isinstance(given, Mapping) or "when" not in given or not set(given) & {"instruction", "exemplars"}:
            raise ConfigError(f"cdr: domains.{name} takes `when` and an `instruction` or `exemplars`, not {given!r}")
        for key in given:
            if key not in DOMAIN_KEYS:
                raise ConfigError(f"cdr: domains.{name} has no key {key!r}{nearest(str(key), DOMAIN_KEYS)}")
        patterns = strings("cdr", f"domains.{name}.when", given["when"])
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as err:
                raise ConfigError(f"cdr: domains.{name}: {pattern!r} is no regular expression ({err})") from err
        said = given.get("instruction") or ()
        parts = (
            *strings("cdr", f"domains.{name}.instruction", said),
            *strings("cdr", f"domains.{name}.exemplars", given.get("exemplars") or ()),
        )
        return cls(name, patterns, "\n\n".join(parts))

    def claims(self, context: Text) -> bool:
        asked = last_user_turn(context)
        return any(re.search(pattern, asked, re.IGNORECASE) for pattern in self.patterns)
