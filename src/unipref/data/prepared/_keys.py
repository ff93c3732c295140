"""What prepared data were made from: the source's content, the tokenizer, and every option that decides a token."""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, DataError
from unipref.core.io import write_json
from unipref.data.encode import ENCODING
from unipref.data.prepared._layout import LAYOUT
from unipref.data.readers import READING
from unipref.data.sources import bundled_file, open_source

__all__ = ["canonical", "file_hash", "key_folder", "prepared_key", "source_key", "tokenizer_key"]

MEMO = "sources.json"  # hashes of files that were read before, by what the file system says of them
_UNSETTLED = 2 * 10**9  # nanoseconds: a file changed less than that ago may change again without another time stamp


def source_key(source: Any, *, version: str | None = None, folder: Path | str | None = None) -> dict[str, Any]:
    """What names the content of `source`: equal for equal files, wherever they lie.

    A file is its name without folders (ids are made of it) and the sha256 of its bytes; a folder that `datasets` saved
    is its files; rows in a list are hashed themselves. A stream, a hub id and a data set in memory cannot be hashed
    without reading them: the caller says what they are.

    Args:
        source: as `stream_records` takes it.
        version: of a source that has no bytes here: a revision, a date, anything that changes when the rows do.
        folder: where hashes are kept (the folder of all prepared data), so that a file is read again only when its
            path, size, time of change or inode differ.

    Raises:
        ConfigError: the source needs a version and has none.
        DataError: a file cannot be read.
    """
    if isinstance(source, Sequence) and not isinstance(source, str | Path):
        if any(isinstance(row, Mapping) for row in source):
            return {"rows": _rows_hash(source), "version": version}
        return {"sources": [source_key(one, version=version, folder=folder) for one in source]}
    if isinstance(source, str | Path):
        name = str(source)
        if name.startswith("bundled:"):
            file = bundled_file(name)
            return {"name": name, "sha256": open_source(name).sha256 if file is None else file_hash(file)}
        path = Path(name).expanduser()
        if path.is_file():
            return {"name": path.name, "sha256": _hash_of(path, folder)}
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return {"name": path.name, "files": [[str(f.relative_to(path)), _hash_of(f, folder)] for f in files]}
        what = f"the data set {name!r}"
    else:
        name, what = type(source).__name__, f"a source of type {type(source).__name__}"
    if version is None:
        raise ConfigError(
            f"{what} has no bytes here to tell its content by, so prepared data cannot be found again; give a version "
            "(a revision or a date) that changes whenever its rows do"
        )
    return {"name": name, "version": version}


def prepared_key(
    source: Mapping[str, Any],
    tokenizer: Any,
    *,
    max_length: int | None,
    truncate: str = "context_start",
    format: str = "auto",
    domain_field: str = "domain",
    user_field: str = "user",
    tokens: Iterable[str] = (),
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that decides what `prepare` writes, as JSON values: another value of any is another data set.

    Args:
        source: of `source_key`.
        format, domain_field, user_field: as the rows are read.
        max_length, truncate, tokens: as `prepare` gets them.
        further: what else was done to the records between reading and preparing (operators, a split's share).
    """
    return {
        "source": dict(source),
        "reading": {"format": format, "domain_field": domain_field, "user_field": user_field, "version": READING},
        "tokenizer": tokenizer_key(tokenizer),
        "max_length": max_length,
        "truncate": truncate,
        "tokens": sorted(set(tokens)),
        "encoding": ENCODING,
        "layout": LAYOUT,
        "further": dict(further or {}),
    }


def key_folder(root: Path | str, key: Mapping[str, Any]) -> Path:
    """The folder in `root` for what is made of `key`."""
    return Path(root) / hashlib.sha256(canonical(key).encode()).hexdigest()[:24]


def canonical(key: Mapping[str, Any]) -> str:
    """`key` as JSON in which equal keys are equal strings.

    Raises:
        ConfigError: it is not made of JSON values.
    """
    try:
        return json.dumps(dict(key), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"a key is made of JSON values: {dict(key)!r} is not ({err})") from err


def tokenizer_key(tokenizer: Any) -> str:
    """The hash of everything that decides which tokens a text becomes: vocabulary, rules, special tokens, template.

    A template that asks for the date of the day is the same tokenizer on every day; what was prepared keeps the first.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = [sorted(tokenizer.get_vocab().items()), getattr(tokenizer, "init_kwargs", {})]
    else:
        rules = json.loads(backend.to_str())
        for state in ("padding", "truncation"):  # left by earlier calls, and set anew by every call
            rules.pop(state, None)
    added = {i: str(token.content) for i, token in tokenizer.added_tokens_decoder.items()}
    special = {i: token.special for i, token in tokenizer.added_tokens_decoder.items()}
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    whole = [type(tokenizer).__name__, rules, added, special, ends, tokenizer.special_tokens_map]
    text = json.dumps([*whole, tokenizer.chat_template], sort_keys=True, default=_described)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _described(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address says nothing and changes with every process


def _rows_hash(rows: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=_described).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def file_hash(path: Any) -> str:
    """The sha256 of a file's bytes, read a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _hash_of(path: Path, folder: Path | str | None) -> str:
    """`file_hash`, of the memo in `folder` where the file is the one that was hashed then."""
    try:
        stat = path.stat()
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        memo = None if folder is None else Path(folder) / MEMO
        known = {} if memo is None else _read_memo(memo)
        place = str(path.resolve())
        if known.get(place, [None])[:3] == facts:
            return known[place][3]
        found = file_hash(path)
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err}); see that it is there and may be read") from err
    if memo is not None and time.time_ns() - stat.st_mtime_ns > _UNSETTLED:
        write_json(memo, {**_read_memo(memo), place: [*facts, found]})
    return found


def _read_memo(path: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or not ours: the files are hashed again
        return {}
    return found if isinstance(found, dict) else {}
