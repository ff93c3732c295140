"""Preparing data: chunks of records to files, in several processes, whole or not at all."""

import hashlib
import itertools
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.core.io import write_json, writing_folder
from unipref.core.records import Record
from unipref.data.encode import encoding_notes, nothing_encoded
from unipref.data.prepared._encoding import ChunkEncoder, Encoded
from unipref.data.prepared._keys import canonical, file_hash
from unipref.data.prepared._layout import LAYOUT, OFFSETS, dtypes
from unipref.data.prepared._prepared import META, REPORT, Prepared, open_prepared, sealed
from unipref.data.prepared._workers import Workers
from unipref.data.report import DataReport
from unipref.data.token_columns import TOKEN_COLUMNS

__all__ = ["prepare"]

_FEW = 4  # chunks that are sooner encoded than processes are started
Chunk = tuple[Sequence[Record], DataReport]


def prepare(
    chunks: Iterable[Chunk],
    tokenizer: Any,
    folder: Path | str,
    *,
    key: Mapping[str, Any],
    max_length: int | None,
    truncate: str = "context_start",
    strict: bool = False,
    tokens: Iterable[str] = (),
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Prepared:
    """The records of `chunks` as `encode_records` encodes them, in files of `folder`; memory holds a few chunks.

    The files are the same, byte for byte, for any number of workers. The folder is whole or absent; what a killed run
    left is removed and the work starts again. One process works on a folder at a time: another one waits, and takes
    what it finds then. What is there already for `key` is given back as it is, and `chunks` is not read.

    Args:
        chunks: of `stream_records`, or what was made of it: records, and the report that ends with them.
        tokenizer: a `transformers` tokenizer.
        folder: of its own for each key (`key_folder`); what is there for another key is replaced.
        key: all that decides the content (`prepared_key`); `open_prepared` compares it.
        max_length, truncate, strict: as of `encode_records`.
        tokens: token columns to keep beside (`TOKEN_COLUMNS`). A record of which one cannot be made is set aside.
        workers: processes that tokenise; 1 for none but this one, None for as many as there are cores.
        progress: is told, after each chunk, how many records came so far.
        say: is told in a sentence what was found to be damaged or unfinished.

    Raises:
        DataError: a record cannot be encoded and `strict` is set, or none can.
        ConfigError: an option or the tokenizer does not fit, or a worker process ended.
    """
    folder, names = Path(folder), tuple(sorted(set(tokens)))
    _check(key, names, max_length, truncate, workers)
    with _alone(folder) as unfinished:
        for path in unfinished:
            if say is not None:
                say(f"An earlier run was stopped while it prepared {folder.name}; {path.name} is removed, and the "
                    "work starts again.")  # fmt: skip
            shutil.rmtree(path, ignore_errors=True)
        found = open_prepared(folder, key, say=say)
        if found is not None:
            return found
        vocabulary = max(tokenizer.get_vocab().values(), default=0) + 1
        token = "<u2" if max(vocabulary, len(tokenizer)) <= 1 << 16 else "<i4"
        encode = ChunkEncoder(tokenizer, max_length, truncate, strict, names, token)
        with writing_folder(folder) as temporary:
            with _Files(temporary, list(dtypes(token, names))) as files:
                report = _encode_all(chunks, encode, workers, files, progress)
            write_json(temporary / REPORT, report.to_dict())
            size = (temporary / REPORT).stat().st_size
            meta = {
                "layout": LAYOUT,
                "key": dict(key),
                "n": files.n,
                "token": token,
                "token_columns": names,
                "files": {**files.facts, REPORT: (size, file_hash(temporary / REPORT))},
            }
            write_json(temporary / META, sealed(meta))
    return Prepared(folder)


def _check(
    key: Mapping[str, Any], names: Sequence[str], max_length: int | None, truncate: str, workers: int | None
) -> None:
    canonical(key)
    for name, value in (("max_length", max_length), ("truncate", truncate), ("tokens", list(names))):
        if name in key and key[name] != value:
            raise ConfigError(f"the key says {name} {key[name]!r}, but the data are prepared with {value!r}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is 1 (this process alone) or more: {workers}")
    unknown = sorted(set(names) - set(TOKEN_COLUMNS))
    if unknown:
        raise ConfigError(f"the texts give no token column {unknown[0]!r}; known: {', '.join(TOKEN_COLUMNS)}")


def _encode_all(
    chunks: Iterable[Chunk],
    encode: ChunkEncoder,
    workers: int | None,
    files: "_Files",
    progress: Callable[[int], None] | None,
) -> DataReport:
    """Append what becomes of all chunks to `files`; the account of it.

    Raises:
        DataError: nothing can be encoded.
    """
    reports, encodings, counts = [], [], Counter()
    n = 0
    for part, report in _encoded(chunks, encode, workers):
        files.append(part)
        reports.append(report)
        encodings.append(part.report)
        counts += part.counts
        n += part.report.n_read
        if progress is not None:
            progress(n)
    encoding = DataReport.merged(encodings)
    if not files.n:
        if not encoding.n_read:
            raise DataError(f"there is no record to prepare. {DataReport.merged(reports).describe()}")
        raise nothing_encoded(encoding)
    encoding.notes += encoding_notes(counts)
    return DataReport.merged(reports).then(encoding)


def _encoded(
    chunks: Iterable[Chunk], encode: ChunkEncoder, workers: int | None
) -> Iterator[tuple[Encoded, DataReport]]:
    encoder = encode.encoder()  # also where others encode: an option that does not fit is refused here
    given, stream = workers, iter(chunks)
    n = workers or n_cores()
    if n > 1 and given is None:
        first = list(itertools.islice(stream, _FEW))
        n = n if len(first) == _FEW else 1
        stream = itertools.chain(first, stream)
    if n > 1:
        try:
            processes = Workers(encode, n)
        except (pickle.PicklingError, TypeError, AttributeError) as err:
            if given is not None:
                raise ConfigError(f"the tokenizer cannot be sent to other processes ({err}); use workers=1") from err
        else:
            with processes:
                yield from processes.in_order(stream)
            return
    for records, report in stream:
        yield encode(records, encoder), report


def n_cores() -> int:
    """Processor cores that this process may use; as many workers tokenise."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Files:
    """The files of one folder, each written from start to end.

    Attributes:
        n: records so far.
        facts: name -> (bytes, sha256), once they are closed.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = names
        self.n = 0
        self.facts: dict[str, tuple[int, str]] = {}

    def __enter__(self) -> "_Files":
        with ExitStack() as stack:
            self._open = {name: stack.enter_context((self.folder / f"{name}.bin").open("wb")) for name in self.names}
            self._close = stack.pop_all()
        self._hash = {name: hashlib.sha256() for name in self.names}
        self._end = np.zeros((1, len(OFFSETS)), np.int64)
        self._write("offsets", self._end.tobytes())
        return self

    def append(self, part: Encoded) -> None:
        """Put a chunk behind those before it."""
        if not len(part.lengths):
            return
        for name, data in part.files.items():
            self._write(name, data)
        ends = self._end + np.cumsum(part.lengths, axis=0)
        self._write("offsets", ends.astype("<i8").tobytes())
        self._end = ends[-1:]
        self.n += len(part.lengths)

    def _write(self, name: str, data: bytes) -> None:
        self._open[name].write(data)
        self._hash[name].update(data)

    def __exit__(self, failed: Any, *_: Any) -> None:
        with self._close:
            for name, file in self._open.items():
                if failed is None:
                    file.flush()
                    os.fsync(file.fileno())
                    self.facts[f"{name}.bin"] = (file.tell(), self._hash[name].hexdigest())


@contextmanager
def _alone(folder: Path) -> Iterator[list[Path]]:
    """The right to work on `folder`, and what a killed run left of it. Without file locks (Windows) nothing is known
    of other runs, and leftovers stay."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield []
        return
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, by a killed process too
        yield sorted(path for path in folder.parent.glob(f".{folder.name}.*") if path.is_dir())
