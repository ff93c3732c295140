"""From texts to one matrix: each block's vectors, from the store or computed now, side by side."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.features.embedding import Embedder, Encoder, OfResponses, embeds_texts
from unipref.store import FeatureStore, StoreError, text_key

__all__ = ["FeatureReport", "Own", "Part", "Product", "Texts", "Work", "distinct", "for_prompts"]

_AT_ONCE = 1024  # texts that are embedded before they are kept: what a killed run loses at most
_LOOKED_UP = 65_536  # keys that are looked up at a time
_ROWS = 4096  # rows of a matrix that are in memory at a time


@dataclass
class FeatureReport:
    """What became of the texts, block by block: told to people, and kept with a run.

    Attributes:
        blocks: {"features", "of" ("responses" or "prompts"), "texts" (distinct), "computed" (others were kept before),
            "cut" (longer than is read), "tokens" (how much is read; None where there is no limit)}.
        notes: sentences.
    """

    blocks: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A sentence per block, and the notes."""
        lines = []
        for block in self.blocks:
            line = f"{block['features']}: {block['texts']:,} {block['of']}, {block['computed']:,} computed now"
            if block["cut"]:
                share = block["cut"] / block["texts"]
                line += f"; {block['cut']:,} ({share:.1%}) are longer than {block['tokens'] or 'it reads'}"
                line += " tokens and were cut" if block["tokens"] else " and were cut"
            lines.append(line)
        return lines + self.notes

    def to_dict(self) -> dict[str, Any]:
        """Both attributes as JSON."""
        return {"blocks": [dict(block) for block in self.blocks], "notes": list(self.notes)}


def for_prompts(block: Embedder) -> Embedder:
    """The same for prompts: of a long conversation the end says what is asked."""
    return replace(block, keep="end") if isinstance(block, Encoder) else block


@dataclass(frozen=True, eq=False)
class Texts:
    """Distinct responses to prompts: texts, keys, and for each its prompt's place among the distinct prompts."""

    prompts: list[str]
    responses: list[str]
    keys: list[bytes]
    context: np.ndarray
    asked: list[str]


@dataclass(frozen=True, eq=False)
class Source:
    """Rows to be had a slice at a time.

    Attributes:
        of: (start, stop) -> (stop - start, width) float32.
        digest: tells these numbers from others.
        lies: the array and the rows of it, where the source is no more than that.
    """

    of: Callable[[int, int], np.ndarray]
    width: int
    digest: Any
    lies: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Own:
    """The vectors of one block."""

    block: Embedder | OfResponses

    @property
    def columns(self) -> tuple[str, ...]:
        if embeds_texts(self.block):
            return tuple(f"{self.block.name}.{j}" for j in range(self.block.dimension))
        return tuple(self.block.columns)

    def source(self, texts: Texts, work: "Work") -> Source:
        return work.responses(self.block, texts)


@dataclass(frozen=True, eq=False)
class Product:
    """Prompt vector times response vector, number by number."""

    block: Embedder

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{name} x prompt" for name in Own(self.block).columns)

    def source(self, texts: Texts, work: "Work") -> Source:
        own, asked = work.responses(self.block, texts), work.prompts(self.block, texts)
        vectors, at = asked.lies

        def of(start: int, stop: int) -> np.ndarray:
            return own.of(start, stop) * vectors[at[texts.context[start:stop]]]

        return Source(of, own.width, ["product", own.digest, asked.digest, _digest(texts.context)])


Part = Own | Product


