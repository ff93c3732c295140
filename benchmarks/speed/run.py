"""The parent: starts engines, lets the sides of a setting take turns, and hands back what each did. No torch here."""

import contextlib
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.cases import SETTINGS, SHAPES, SIDES

__all__ = ["Bench", "machine", "missing_packages", "settings_of"]

ROOT = Path(__file__).resolve().parents[2]
NO_FLASH_PREF = (
    "flash-pref 0.1.1 asks for transformers below 4.52 and so for an environment of its own; give its interpreter with "
    "--flash-pref PYTHON"
)
SLOW = 6.0  # seconds: a side that takes longer is repeated twice at most
Found = dict[str, Any]


class Engine:
    """The process that imports an engine's libraries and forks for every job."""

    def __init__(self, name: str, python: str, folder: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment |= {"TRL_TELEMETRY": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"HF_DATASETS_CACHE": str(folder / "datasets"), "TQDM_DISABLE": "1"}
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.speed.worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=ROOT,
            )
        self._ready = False

    def start(self, job: Found) -> None:
        """Fork for `job`.

        Raises:
            RuntimeError: the libraries cannot be imported.
        """
        if not self._ready and self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self.name} does not start: {_last_line(self.log)}")
        self._ready = True
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Worker:
    """The process of one side of one setting."""

    def __init__(self, engine: Engine, job: Found, folder: Path, number: int) -> None:
        self.log = folder / f"{number}.log"
        with socket.socket(socket.AF_UNIX) as listener:
            address = str(folder / f"{number}.sock")
            listener.bind(address)
            listener.listen(1)
            listener.settimeout(120)
            engine.start({**job, "socket": address, "log": str(self.log)})
            self._channel, _ = listener.accept()
        self._stream = self._channel.makefile("rw", buffering=1, encoding="utf-8")

    def repeat(self) -> Found:
        """One repeat's answer; {"failed": why} where there is none."""
        try:
            self._stream.write("go\n")
            line = self._stream.readline()
        except OSError:
            line = ""
        return json.loads(line) if line else {"failed": f"the process ended: {_last_line(self.log)}"}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
            self._channel.close()


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:300] if lines else "killed, perhaps for want of memory"


