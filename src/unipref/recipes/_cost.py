"""What an estimate says: stage by stage, model by model, in all, and whether it fits."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from unipref.recipes.config import Recipe

__all__ = ["Estimate", "JudgeCost", "StageCost", "device_faults", "faults"]

HEADROOM = 0.9  # of what is available: beyond it a run is said not to fit
FLOPS = ("matrix", "attention", "head")


@dataclass
class StageCost:
    """What one stage of one run takes.

    Attributes:
        place: its folder, inside the run folder.
        left: optimiser steps that are still to be made; less than `steps` where a run is resumed, 0 of a finished one.
        records: that it trains on.
        tokens: positions of the steps: "plain", as rows padded to the longest of their step; "shared", as the run
            computes them; "policy", all that go through the policy, mismatched responses and validation included.
        forwards: with a backward; passes: without.
        flops: operations of those, by kind ("matrix", "attention", "head"), and of forwards alone ("forward").
        seconds: by part.
        memory: bytes at the peak of its training, of the whole process on a CPU, allocated on CUDA.
        disk: bytes by part.
        timed: the steps that were timed, as tokens, seconds and what the fitted model says.
    """

    run: str
    seed: int
    stage: str
    method: str
    place: str
    records: int = 0
    steps: int = 0
    left: int = 0
    epochs: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    forwards: int = 0
    passes: int = 0
    flops: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: float = 0.0
    disk: dict[str, float] = field(default_factory=dict)
    timed: list[dict[str, float]] = field(default_factory=list)

    @property
    def saved(self) -> float:
        """The share of a plain trainer's tokens that sharing prefixes and leaving out padding saves."""
        return 1 - self.tokens["shared"] / self.tokens["plain"] if self.tokens.get("plain") else 0.0


@dataclass
class JudgeCost:
    """What evaluating one model takes: seconds by part, bytes on disk, operations of scoring.

    Attributes:
        left: it is still to be done.
        draws: decoding steps of whole batches.
    """

    run: str
    seed: int
    left: bool = True
    flops: float = 0.0
    forwards: int = 0
    draws: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    disk: float = 0.0


@dataclass
class Estimate:
    """What a run will cost; `to_dict` has all of it.

    Attributes:
        parts: seconds by part, over all stages and evaluations.
        spread: relative half-width of the range that is given with the time.
        memory: bytes at the peak, by phase: {"training": ..., "evaluation": ...}.
        available: what this machine has left, {"memory": bytes, "disk": bytes}.
        faults: why it will not fit, each with what to change.
    """

    recipe: str
    folder: str
    machine: dict[str, Any]
    model: dict[str, Any]
    precision: str
    stages: list[StageCost]
    judged: list[JudgeCost]
    shared: dict[str, float]
    memory: dict[str, float]
    disk: dict[str, float]
    available: dict[str, float]
    spread: float
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    device: dict[str, Any] | None = None
    took: float = 0.0

    @property
    def parts(self) -> dict[str, float]:
        found = dict(self.shared)
        for cost in (*self.stages, *self.judged):
            for name, value in cost.seconds.items():
                found[name] = found.get(name, 0.0) + value
        return found

    @property
    def seconds(self) -> list[float]:
        """[value, low, high]."""
        value = sum(self.parts.values())
        return [value, value * (1 - self.spread), value * (1 + self.spread)]

    @property
    def peak(self) -> list[float]:
        """[value, low, high] bytes; the allocator's luck is worth a tenth."""
        value = max(self.memory.values())
        return [value, 0.9 * value, 1.15 * value]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "recipe": self.recipe,
            "folder": self.folder,
            "machine": self.machine,
            "model": self.model,
            "precision": self.precision,
            "stages": [{**vars(cost), "saved": cost.saved} for cost in self.stages],
            "judged": [vars(cost) for cost in self.judged],
            "totals": {
                "steps": sum(cost.left for cost in self.stages),
                "tokens": {
                    name: sum(cost.tokens.get(name, 0) for cost in self.stages)
                    for name in ("plain", "shared", "policy")
                },
                "flops": {name: sum(cost.flops.get(name, 0.0) for cost in self.stages) for name in (*FLOPS, "forward")},
                "parts": self.parts,
                "seconds": self.seconds,
                "memory": self.peak,
                "memory_by_phase": self.memory,
                "disk": {**self.disk, "total": sum(self.disk.values())},
            },
            "available": self.available,
            "device": self.device,
            "faults": self.faults,
            "notes": self.notes,
            "took": self.took,
        }


def faults(found: Estimate, recipe: Recipe) -> Iterator[str]:
    """Why the run will not fit on this machine, each with what to change."""
    memory, disk = found.available.get("memory"), found.available["disk"]
    if memory and found.peak[0] > HEADROOM * memory:
        yield (
            f"memory: about {size(found.peak[0])} will be needed and {size(memory)} are available here; "
            + _less_memory(recipe)
        )
    needed = sum(found.disk.values())
    if needed > HEADROOM * disk:
        ways = "choose another disk with --output"
        if recipe.model_options.lora is None:
            ways += ", train an adapter alone (model_options.lora, merge: false)"
        if found.disk["checkpoints"] > 0.3 * needed:
            ways += ", or train with fewer numbers per weight (train.optimizer: rmsprop or sgd)"
        yield f"disk: {size(needed)} will be written and {size(disk)} are free; {ways}"


def device_faults(device: dict[str, Any], recipe: Recipe) -> Iterator[str]:
    """Why the run will not fit on a named device."""
    low, high = device["memory"]
    has = device["vendor"]["memory"]
    if device["fits"] == "no":
        yield f"{device['name']}: at least {size(low)} will be needed and it has {size(has)}; {_less_memory(recipe)}"
    elif device["fits"] == "perhaps":
        yield (
            f"{device['name']}: between {size(low)} and {size(high)} will be needed and it has {size(has)}; to be "
            f"sure, {_less_memory(recipe)}"
        )


def _less_memory(recipe: Recipe) -> str:
    """What to change, the cheapest first."""
    train = recipe.train
    ways = []
    if train.max_tokens_per_forward > 1024:
        ways.append(f"halve train.max_tokens_per_forward (now {train.max_tokens_per_forward}; the result is the same)")
    if not train.gradient_checkpointing:
        ways.append("set train.gradient_checkpointing=true (about a third more time)")
    if recipe.model_options.lora is None:
        ways.append("train adapters (model_options.lora={r: 16})")
    elif recipe.model_options.dtype == "float32":
        ways.append("keep the frozen weights in bfloat16 (model_options.dtype=bfloat16)")
    if recipe.model_options.lora is not None and recipe.model_options.quantize is None:
        ways.append("hold the frozen weights in 4 bits (model_options.quantize=nf4, with bitsandbytes)")
    if train.precision == "float32":
        ways.append("train.precision=bfloat16 where the device has it")
    if recipe.data.max_length > 256:
        ways.append(f"lower data.max_length (now {recipe.data.max_length})")
    return "; ".join(ways) or "use a smaller model"


def size(n_bytes: float) -> str:
    """ "1.9 GB" of 1e9 bytes."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= one:
            return f"{n_bytes / one:.1f} {unit}" if n_bytes < 100 * one else f"{n_bytes / one:,.0f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
