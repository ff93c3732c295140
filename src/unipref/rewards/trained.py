"""A fitted preference model with the features it reads: texts in, verdicts and rewards out."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError
from unipref.core.io import to_json
from unipref.core.records import Record
from unipref.data.pairs import Pairs
from unipref.rewards._features import FeatureReport, Features, FeatureSpec, make_features, preference_table
from unipref.rewards.models import PreferenceModel, load_preference_model
from unipref.rewards.table import PreferenceTable
from unipref.store import FeatureStore

__all__ = ["TextPreferenceModel"]

FOLDER = "model"  # of a run, where the model lies


@dataclass(frozen=True, eq=False)
class TextPreferenceModel:
    """A `PreferenceModel` and what turns texts into the numbers it was fitted to.

    Attributes:
        store: keeps the numbers of texts; None: they are made anew each time.
    """

    model: PreferenceModel
    features: Features
    store: FeatureStore | None = None

    def table(
        self,
        pairs: Pairs,
        *,
        records: Iterable[Record] | None = None,
        attributes: Sequence[str] | None = None,
        report: FeatureReport | None = None,
    ) -> PreferenceTable:
        """`pairs` as the model reads them; see `preference_table`."""
        return preference_table(pairs, self.features, self.store, records=records, attributes=attributes, report=report)

    def verdicts(self, pairs: Pairs, *, records: Iterable[Record] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(N,) log-odds that the first is preferred, and (N, 2) rewards of both sides, as each pair's user has them."""
        table = self.table(pairs, records=records, attributes=())
        contexts = None if table.contexts is None else table.contexts[table.context]
        who = {"contexts": contexts, "user": table.user, "domain": table.domain}
        sides = [self.model.reward(table.features[rows], **who) for rows in (table.first, table.second)]
        return self.model.decision_function(table), np.stack(sides, axis=1)

    def rewards(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        user: str | Sequence[str] | None = None,
        domain: str | Sequence[str] | None = None,
    ) -> np.ndarray:
        """(n,) rewards, which are comparable among responses to one prompt; see `PreferenceModel.reward`."""
        found = self.features.of_texts(prompts, responses, self.store)
        contexts = None if found.contexts is None else found.contexts[found.context]
        return self.model.reward(found.matrix[found.row], contexts=contexts, user=user, domain=domain)

    def save(self, folder: Path | str) -> None:
        """Write the model's files, which name the features too."""
        self.model.about["features"] = described(self.features)
        self.model.save(folder)

    @classmethod
    def load(
        cls, folder: Path | str, *, store: FeatureStore | None = None, records: Iterable[Record] | None = None
    ) -> "TextPreferenceModel":
        """The model in `folder`, or in the run that `folder` holds.

        Args:
            records: where features that are columns of the data are found.

        Raises:
            ConfigError: there is none, it was fitted to a table without texts, or its features give other numbers
                here than they did where it was fitted.
        """
        path = _where(folder)
        model = load_preference_model(path)
        told = model.about.get("features")
        if told is None:
            raise ConfigError(
                f"{path} was fitted to a table of numbers and reads no texts; in Python, load_preference_model loads it"
            )
        features = make_features(FeatureSpec.of(told["spec"]), records=records)
        found = described(features)["identity"]
        if None not in (found, told["identity"]) and found != told["identity"]:
            raise ConfigError(
                f"{path} was fitted to features that give other numbers here (another version, or other weights under "
                "the same name); install what it was trained with, or train it again"
            )
        return cls(model, features, store)

    @property
    def version(self) -> str:
        """From every number of the model and of its features, wherever it lies."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.net_.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        for scaling in filter(None, (self.model.scaling_, self.model.context_scaling_)):
            digest.update(scaling.centre.tobytes() + scaling.spread.tobytes() + scaling.constant.tobytes())
        told = [self.model.key, dict(self.model.options), self.model.users_, self.model.domains_]
        digest.update(to_json([*told, described(self.features)]).encode())
        return f"1 {digest.hexdigest()}"


def method_of(folder: Path | str) -> str:
    """The key of the model in `folder`, or in the run that it holds.

    Raises:
        ConfigError: there is none.
    """
    return load_preference_model(_where(folder)).key


def _where(folder: Path | str) -> Path:
    path = Path(folder)
    return path / FOLDER if (path / FOLDER / "reward.json").exists() else path


def described(features: Features) -> dict[str, Any]:
    """What a file says of features: how they are made again, and a digest of all that decides their numbers."""
    identity = features.identity
    unknown = None in (*identity["blocks"], *identity["prompts"])  # a block of a user's own that names no version
    digest = None if unknown else hashlib.sha256(to_json(identity).encode()).hexdigest()
    return {"spec": features.spec.to_dict(), "identity": digest}
