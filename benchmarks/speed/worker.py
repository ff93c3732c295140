"""The process of one engine: it imports its libraries once, and forks a process for each side that is measured.

    python -m benchmarks.speed.worker ENGINE

A line on stdin is a job (JSON); its process connects to the job's socket and answers each "go" with one repeat. So a
process's peak memory is that of its side, and starts from what the libraries take.
"""

import gc
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.speed.cases import DATA, SETTINGS, SIDES

__all__ = ["memory_mb"]

Job = dict[str, Any]


def memory_mb(*, peak: bool) -> float:
    """Resident memory of this process in MB (2**20 bytes): the most it ever held, or what it holds."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before the fork
        name = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) / 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def import_libraries(engine: str) -> None:
    """What every side of `engine` imports."""
    if engine == "unipref":
        import unipref.training  # noqa: F401
    elif engine == "trl":
        import trl.trainer.dpo_trainer  # noqa: F401
    else:
        import transformers.models.llama.modeling_llama  # noqa: F401
    if engine == "flash_pref":
        import flash_pref  # noqa: F401
    if engine in ("unipref", "trl"):
        import benchmarks.speed.by_trainers
    import benchmarks.speed.by_loop  # noqa: F401


def answer(job: Job) -> Any:
    """One repeat, or the one answer of a job that is no training."""
    from benchmarks.speed import by_loop

    if job["kind"] == "matrix":
        return by_loop.matrix_rate(job["precision"], job["device"], job["size"])
    setting = SETTINGS[job["setting"]]
    if job["kind"] == "prepare":
        from benchmarks.speed import data

        model, rows = Path(job["model"]), Path(job["rows"])
        if not model.exists():
            data.make_model(setting, model)
        if not rows.exists():
            data.make_rows(DATA[setting.data], job["vocabulary"], rows)
        return {}
    side = SIDES[job["side"]]
    held = json.loads(Path(job["rows"]).read_text(encoding="utf-8"))
    told = {**job, "steps": held["steps"]["warm"] + held["steps"][side.order]}
    if job["kind"] == "profile":
        from benchmarks.speed.profile import profiled

        return profiled(setting, side, told, held["rows"])
    if side.engine == "unipref":
        from benchmarks.speed.by_trainers import unipref_repeat as repeat
    elif side.engine == "trl":
        from benchmarks.speed.by_trainers import trl_repeat as repeat
    else:
        repeat = by_loop.loop_repeat
    found = repeat(setting, side, told, held["rows"])
    gc.collect()
    return found


def child(job: Job) -> None:
    """Serve one job until its socket closes."""
    import torch
    from benchmarks.speed.by_loop import matrix_rate

    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(job["threads"])
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(job["socket"])
    stream = channel.makefile("rw", buffering=1, encoding="utf-8")
    matrix_rate("float32", "cpu", 256)  # the pages of the libraries' code count as theirs
    libraries = memory_mb(peak=False)
    for _ in stream:
        try:
            found = answer(job)
        except Exception as err:  # whatever a peer does: it is said, and the others go on
            traceback.print_exc()
            found = {"failed": f"{type(err).__name__}: {str(err).strip().splitlines()[0] if str(err) else ''}"}
        if job["device"] == "cuda":
            found |= {"libraries_mb": 0.0, "peak_mb": torch.cuda.max_memory_allocated() / 2**20}
        else:
            found |= {"libraries_mb": libraries, "peak_mb": memory_mb(peak=True)}
        stream.write(json.dumps(found) + "\n")


def main() -> None:
    """Import, say so, and fork for every job."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print to stderr
    import_libraries(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    answers.write("ready\n")
    while line := sys.stdin.readline():
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            answers.close()
            try:
                child(json.loads(line))
            finally:
                os._exit(0)


if __name__ == "__main__":
    main()
