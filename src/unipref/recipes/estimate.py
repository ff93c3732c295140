"""What a run of a recipe will cost, before it runs: the real data and model, a few real steps, and its real plan."""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from unipref.core.errors import ConfigError
from unipref.recipes._cost import FLOPS, Estimate, JudgeCost, StageCost, device_faults, faults
from unipref.recipes._devices import DeviceNeeds, find_device, on_device
from unipref.recipes._dry_bench import Bench
from unipref.recipes._dry_judging import Judging
from unipref.recipes._dry_training import OPTIMISER_COPIES, Training
from unipref.recipes._meters import Ledger
from unipref.recipes._run import prepare_folder, quiet_transformers, read_data
from unipref.recipes.config import Recipe
from unipref.recipes.doctor import examine_recipe, refuse
from unipref.recipes.fit import check_data
from unipref.recipes.stage import check_installed
from unipref.recipes.streamed import kept_bytes
from unipref.training import processes

__all__ = ["Estimate", "estimate"]

MARGIN = 0.15  # of a time, in either direction, where the timed steps agree better than that
# Bytes that small runs left besides what is counted: what the doctor, the data and the stages say; the page.
RUN_FILES = 110_000
REPORT = 100_000


def estimate(
    recipe: Recipe,
    *,
    output: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    began: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """What `align(recipe, output=output, resume=resume)` will take; nothing is written into its folder or its store.

    Data are read, split and encoded as the run does it. Of each kind of step, the smallest, the median and the largest
    forward of the run's own plan are made, with the real model, objective, optimiser and references; the largest says
    what memory is needed. Stages that begin where another ends are timed with the model that the run begins with.

    Args:
        device: also say what the run would take on this device, such as "H100".
        began: when the command began, on `clock`: importing libraries is a part of every run.
        clock: gives seconds.

    Raises:
        ConfigError: the recipe cannot run, the device is unknown, or this is one of several processes.
    """
    target = None if device is None else find_device(device)
    if processes().num_processes > 1:
        raise ConfigError("a dry run measures one process; start it without the launcher")
    for stages in recipe.run_plan().values():
        for stage in stages:
            check_installed(recipe.model_options, recipe.train_of(stage))
    folder = Path(output) if output is not None else recipe.folder
    if recipe.collect is not None:
        raise ConfigError(
            "collect: a dry run measures the pairs that are trained on, and the run samples these itself; run it "
            "with a small collect first, and dry-run a recipe whose data.train is what it collected"
        )
    if resume:
        prepare_folder(folder, recipe, resume=True)
    started = clock()
    shared = {"starting": 0.0 if began is None else started - began}
    with tempfile.TemporaryDirectory(prefix="unipref-dry-run-") as scratch, quiet_transformers():
        bench = Bench(recipe, folder, resume, Path(scratch), clock)
        data, shared["reading"] = bench.timed(lambda: read_data(recipe, bench.peek, None))
        examined, shared["doctor"] = bench.timed(lambda: examine_recipe(recipe, data))
        refuse(examined)
        check_data(recipe, data.train)
        shared["designer objectives"] = bench.slow_scoring(data)
        training = Training(bench, data, reading=_one_pass(recipe, shared["reading"]))
        stages = list(training.stages())
        judging = Judging(bench, data, training)
        judged = list(judging.models())
        shared["report"] = judging.report_seconds
        kept = 0.0 if data.stream is None else float(kept_bytes(data.stream.split, Path(scratch) / "split"))
    found = Estimate(
        recipe=recipe.name,
        folder=str(folder),
        machine=_machine(),
        model={"name": recipe.model, **training.model()},
        precision=training.precision,
        stages=stages,
        judged=judged,
        shared={name: seconds for name, seconds in shared.items() if seconds},
        memory=_memory(training, judging),
        disk=_disk(stages, judged, bench.ledger, training, kept),
        available={"memory": bench.available, "disk": float(shutil.disk_usage(_existing(folder)).free)},
        spread=max(MARGIN, 2 * training.residual),
        notes=list(dict.fromkeys(bench.notes)),
    )
    found.faults = list(faults(found, recipe))
    if target is not None and training.kinds:
        if recipe.model_options.quantize is not None:
            found.notes.append(f"{target.name}: how long unpacking quantised weights takes there is not known.")
        found.device = on_device(target, _needs(found, recipe, training))
        found.faults += device_faults(found.device, recipe)
    found.took = clock() - (started if began is None else began)
    return found


def _memory(training: Training, judging: Judging) -> dict[str, float]:
    merging = {"merging": training.merging} if training.merging else {}
    return {"training": training.memory, **merging, "evaluation": judging.memory}


def _one_pass(recipe: Recipe, reading: float) -> float:
    """Seconds of going once over the rows, of those in which a stream was split."""
    normalises = any(objective.normalise != "none" for objective in recipe.objectives.values())
    return reading / (1 + (recipe.data.limit is not None) + normalises)


def _disk(
    stages: Sequence[StageCost], judged: Sequence[JudgeCost], ledger: Ledger, training: Training, kept: float
) -> dict[str, float]:
    prepared = {"prepared rows": kept + sum(training.prepared.values())} if kept else {}
    return {
        "models": sum(cost.disk.get("models", 0.0) for cost in stages),
        "checkpoints": sum(cost.disk.get("checkpoints", 0.0) for cost in stages),
        **prepared,
        "score store": float(ledger.bytes),
        "evaluation and report": sum(cost.disk for cost in judged) + RUN_FILES + REPORT,
    }


def _existing(folder: Path) -> Path:
    """`folder`, or what of its parents is there already."""
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)


def _machine() -> dict[str, Any]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return {"kind": kind, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def _needs(found: Estimate, recipe: Recipe, training: Training) -> DeviceNeeds:
    """What the run asks of another device."""
    shapes = [kind.shape for kind in training.kinds.values()]
    parts = found.parts
    here = ("starting", "reading", "doctor", "designer objectives", "loading", "encoding", "writing", "report")
    copies = OPTIMISER_COPIES[recipe.train.optimizer]
    return DeviceNeeds(
        train_flops=sum(cost.flops.get(name, 0.0) for cost in found.stages for name in FLOPS),
        forward_flops=sum(c.flops.get("forward", 0.0) for c in found.stages) + sum(c.flops for c in found.judged),
        train_passes=3.0 * sum(cost.forwards for cost in found.stages),
        forward_passes=float(sum(cost.passes for cost in found.stages) + sum(cost.forwards for cost in found.judged)),
        updates=sum(cost.left for cost in found.stages),
        # an update reads gradient, weight and the optimiser's numbers, and writes all but the gradient
        update_bytes=4.0 * max(shape.trained for shape in shapes) * (3 + 2 * copies),
        drawn_tokens=sum(cost.draws for cost in found.judged),
        weights=shapes[0].weights,
        blocks=shapes[0].blocks,
        state_bytes=max(measured.state for measured in training.measured.values()),
        activations=max(measured.activations for measured in training.measured.values()),
        elsewhere=sum(parts.get(name, 0.0) for name in here),
        precision=recipe.train.precision,
    )
