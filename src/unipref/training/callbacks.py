"""What happens around the steps: the metrics file, progress, and an orderly stop."""

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from unipref.core.io import append_jsonl, read_jsonl, to_json, write_text
from unipref.training.ranks import anywhere

__all__ = ["MetricsFile", "Progress", "StopOnSignal"]


class MetricsFile(TrainerCallback):
    """Appends every log line to a JSON-lines file. A resumed run drops the lines from beyond its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            resumes = state.global_step > 0 and self.path.exists()
            kept = [row for row in read_jsonl(self.path) if row["step"] <= state.global_step] if resumes else []
            write_text(self.path, "".join(to_json(row) + "\n" for row in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and state.is_world_process_zero and "train_runtime" not in logs:
            append_jsonl(self.path, [{"step": state.global_step, **logs}])


class Progress(TrainerCallback):
    """Tells `show` how far a run is: (steps done, steps in all, the last log line)."""

    def __init__(self, show: Callable[[int, int, Mapping[str, Any]], None]) -> None:
        self.show = show
        self._last: dict[str, Any] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._last.update(logs or {})
        if state.is_world_process_zero:
            self.show(state.global_step, state.max_steps, self._last)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.show(state.global_step, state.max_steps, self._last)


class StopOnSignal(TrainerCallback):
    """Turns the first Ctrl-C (or SIGTERM) into: finish the step, save a whole checkpoint, stop. The next interrupts.

    Of several processes all stop after the same step, whichever got the signal.

    Attributes:
        stopped: a signal came.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: Any) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.stopped = anywhere([self.stopped])[0]  # the signal may reach the ranks in different steps
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True
        return control

    def restore(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