@dataclass
class Bench:
    """Measures settings. A context manager: engines run until it ends.

    Attributes:
        flash_pref: the interpreter of an environment that flash-pref runs in; None: it is not run.
        matrix_size: rows and columns of the product that gives the matrix rate.
    """

    folder: Path
    threads: int = 2
    device: str = "cpu"
    flash_pref: str | None = None
    tell: Callable[[str], None] = print
    matrix_size: int = 3072
    _engines: dict[str, Engine] = field(default_factory=dict)
    _number: int = 0

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._engines.values():
            engine.close()

    def engine(self, name: str) -> Engine:
        if name not in self._engines:
            python = self.flash_pref if name == "flash_pref" else sys.executable
            self._engines[name] = Engine(name, python, self.folder, self.threads)
        return self._engines[name]

    @contextlib.contextmanager
    def working(self, engine: str, **job: Any) -> Iterator[Worker]:
        """A process for `job` that ends with the block."""
        self._number += 1
        common = {"device": self.device, "threads": self.threads, "output": str(self.folder / "out")}
        worker = Worker(self.engine(engine), {**common, **job}, self.folder, self._number)
        try:
            yield worker
        finally:
            worker.close()

    def prepared(self, name: str) -> Found:
        """Model and rows of the setting `name` on disk, and what a job says of them."""
        setting = SETTINGS[name]
        vocabulary = SHAPES[setting.shape].vocabulary
        model = self.folder / f"model-{setting.shape}-{setting.weights}"
        rows = self.folder / f"rows-{setting.data}-{vocabulary}.json"
        job = {"setting": name, "model": str(model), "rows": str(rows), "vocabulary": vocabulary}
        if not (model.exists() and rows.exists()):
            with self.working("unipref", kind="prepare", **job) as worker:
                found = worker.repeat()
            if "failed" in found:
                raise SystemExit(f"{name} cannot be prepared: {found['failed']}\n{worker.log.read_text()[-2000:]}")
        return job

    @contextlib.contextmanager
    def matrix_rates(self, precision: str) -> Iterator[Callable[[], float]]:
        """What gives, at each call, the operations per second of the fastest matrix product now, on these threads."""
        with self.working("loop", kind="matrix", precision=precision, size=self.matrix_size) as worker:

            def rate() -> float:
                found = worker.repeat()
                if "failed" in found:
                    raise SystemExit(f"the matrix rate cannot be measured: {found['failed']}")
                return found["flops_per_second"]

            yield rate

    def measure(self, name: str, sides: Iterable[str], repeats: int) -> Found:
        """Up to `repeats` of each of `sides` of the setting `name`, in turns, and between any two the matrix rate.

        Returns:
            "sides": per side a list of repeats, or {"failed": why}; a repeat's "rate" is the larger of the operations
            per second measured before and after it; "rates": all of them; "counts": of every step, by order.
        """
        setting, job = SETTINGS[name], self.prepared(name)
        found: dict[str, Any] = {}
        with contextlib.ExitStack() as open_until_end:
            rate = open_until_end.enter_context(self.matrix_rates(setting.precision))
            rates = [rate()]
            workers = {}
            for side in sides:
                engine = SIDES[side].engine
                if engine == "flash_pref" and self.flash_pref is None:
                    found[side] = {"failed": NO_FLASH_PREF}
                    continue
                try:
                    worker = open_until_end.enter_context(self.working(engine, kind="side", side=side, **job))
                except (RuntimeError, OSError) as err:
                    found[side] = {"failed": str(err)}
                    continue
                workers[side], found[side] = worker, []
            for _ in range(repeats):
                for side, worker in workers.items():
                    if isinstance(found[side], dict) or (len(found[side]) > 1 and found[side][0]["seconds"] > SLOW):
                        continue
                    began = time.perf_counter()
                    repeat = worker.repeat()
                    if "failed" in repeat:
                        found[side] = {"failed": repeat["failed"]}
                        self.tell(f"  {side}: failed, {repeat['failed']}")
                        continue
                    rates.append(rate())
                    found[side].append({**repeat, "rate": max(rates[-2:])})
                    took = time.perf_counter() - began
                    self.tell(f"  {side}: {repeat['seconds']:.2f} s ({took:.0f} s with all around it)")
        counts = json.loads(Path(job["rows"]).read_text(encoding="utf-8"))["counts"]
        return {"sides": found, "rates": rates, "counts": counts}

    def profile(self, name: str, side: str) -> Found:
        """Where the time of our `side` of the setting `name` goes."""
        with self.working("unipref", kind="profile", side=side, **self.prepared(name)) as worker:
            found = worker.repeat()
        if "failed" in found:
            raise SystemExit(f"{name} cannot be profiled: {found['failed']}\n{worker.log.read_text()[-2000:]}")
        return found


def machine(device: str) -> Found:
    """Where this is measured."""
    from importlib.metadata import version

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    flags: list[str] = []
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        told = {name.strip(): value.strip() for name, value in reversed(lines)}
        cpu, flags = told.get("model name", cpu), told.get("flags", "").split()
    found = {
        "cpu": cpu,
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags],
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "trl", "unipref")},
    }
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def missing_packages() -> list[str]:
    """Packages that the peers need and that are not installed."""
    return [name for name in ("trl", "datasets", "psutil") if importlib.util.find_spec(name) is None]


def settings_of(names: Iterable[str]) -> list[str]:
    """`names` of settings without repetition, in the order of the table."""
    wanted = set(names)
    return [name for name in SETTINGS if name in wanted]
