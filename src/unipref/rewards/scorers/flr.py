"""How likely a language model finds it that the user is pleased: follow-up likelihood as reward."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Item, Message, Text, plain_text
from unipref.data.encode import CONTINUES
from unipref.rewards.scorers._common import strings
from unipref.rewards.scorers._language import (
    LanguageModel,
    as_plain,
    check_language_model,
    load_language_model,
    turns,
)

__all__ = ["FollowUpLikelihood", "bundled_follow_ups"]

SIDES = ("positive", "negative")
_AT_ONCE = 256  # responses whose follow-ups are tokenised at a time
FollowUps = Mapping[str, Mapping[str, Sequence[str]]]


@method(
    "flr",
    kind="scorer",
    source="arXiv:2409.13948, its abstract, and the authors' code",
    formula="mean over aspects of (mean_{f in positive} L(f | x, y) - mean_{f in negative} L(f | x, y)), L per token",
    citation=Citation(
        "Aligning Language Models Using Follow-up Likelihood as Reward Signal",
        (
            "Chen Zhang",
            "Dading Chong",
            "Feng Jiang",
            "Chengguang Tang",
            "Anningzhe Gao",
            "Guohua Tang",
            "Haizhou Li",
        ),
        2024,
        "2409.13948",
    ),
)
@dataclass(frozen=True)
class FollowUpLikelihood:
    """How much likelier a language model finds a pleased next message of the user than a displeased one, in nats.

    Each follow-up stands where the user would write it, as the next turn in the model's chat template (as a new
    paragraph, for a model without one), and counts by the mean log-probability of its own tokens. Aspects count alike,
    however long their lists. The same list on both sides gives exactly 0, and lists exchanged the negative reward. An
    empty response, or one that is longer than the model reads, has no score; nothing is cut.

    The released code averages raw logits, and reads each token's at the token's own position; what the abstract says
    is the log-likelihood, and it is read at the position before. Its lists are the authors'; those here are our own,
    five and five for each of the same six aspects.

    Args:
        model: hub id or folder of a causal language model that follows conversations, or "bundled".
        follow_ups: a YAML file, or the same as a mapping: aspect -> {positive: [...], negative: [...]}. Write them in
            the language of the data; the package's own, in English, where not given.
        aspects: the aspects that count; all where not given.
        max_length: tokens of the longest text that is read; what the model can read where not given.
        max_tokens_per_forward: of one pass through a model; changes time and memory alone.
        dtype: "auto" is float32 on a CPU and the checkpoint's own precision on a GPU.
    """

    name: ClassVar[str] = "flr"
    model: str
    follow_ups: str | FollowUps | None = None
    aspects: tuple[str, ...] | None = None
    max_length: int | None = None
    max_tokens_per_forward: int = 4096
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_language_model(
            self.name,
            "model",
            self.model,
            dtype=self.dtype,
            max_length=self.max_length,
            budget=self.max_tokens_per_forward,
            trust=self.trust_remote_code,
        )
        if self.aspects is not None:
            object.__setattr__(self, "aspects", strings(self.name, "aspects", self.aspects))
        _ = self._lists  # what is wrong with them is said before a model is loaded

    @property
    def version(self) -> str:
        """From the weights, the tokenizer with its chat template, the longest text read, and the follow-ups."""
        lists = hashlib.sha256(json.dumps(self._lists, sort_keys=True).encode()).hexdigest()[:32]
        return f"1 {self._loaded.identity} {self._loaded.longest} {lists}"

    @cached_property
    def _loaded(self) -> LanguageModel:
        return load_language_model(
            self.name,
            self.model,
            dtype=self.dtype,
            max_length=self.max_length,
            budget=self.max_tokens_per_forward,
            trust_remote_code=self.trust_remote_code,
        )

    @cached_property
    def _lists(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Aspect -> side -> follow-ups."""
        if self.follow_ups is None:
            found, where = bundled_follow_ups(), "follow_ups"
        elif isinstance(self.follow_ups, str):
            found, where = _read(Path(self.follow_ups).expanduser()), self.follow_ups
        else:
            found, where = self.follow_ups, "follow_ups"
        if not isinstance(found, Mapping) or not found:
            raise ConfigError(f"flr: {where} is a mapping from aspects to {{positive: [...], negative: [...]}}")
        unknown = [aspect for aspect in self.aspects or () if aspect not in found]
        if unknown:
            raise ConfigError(f"flr: {where} has no aspect {unknown[0]!r}{nearest(unknown[0], map(str, found))}")
        lists = {}
        for aspect in self.aspects or found:
            sides = found[aspect]
            if not isinstance(sides, Mapping) or set(sides) != set(SIDES):
                raise ConfigError(
                    f"flr: {where}: {aspect!r} has a list `positive` and a list `negative`, not {sides!r}"
                )
            lists[str(aspect)] = {side: strings("flr", f"{where}: {aspect}.{side}", sides[side]) for side in SIDES}
            if not all(lists[str(aspect)].values()):
                raise ConfigError(f"flr: {where}: {aspect!r} has an empty list; give at least one follow-up a side")
        return lists

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) nats per token; NaN for a response that is empty, too long, or that the chat template refuses.

        Raises:
            ConfigError: the model cannot be loaded, or the template changes a follow-up's words.
            DataError: not one response can be put before the model.
        """
        texts = list(dict.fromkeys(text for sides in self._lists.values() for side in SIDES for text in sides[side]))
        scores = np.full(len(responses), np.nan)
        some = [i for i, response in enumerate(responses) if plain_text(response).strip()]
        for first in range(0, len(some), _AT_ONCE):
            before = {i: self._before(contexts[i], responses[i], texts[0]) for i in some[first : first + _AT_ONCE]}
            before = {i: start for i, start in before.items() if start is not None}
            items = [Item(start, text, columns={CONTINUES: 1.0}) for start in before.values() for text in texts]
            found = iter(self._loaded.token_logp(items) if items else [])
            for i in before:
                values = [next(found) for _ in texts]
                if all(value is not None for value in values):
                    scores[i] = self._reward({t: float(v[1].mean()) for t, v in zip(texts, values, strict=True)})
        return scores

    def _reward(self, likelihood: Mapping[str, float]) -> float:
        """The reward from the mean log-probability of every follow-up."""
        means = (
            [np.mean([likelihood[text] for text in sides[side]]) for side in SIDES] for sides in self._lists.values()
        )
        return float(np.mean([positive - negative for positive, negative in means]))

    def _before(self, context: Text, response: Text, follow_up: str) -> str | None:
        """All that stands before the user's next words; None where the chat template refuses the conversation."""
        if not self._loaded.chats:
            return f"{as_plain(context)}{plain_text(response)}\n\n"
        messages = (*turns(context, "user"), *turns(response, "assistant"), Message("user", follow_up))
        whole = self._loaded.rendered(messages)
        if whole is None:
            return None
        at = whole.rfind(follow_up.strip())
        if at < 0:
            raise ConfigError(
                f"flr: the chat template of {self.model!r} changes the words of the follow-up {follow_up!r}; write it "
                "so that the template leaves it as it is"
            )
        return whole[:at]


def bundled_follow_ups() -> dict[str, Any]:
    """The package's own follow-ups, in English: aspect -> {"positive": [...], "negative": [...]}."""
    path = files("unipref") / "assets" / "follow_ups" / "english.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"flr: follow_ups: {path} cannot be read ({err}); give a YAML file in UTF-8") from err
    except yaml.YAMLError as err:
        raise ConfigError(f"flr: follow_ups: {path} is no YAML ({' '.join(str(err).split())})") from err
