"""The reward of a preference model that `unipref reward train` fitted, for everybody or for one user or domain."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Text, plain_text
from unipref.rewards.scorers._common import UNIPREF

if TYPE_CHECKING:
    from unipref.rewards.trained import TextPreferenceModel

__all__ = ["FittedPreferenceModel"]


@method(
    "preference_model",
    kind="scorer",
    source="unipref",
    formula="r(x, y) of the fitted model; for a user or domain where the model knows them",
    citation=UNIPREF,
)
@dataclass(frozen=True)
class FittedPreferenceModel:
    """What a fitted preference model gives a response, in log-odds up to a constant per prompt.

    The constant is of no account in a comparison of responses to one prompt, and it is in one across prompts: give an
    objective that compares prompts `normalise`. An empty response has no score.

    Args:
        model: folder of `unipref reward train`, or of `PreferenceModel.save`.
        user: whose reward it is; None: what the model has for somebody unknown.
        domain: which domain's reward it is; likewise.
    """

    name: ClassVar[str] = "preference_model"
    model: str
    user: str | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"preference_model: model is the folder of a fitted model, not {self.model!r}")

    @property
    def version(self) -> str:
        """From the model's numbers and its features'."""
        return f"{self._fitted.version} {self.user} {self.domain}"

    @cached_property
    def _fitted(self) -> "TextPreferenceModel":
        from unipref.rewards.trained import TextPreferenceModel

        found = TextPreferenceModel.load(self.model)
        for what, asked, known in (
            ("user", self.user, found.model.users_),
            ("domain", self.domain, found.model.domains_),
        ):
            if asked is None:
                continue
            if what not in found.model.needs:
                raise ConfigError(f"preference_model: {self.model} ({found.model.key}) reads no {what}; leave it out")
            if asked not in known:
                raise ConfigError(
                    f"preference_model: {self.model} does not know the {what} {asked!r} "
                    f"({len(known)} known, such as {', '.join(known[:5])}); `unipref reward adapt` teaches it"
                )
        return found

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) rewards; NaN for an empty response.

        Raises:
            ConfigError: the folder holds no such model, or the model does not know the user or domain.
        """
        texts = [plain_text(response) for response in responses]
        some = [i for i, text in enumerate(texts) if text.strip()]
        scores = np.full(len(texts), np.nan)
        if some:
            scores[some] = self._fitted.rewards(
                [plain_text(contexts[i]) for i in some],
                [texts[i] for i in some],
                user=self.user,
                domain=self.domain,
            )
        return scores