class Work:
    """One call's vectors: each block is asked once for responses and once for prompts."""

    def __init__(self, store: FeatureStore | None, report: FeatureReport | None) -> None:
        self.store, self.report = store, report
        self.done: dict[tuple[int, str], Source] = {}

    def responses(self, block: Embedder | OfResponses, texts: Texts) -> Source:
        if embeds_texts(block):
            return self._once(block, "responses", lambda: self._embedded(block, texts.responses, "responses"))
        return self._once(block, "responses", lambda: self._beside_prompts(block, texts))

    def prompts(self, block: Embedder, texts: Texts) -> Source:
        return self._once(block, "prompts", lambda: self._embedded(for_prompts(block), texts.asked, "prompts"))

    def laid_out(self, sources: Sequence[Source], n: int) -> np.ndarray:
        """(n, D) float32 of all sources side by side."""
        width = sum(source.width for source in sources)

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, n, _ROWS):
                stop = min(start + _ROWS, n)
                yield np.concatenate([source.of(start, stop) for source in sources], axis=1)

        if self.store is None:
            return np.concatenate([np.zeros((0, width), np.float32), *parts()])
        if len(sources) == 1 and sources[0].lies is not None:
            vectors, row = sources[0].lies
            if n and (np.diff(row) == 1).all():  # they lie as they are wanted
                return vectors[int(row[0]) : int(row[0]) + n]
        space = {"kind": "features", "sources": [source.digest for source in sources]}
        return self.store.matrix(space, (n, width), parts)

    def _once(self, block: Embedder | OfResponses, of: str, make: Callable[[], Source]) -> Source:
        key = (id(block), of)
        if key not in self.done:
            self.done[key] = make()
        return self.done[key]

    def _embedded(self, block: Embedder, texts: Sequence[str], of: str) -> Source:
        cut = getattr(block, "cut", None)
        return self._kept(
            block,
            [text_key(text) for text in texts],
            block.dimension,
            lambda rows: block.embed([texts[i] for i in rows]),
            None if cut is None else lambda rows: cut([texts[i] for i in rows]),
            of,
        )

    def _beside_prompts(self, block: OfResponses, texts: Texts) -> Source:
        def both(rows: Sequence[int]) -> tuple[list[str], list[str]]:
            return [texts.prompts[i] for i in rows], [texts.responses[i] for i in rows]

        cut = getattr(block, "cut", None)
        return self._kept(
            block,
            texts.keys,
            len(block.columns),
            lambda rows: block.of_responses(*both(rows)),
            None if cut is None else lambda rows: cut(*both(rows)),
            "responses",
        )

    def _kept(
        self,
        block: Embedder | OfResponses,
        keys: Sequence[bytes],
        width: int,
        embed: Callable[[Sequence[int]], np.ndarray],
        cut: Callable[[Sequence[int]], np.ndarray] | None,
        of: str,
    ) -> Source:
        """The vectors of `keys`, some of which may be equal, from the store where it has them."""
        place, row = distinct(keys)
        keys = [keys[i] for i in place]
        space, identity = None, block.identity
        if self.store is not None and identity is not None:
            space = {"kind": "embedding", "identity": identity}
        lacking = list(range(len(keys))) if space is None else self._lacking(space, keys)
        made = [np.zeros((0, width), np.float32)]
        marks = np.zeros(len(keys), bool)
        for start in range(0, len(lacking), _AT_ONCE):
            some = lacking[start : start + _AT_ONCE]
            rows = [int(place[i]) for i in some]
            values = _checked(block, embed(rows), len(some), width)
            long = np.zeros(len(some), bool) if cut is None else np.asarray(cut(rows), bool)
            if space is None:
                made.append(values)
                marks[some] = long
            else:
                self.store.put_many(space, [keys[i] for i in some], values, cut=long)
        if space is None:
            vectors, where = np.concatenate(made), np.arange(len(keys))
            content = _digest(vectors)
        else:
            where, marks = self._where(space, keys)
            if (where < 0).any():
                raise StoreError(
                    f"{int((where < 0).sum()):,} vectors that were written to {self.store.folder} cannot be read back; "
                    "check its disk, or choose another folder"
                )
            vectors, content = self.store.vectors(space), _digest(*keys)
        if self.report is not None:
            self.report.blocks.append(
                {
                    "features": block.name,
                    "of": of,
                    "texts": len(keys),
                    "computed": len(lacking),
                    "cut": int(marks.sum()),
                    "tokens": identity.get("tokens") if isinstance(identity, Mapping) else None,
                }
            )
        at = where[row]
        digest = [identity, content, _digest(row)]
        return Source(lambda start, stop: vectors[at[start:stop]], width, digest, (vectors, at))

    def _lacking(self, space: Mapping[str, Any], keys: Sequence[bytes]) -> list[int]:
        return np.flatnonzero(self._where(space, keys)[0] < 0).tolist()

    def _where(self, space: Mapping[str, Any], keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        found = [self.store.find(space, keys[i : i + _LOOKED_UP]) for i in range(0, len(keys), _LOOKED_UP)]
        rows = np.concatenate([np.zeros(0, np.int64), *(one.row for one in found)])
        return rows, np.concatenate([np.zeros(0, bool), *(one.cut for one in found)])


def _digest(*parts: Any) -> str:
    total = hashlib.blake2b(digest_size=20)
    for part in parts:
        total.update(part)
    return total.hexdigest()


def distinct(keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct key stands first (M,), in that order, and for every key (n,) its number among them."""
    seen: dict[bytes, int] = {}
    place = []
    row = np.empty(len(keys), np.int64)
    for i, key in enumerate(keys):
        row[i] = number = seen.setdefault(key, len(seen))
        if number == len(place):
            place.append(i)
    return np.array(place, dtype=np.int64), row


def _checked(block: Embedder | OfResponses, values: np.ndarray, n: int, width: int) -> np.ndarray:
    """What an embedder returned, as (n, width) float32; anyone may write an embedder."""
    values = np.asarray(values, dtype=np.float32)
    if values.shape != (n, width):
        raise ConfigError(f"the features {block.name} gave the shape {values.shape}; ({n}, {width}) was expected")
    if not np.isfinite(values).all():
        raise DataError(
            f"the features {block.name} gave numbers that are not finite for "
            f"{int((~np.isfinite(values)).any(1).sum())} of {n} texts; give these texts zeros, or leave them out"
        )
    return values
