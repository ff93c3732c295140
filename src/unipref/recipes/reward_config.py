"""The recipe of a preference model: which data, which features, which model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from unipref.core.cards import REQUIRED, list_methods
from unipref.core.errors import ConfigError, UniprefError
from unipref.recipes._source import Key
from unipref.recipes.config import DataSplit, Name, Names, Section, load_as, not_there, refuse
from unipref.rewards import FeatureSpec, make_model

__all__ = ["Choice", "RewardData", "RewardRecipe", "load_reward_recipe"]


class Choice(Section):
    """A preference model by its name, with its options."""

    method: str = Field(description="`unipref methods --kind reward` lists them")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the model; `unipref methods KEY` lists them"
    )

    @model_validator(mode="after")
    def _exists(self) -> "Choice":
        try:
            make_model(self.method, **self.options)
        except UniprefError as err:
            refuse([(("options",) if self.options else ("method",), str(err))])
        return self


def _all_models(value: Any) -> Any:
    """`all` as an entry for every preference model that needs no option."""
    if value != "all":
        return value
    cards = [card for card in list_methods("reward") if REQUIRED not in card.options.values()]
    return {card.key: {"method": card.key} for card in cards}


class RewardData(DataSplit):
    """Which comparisons are read and how they are split."""

    train: Names = Field(description="a file or data set as `align` reads it, or a list of them")


class RewardRecipe(Choice):
    """A validated recipe of `unipref reward train`; `load_reward_recipe` makes one."""

    name: Name = Field("reward", description="the run folder is runs/NAME; a file's own name stands in for it")
    output: str | None = Field(None, description="another run folder")
    method: str = Field("bt", description="the model; `unipref methods --kind reward` lists them")
    data: RewardData = Field(description="preferences; columns `user` and `domain` where a model reads them")
    features: Any = Field(
        None,
        description="blocks of numbers of a response, side by side, such as [minilm, surface]; null: a sentence model, "
        "or hashed words where none is installed",
    )
    interaction: str = Field(
        "none",
        description="`product`: also prompt vector times response vector, so that a taste may turn on the prompt",
    )
    attributes: tuple[str, ...] | None = Field(
        None, description="which numbers of a response in the data are ratings of it; null: all"
    )
    beside: Annotated[dict[Name, Choice], BeforeValidator(_all_models)] = Field(
        default_factory=lambda: {"bt": Choice(method="bt")},
        description="models fitted to the same features, to compare with; `all`: every model at its defaults",
    )
    left_out_domains: bool = Field(
        False, description="also fit once without each domain, to say what the model is worth in one it never saw"
    )

    @model_validator(mode="after")
    def _fits(self) -> "RewardRecipe":
        try:
            self.spec  # noqa: B018 (raises)
        except ConfigError as err:
            refuse([(("features",), str(err))])
        return self

    @property
    def spec(self) -> FeatureSpec:
        """The features, as the rooms below read them."""
        value = self.features
        if isinstance(value, Mapping) and "features" in value:
            return FeatureSpec.of(value)
        blocks = ["default"] if value is None else [value] if isinstance(value, str | Mapping) else list(value)
        return FeatureSpec.of({"features": blocks, "interaction": self.interaction})

    @property
    def label(self) -> str:
        """What the model is called beside others: its key, or `model` where another setting of it has that name."""
        own = Choice(method=self.method, options=self.options)
        return self.method if self.beside.get(self.method, own) == own else "model"

    @property
    def folder(self) -> Path:
        """Where the run goes."""
        return Path(self.output) if self.output else Path("runs") / self.name

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as plain data."""
        return self.model_dump(mode="json")


def load_reward_recipe(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, full: bool = False
) -> RewardRecipe:
    """The recipe in `source` with `overrides`, validated; see `load_recipe`.

    Raises:
        ConfigError: one message with every fault found.
    """
    return load_as(RewardRecipe, source, overrides, keys=_known_keys, missing=_missing, full=full)


def _known_keys(key: Key) -> list[str]:
    known = {(): RewardRecipe, ("data",): RewardData, ("beside",): Choice}
    sections = tuple(part for part in key if isinstance(part, str))
    return list(known[sections[:1]].model_fields)


def _missing(recipe: RewardRecipe) -> list[tuple[Key, str]]:
    named = [(("data", "train"), source) for source in recipe.data.train]
    return not_there([*named, (("data", "eval"), recipe.data.eval)])
