"""Texts of comparisons as the numbers that preference models read: made once, kept, laid out as one matrix."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Record
from unipref.data.pairs import Pairs
from unipref.features.embedding import (
    EMBEDDERS,
    Embedder,
    OfResponses,
    default_embedder,
    embeds_texts,
    make_embedder,
)
from unipref.rewards._backbone import Backbone
from unipref.rewards._given import Columns, Given
from unipref.rewards._vectors import FeatureReport, Own, Part, Product, Texts, Work, distinct, for_prompts
from unipref.rewards.table import PreferenceTable
from unipref.store import FeatureStore, text_key

__all__ = ["BLOCKS", "FeatureReport", "FeatureSpec", "Features", "TextFeatures", "make_features", "preference_table"]

Interaction = Literal["none", "product"]
BLOCKS = (*EMBEDDERS, "backbone", "columns")  # the words of `features:`
_TEXT_BLOCKS = ("minilm", "hashed", "bag_of_words", "model")  # those that embed prompts too
_KEYS = ("features", "interaction", "contexts")


@dataclass(frozen=True)
class FeatureSpec:
    """Which numbers stand for a response, as a recipe says it.

    Attributes:
        features: names of blocks (BLOCKS, or "default"), each alone or as {NAME: OPTIONS}; `columns: [a, b]` are
            numbers that the data carry for each response. Their vectors stand side by side.
        interaction: "product" adds, for every block that embeds texts, prompt vector times response vector, number by
            number, so that a weighted sum can like one thing here and another there.
        contexts: make vectors of prompts too, by the first block that embeds texts; models that read prompts need them.
    """

    features: tuple[str | Mapping[str, Any], ...] = ("default",)
    interaction: Interaction = "none"
    contexts: bool = True

    def __post_init__(self) -> None:
        if not self.features:
            raise ConfigError(f"features: name at least one of {', '.join(BLOCKS)}")
        for choice in self.features:
            for name in choice if isinstance(choice, Mapping) else [choice]:
                if isinstance(name, str) and name not in ("default", *BLOCKS):  # others are a user's own
                    raise ConfigError(f"no features named {name!r}{nearest(name, ['default', *BLOCKS])}")

    @classmethod
    def of(cls, value: "FeatureSpec | Mapping[str, Any] | Sequence[Any] | str | None") -> "FeatureSpec":
        """The choice that `value` writes: a spec, its three keys, a list of blocks, one block, or None for the default.

        Raises:
            ConfigError: an unknown key or word.

        Example:
            >>> FeatureSpec.of(["hashed", "surface"])
            FeatureSpec(features=('hashed', 'surface'), interaction='none', contexts=True)
        """
        if isinstance(value, FeatureSpec):
            return value
        if value is None:
            return cls()
        if isinstance(value, Mapping) and not set(value) & set(_KEYS):
            value = [value]
        if not isinstance(value, Mapping):
            value = {"features": [value] if isinstance(value, str) else list(value)}
        for key in value:
            if key not in _KEYS:
                raise ConfigError(f"features have no key {key!r}{nearest(str(key), _KEYS)}")
        blocks = value.get("features", ("default",))
        spec = cls(
            ((blocks,) if isinstance(blocks, str | Mapping) else tuple(blocks)),
            value.get("interaction", "none"),
            value.get("contexts", True),
        )
        if spec.interaction not in get_args(Interaction):
            raise ConfigError(f"interaction is 'none' or 'product', not {spec.interaction!r}")
        if not isinstance(spec.contexts, bool):
            raise ConfigError(f"contexts is true or false, not {spec.contexts!r}")
        return spec

    def to_dict(self) -> dict[str, Any]:
        """The three keys as JSON; `FeatureSpec.of` reads it.

        Raises:
            ConfigError: a block is an object of the caller's, which no file can hold.
        """
        for block in self.features:
            if not isinstance(block, str | Mapping):
                raise ConfigError(f"the features {block!r} are an object, which no file can hold; give their name")
        return {"features": list(self.features), "interaction": self.interaction, "contexts": self.contexts}


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Numbers of n responses in their contexts.

    Attributes:
        matrix: (M, D) float32, one row per distinct response to a prompt; memory-mapped where a store was given.
        row: (n,) rows of it.
        contexts: (C, E) float32, one row per distinct prompt, and context: (n,) rows of it; None where not asked for,
            where no block embeds texts, or where no response has a prompt.
        columns: (D) names.
    """

    matrix: np.ndarray
    row: np.ndarray
    contexts: np.ndarray | None
    context: np.ndarray | None
    columns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Features:
    """The blocks of a `FeatureSpec`, ready to be asked; `make_features` makes it.

    Attributes:
        spec: with the default replaced by what it stands for here, so that a model can be used with nothing else.
        notes: what a user is to be told of the choice.
    """

    spec: FeatureSpec
    blocks: tuple[Embedder | OfResponses, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers, such as "minilm.17", "minilm.17 x prompt", "surface.tokens"."""
        return tuple(name for part in self._parts() for name in part.columns)

    @property
    def identity(self) -> dict[str, Any]:
        """JSON that changes whenever a text may get other numbers; None in it: of a block, nobody knows."""
        return {
            "blocks": [block.identity for block in self.blocks],
            "interaction": self.spec.interaction,
            "prompts": [for_prompts(block).identity for block in self.blocks if embeds_texts(block)],
        }

    def of_texts(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        store: FeatureStore | None = None,
        *,
        report: FeatureReport | None = None,
    ) -> TextFeatures:
        """The numbers of n responses to n prompts; with a store what is there is not computed again.

        Raises:
            DataError: a block gives numbers that are not finite, or the data lack a column.
            StoreError: the store cannot be read or written.
        """
        work = Work(store, report)
        keys = [text_key(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        place, row = distinct(keys)
        asked, context = distinct([text_key(prompt) for prompt in prompts])
        texts = Texts(
            prompts=[prompts[i] for i in place],
            responses=[responses[i] for i in place],
            keys=[keys[i] for i in place],
            context=context[place],
            asked=[prompts[i] for i in asked],
        )
        sources = [part.source(texts, work) for part in self._parts()]
        matrix = work.laid_out(sources, len(place))
        contexts = None
        first = next((block for block in self.blocks if embeds_texts(block)), None)
        if self.spec.contexts and first is not None and any(texts.asked):
            contexts = work.laid_out([work.prompts(first, texts)], len(asked))
        if report is not None:
            report.notes += [note for note in self.notes if note not in report.notes]
        return TextFeatures(matrix, row, contexts, None if contexts is None else context, self.columns)

    def table(
        self, pairs: Pairs, store: FeatureStore | None = None, *, report: FeatureReport | None = None, **more: Any
    ) -> PreferenceTable:
        """`pairs` with the numbers of their responses; `more` are further columns of the table."""
        prompts = [prompt for prompt in pairs.prompt.tolist() for _ in range(2)]
        sides = [side for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True) for side in pair]
        found = self.of_texts(prompts, sides, store, report=report)
        return PreferenceTable.of_pairs(
            pairs,
            found.matrix,
            found.row[0::2],
            found.row[1::2],
            contexts=found.contexts,
            context=None if found.context is None else found.context[0::2],
            columns=found.columns,
            **more,
        )

    def _parts(self) -> list[Part]:
        parts: list[Part] = [Own(block) for block in self.blocks]
        if self.spec.interaction == "product":
            parts += [Product(block) for block in self.blocks if embeds_texts(block)]
        return parts


def make_features(spec: Any = None, *, records: Iterable[Record] | None = None) -> Features:
    """The features that `spec` names (`FeatureSpec.of` reads it).

    Args:
        records: where the block `columns` finds its numbers.

    Raises:
        ConfigError: no such block, an option that it has not, a column that the data have not, a product without a
            block that embeds texts.
        MissingExtraError: a block needs a package that is not installed.

    Example:
        >>> make_features([{"hashed": {"dimension": 2}}, "surface"]).columns[:3]
        ('hashed.0', 'hashed.1', 'surface.characters')
    """
    spec, notes = FeatureSpec.of(spec), []
    if "default" in spec.features:
        chosen = default_embedder()
        spec = replace(spec, features=tuple(chosen if block == "default" else block for block in spec.features))
        if chosen == "hashed":
            notes.append(
                "the features are hashed words and letters, as no sentence model is installed "
                "(pip install 'unipref[embeddings]')"
            )
    rows = None if records is None else list(records)
    blocks = tuple(_block(choice, rows) for choice in spec.features)
    names = [block.name for block in blocks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"features: {name} is there twice; leave one out, or give one another `name` in its options"
            )
    if spec.interaction == "product" and not any(embeds_texts(block) for block in blocks):
        raise ConfigError(
            f"interaction: product needs a block that embeds prompts ({', '.join(_TEXT_BLOCKS)}); "
            f"there are only {', '.join(names)}"
        )
    return Features(spec, blocks, tuple(notes))


def preference_table(
    pairs: Pairs,
    spec: Any = None,
    store: FeatureStore | None = None,
    *,
    records: Iterable[Record] | None = None,
    attributes: Sequence[str] | None = None,
    report: FeatureReport | None = None,
) -> PreferenceTable:
    """`pairs` with the numbers of their responses, as preference models are fitted to them.

    Args:
        spec: `Features`, or what `FeatureSpec.of` reads; None: a sentence model, or hashed words where there is none.
        store: keeps every vector and maps the matrix; None: computed anew, in memory.
        records: of which the pairs were made. Their items' numbers are the table's attributes, and the block `columns`.
        attributes: which of these numbers; None: all that stand on a compared response, () for none.
        report: is told what was computed, kept and cut.

    Raises:
        ConfigError, DataError, MissingExtraError, StoreError: as `make_features` and `Features.of_texts`.
    """
    rows = None if records is None else list(records)
    features = spec if isinstance(spec, Features) else make_features(spec, records=rows)
    table = features.table(pairs, store, report=report)
    if rows is None:
        if attributes:
            raise ConfigError(f"the attributes {', '.join(attributes)} are numbers of the records; give records=")
        return table
    given = Given.of(rows, attributes)
    if not given.names:
        return table
    ratings = np.full((len(table.features), len(given.names)), np.nan)
    for side, texts in ((table.first, pairs.first), (table.second, pairs.second)):
        ratings[side] = given.values(pairs.prompt.tolist(), texts.tolist())
    return table.with_columns(attributes=ratings, attribute_names=given.names)


def _block(choice: Any, records: Sequence[Record] | None) -> Embedder | OfResponses:
    if hasattr(choice, "embed") or hasattr(choice, "of_responses"):  # a user's own
        return choice
    name, options = next(iter(choice.items())) if isinstance(choice, Mapping) and len(choice) == 1 else (choice, None)
    if name == "columns":
        if not isinstance(options, Sequence) or isinstance(options, str) or not options:
            raise ConfigError("the features columns are named: `columns: [NAME, ...]`, numbers that each response has")
        if records is None:
            raise ConfigError(
                f"the features columns ({', '.join(map(str, options))}) are read from records; give records="
            )
        return Columns(Given.of(records, list(options)))
    if name == "backbone":
        try:
            return Backbone(**(options or {}))
        except TypeError as err:
            raise ConfigError(f"the features backbone cannot be made of {options!r}: {err}") from err
    return make_embedder(choice)
