"""Worker processes that encode chunks, started as programs of their own.

They are neither forked, as threads of tokenizers and torch would not survive it, nor do they import the caller's main
module, so a script without `if __name__ == "__main__"` and a notebook may start them. The two sides speak pickle over
the worker's standard input and output; a worker whose parent is gone reads the end of its input and ends.
"""

import contextlib
import gc
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from unipref.core.errors import ConfigError
from unipref.core.records import Record
from unipref.data.prepared._encoding import ChunkEncoder, Encoded

__all__ = ["Workers", "main"]

_PROGRAM = (  # Ctrl-C reaches the parent too, which ends this one
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = sys.argv[1:]; from unipref.data.prepared._workers import main; main()"
)
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_AHEAD = 2  # chunks per worker that are under way: one in work and one to go on with


class Workers:
    """`n` processes that apply `encode` to chunks; to be used in a `with` block, which ends them.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: `encode` cannot be sent to another process.
    """

    def __init__(self, encode: ChunkEncoder, n: int) -> None:
        self._first = pickle.dumps(encode, protocol=pickle.HIGHEST_PROTOCOL)
        self._n = n
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Workers":
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **dict.fromkeys(_ONE_THREAD, "1")}
        program = [sys.executable, "-c", _PROGRAM, *sys.path]
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(self._n, thread_name_prefix="prepare")
        try:
            for _ in range(self._n):
                process = subprocess.Popen(
                    program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=-1
                )
                self._processes.append(process)
                self._free.put(process)
            for process in self._processes:
                _send(process, self._first)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()  # it holds nothing but a chunk that nobody waits for
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was still to be sent
                    pipe.close()
            process.wait()

    def in_order(self, chunks: Iterable[tuple[Sequence[Record], Any]]) -> Iterator[tuple[Encoded, Any]]:
        """What becomes of the records of each of `chunks`, beside what came with them, in the order of the chunks."""
        waiting: deque[tuple[Future[Encoded], Any]] = deque()
        for records, beside in chunks:
            waiting.append((self._threads.submit(self._encode, records), beside))
            if len(waiting) >= _AHEAD * self._n:
                future, beside = waiting.popleft()
                yield future.result(), beside
        while waiting:
            future, beside = waiting.popleft()
            yield future.result(), beside

    def _encode(self, records: Sequence[Record]) -> Encoded:
        process = self._free.get()
        try:
            _send(process, pickle.dumps(records, protocol=pickle.HIGHEST_PROTOCOL))
            found = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as err:
            status = process.wait()
            raise ConfigError(
                f"a process that tokenised ended with status {status} (9 or -9: it was killed, mostly for want of "
                "memory; else its error stands above); use fewer workers, or workers=1 for none"
            ) from err
        finally:
            self._free.put(process)  # a dead one too: who waits for it must not wait for ever
        if isinstance(found, BaseException):
            raise found
        return found


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the process is gone, and reading its answer says so
        process.stdin.write(data)
        process.stdin.flush()


def main() -> None:
    """Encode chunks until there are no more: the program of a worker."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    questions = sys.stdin.buffer
    encode: ChunkEncoder = pickle.load(questions)
    encoder = encode.encoder()
    gc.freeze()  # what was imported stays, and need not be looked through
    while True:
        gc.disable()  # reading records makes many objects and no garbage: looking for it takes four times as long
        try:
            records = pickle.load(questions)
        except EOFError:
            return
        gc.enable()
        try:
            found: Encoded | BaseException = encode(records, encoder)
        except Exception as err:
            found = err
        try:
            data = pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL)
            pickle.loads(data) if isinstance(found, BaseException) else None
        except Exception:
            data = pickle.dumps(RuntimeError(f"{type(found).__name__}: {found}"))
        answers.write(data)
        answers.flush()
