"""Instruments of a dry run: a trainer that takes chosen steps and times them, memory's high-water mark, a store that
is only looked at."""

import contextlib
import gc
import math
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from unipref.core.io import to_json
from unipref.core.records import Record
from unipref.core.tries import TrieBatch
from unipref.engine import Policy
from unipref.engine.policy import Values
from unipref.recipes.workbench import Workbench
from unipref.store import ScoreStore
from unipref.training import PreferenceTrainer

__all__ = ["SLOW_SCORERS", "Ledger", "Peak", "Peek", "Steps", "Watch", "now"]

# a model per text: a few texts are timed instead of all
SLOW_SCORERS = frozenset({"cdr", "classifier", "flr", "metametrics", "r3", "reward_model"})


class Watch(Workbench):
    """A workbench that keeps what was tokenised, and says how long loading and tokenising took."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(keep=True)
        self.clock = clock
        self.load = self.encode = 0.0
        self._took: dict[int, float] = {}

    def tokenizer(self, start: Any, load: Callable[[], Any]) -> Any:
        began = self.clock()
        found = load()
        self.load += self.clock() - began
        return found

    def policy(self, start: Any, load: Callable[[], Policy], *, same: bool = True) -> Policy:
        began = self.clock()
        found = super().policy(start, load, same=False)
        self.load += self.clock() - began
        return found

    def examples(self, records: Sequence[Record], settings: Any, encode: Callable[[], Any]) -> Any:
        def timed() -> Any:
            began = self.clock()
            found = encode()
            self._took[id(found[1])] = self.clock() - began
            return found

        examples, report = super().examples(records, settings, timed)
        self.encode += self._took.get(id(report), 0.0)  # a run tokenises again what a dry run finds tokenised
        return examples, report


class Steps(PreferenceTrainer):
    """The trainer, made to take the steps it is given, in order, and to time them.

    Attributes:
        steps: rows of each step, to be set before `train`.
        inside, whole: seconds of each step's forwards and backwards, and of all of it.
        place, setting_up: for the one who made it: where a row of the run stands, and the seconds that making it took.
    """

    def __init__(self, *args: Any, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(*args, **options)
        self.clock = clock
        self.steps: list[list[int]] = []
        self.place: dict[int, int] = {}
        self.setting_up = 0.0
        self.inside: list[float] = []
        self.whole: list[float] = []
        self.add_callback(_Stopwatch(self))

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.train_dataset, batch_sampler=self.steps, collate_fn=lambda examples: {"examples": examples}
        )

    def one_forward(self, tries: TrieBatch) -> Callable[[], Values]:
        """The policy's forward of `tries`, as a step makes it, to be called."""
        said = self._distribution(tries)

        def forward() -> Values:
            with self.compute_loss_context_manager():
                return self.policy(tries, want=self._want(), reference=said)

        return forward

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        began = now(self.clock)
        loss = super().training_step(*args, **options)
        self.inside.append(now(self.clock) - began)
        return loss


class _Stopwatch(TrainerCallback):
    def __init__(self, trainer: Steps) -> None:
        self.trainer, self.began = trainer, 0.0

    def on_step_begin(self, *args: Any, **options: Any) -> None:
        self.began = now(self.trainer.clock)

    def on_step_end(self, *args: Any, **options: Any) -> None:
        self.trainer.whole.append(now(self.trainer.clock) - self.began)


def now(clock: Callable[[], float]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock()


class Peak:
    """The largest memory since `reset`: allocated on CUDA, else of the process, which then holds the data too."""

    def now(self) -> float:
        """What is in use."""
        if torch.cuda.is_available():
            return float(torch.cuda.memory_allocated())
        return _status("VmRSS") or self.read()

    def available(self) -> float:
        """The most that this process could have in use; infinite where the system does not say."""
        if torch.cuda.is_available():
            return float(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
        try:
            free = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        except (OSError, IndexError):
            return math.inf
        most = float(free) * 1024
        try:  # a container may be given less than the machine has
            limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
            used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
            most = most if limit == "max" else min(most, float(limit) - float(used))
        except OSError:
            pass
        return most + self.now()

    def reset(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):  # Linux: the high-water mark starts again from what is resident
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> float:
        if torch.cuda.is_available():
            return float(torch.cuda.max_memory_allocated())
        found = _status("VmHWM")
        if found is None:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found = float(most if sys.platform == "darwin" else most * 1024)
        return found


def _status(name: str) -> float | None:
    """Bytes that Linux tells of this process under `name`."""
    try:
        return float(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None


class Peek:
    """The score store, only looked at; what is put goes nowhere. Slow scorers get numbers instead of being run."""

    def __init__(self, folder: Path) -> None:
        self.store = ScoreStore(folder) if (folder / "scores.sqlite").exists() else None
        self.lacking: dict[str, int] = {}

    def get_many(self, space: Mapping[str, Any], keys: Sequence[bytes]) -> list[np.ndarray | None]:
        found = [None] * len(keys) if self.store is None else self.store.get_many(space, keys)
        if space.get("kind") != "scorer" or space["scorer"] not in SLOW_SCORERS:
            return found
        name = space["scorer"]
        self.lacking[name] = self.lacking.get(name, 0) + len({k for k, v in zip(keys, found, strict=True) if v is None})
        return [
            np.float64(int.from_bytes(key[:4], "big") / 2**32) if value is None else value
            for key, value in zip(keys, found, strict=True)
        ]

    def put_many(self, space: Mapping[str, Any], keys: Sequence[bytes], values: Sequence[np.ndarray]) -> None:
        pass


class Ledger:
    """Which log-probabilities the run's score store will hold, as the run goes on.

    Args:
        row: bytes that a value takes beside its numbers.

    Attributes:
        bytes: that the run adds.
    """

    def __init__(self, peek: Peek, *, row: int) -> None:
        self.peek, self.row = peek, row
        self.held: dict[str, set[Any]] = {}
        self.bytes = 0

    def missing(
        self,
        space: Mapping[str, Any],
        keys: Sequence[Sequence[bytes]],
        lengths: Sequence[Sequence[int]],
        *,
        times: float | None = None,
    ) -> list[int]:
        """Rows of which something must be computed, and is in the store from now on.

        Weights that the run has yet to make are called "after ..." and are in no store.

        Args:
            times: the rows are a sample, of which each stands for so many, and what is computed goes into a column of
                numbers without a table, where nothing is looked up.
        """
        name = to_json([dict(space), "column"] if times is not None else dict(space))
        held = self.held.setdefault(name, set())
        if times is not None:  # a column is of whole rows: of other items of the same texts there is another one
            rows = [i for i, row in enumerate(keys) if tuple(row) not in held]
            held.update(map(tuple, keys))
            self.bytes += round(times * 4 * sum(sum(lengths[i]) for i in rows))
            return rows
        flat = [key for row in keys for key in row]
        if self.peek.store is not None and not str(space["weights"]).startswith("after "):
            values = self.peek.store.get_many(space, flat)
            held |= {key for key, value in zip(flat, values, strict=True) if value is not None}
        rows = [i for i, row in enumerate(keys) if any(key not in held for key in row)]
        for i in rows:
            for key, length in zip(keys[i], lengths[i], strict=True):
                if key not in held:
                    held.add(key)
                    self.bytes += 4 * length + self.row
        return rows
