"""What is measured: model shapes, data, sides, and the cases with their targets. One table each; nothing is elsewhere.

A *setting* is a model on data in one precision; its *sides* are the ways of training on it, and take turns in one run.
A *case* asks one question of one setting: one of our sides against some of the peers', and what it must reach.
"""

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "CASES",
    "CUDA_CASES",
    "DATA",
    "GROWTHS",
    "SETTINGS",
    "SHAPES",
    "SIDES",
    "Case",
    "Data",
    "Growth",
    "Setting",
    "Shape",
    "Side",
    "Target",
]


@dataclass(frozen=True)
class Shape:
    """A Llama with random weights; its head is tied to the embedding."""

    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int


SHAPES = {
    "tiny": Shape(128, 32, 2, 64, 2, 1),  # for the tests
    "small": Shape(4_096, 384, 6, 1024, 6, 6),
    "medium": Shape(32_000, 384, 6, 1024, 6, 6),
    "vocabulary": Shape(128_256, 384, 6, 1024, 6, 6),
    "wide": Shape(32_000, 1024, 8, 2816, 16, 16),
    "1b": Shape(128_256, 2048, 16, 8192, 32, 8),  # of Llama 3.2 1B; these two are for a GPU
    "8b": Shape(128_256, 4096, 32, 14336, 32, 8),  # of Llama 3.1 8B, but tied
}


@dataclass(frozen=True)
class Data:
    """Records of one kind, in steps of `batch` records.

    Attributes:
        kind: "pairs" of the bundled conversations; "long", the same behind other conversations; "lists" of `k`
            responses of exactly `response` tokens to prompts of exactly `prompt`; "trees" of steps, as wide at each
            depth as `branches` says.
        prompt: tokens of each prompt; (fewest, most) for "long".
        rows: records in the data set, of which the steps' are the first; 0 for no more than these.
    """

    kind: Literal["pairs", "long", "lists", "trees"]
    batch: int
    steps: int
    prompt: int | tuple[int, int] = 0
    response: int = 0
    k: int = 2
    branches: tuple[int, ...] = ()
    rows: int = 0


def _lists(ratio: int, batch: int, k: int = 4) -> Data:
    return Data("lists", batch, 2, prompt=64 * ratio, response=64, k=k)


DATA = {
    "tiny": Data("lists", 2, 2, prompt=12, response=6, k=2),
    "hh": Data("pairs", 8, 2),
    "hh_step": Data("pairs", 8, 1),
    "long": Data("long", 2, 1, prompt=(1000, 3000)),
    "lists_2": _lists(2, 8),
    "lists_8": _lists(8, 4),
    "lists_16": _lists(16, 2),
    "trees_3": Data("trees", 2, 1, branches=(2, 3, 2)),
    "trees_4": Data("trees", 1, 1, branches=(2, 2, 3, 2)),
    **{f"prompt_{n}": Data("lists", 2, 1, prompt=n, response=64) for n in (128, 512, 1024, 2048)},
    **{f"k_{k}": Data("lists", 2, 1, prompt=512, response=64, k=k) for k in (2, 4, 8)},
    **{f"batch_{n}": Data("pairs", n, 1) for n in (2, 8, 24)},
    **{f"rows_{n}": Data("pairs", 8, 1, rows=n) for n in (100, 1000, 10000)},
    "hh_cuda": Data("pairs", 32, 4),
    "long_cuda": Data("long", 8, 3, prompt=(1000, 3000)),
    "lists_cuda": Data("lists", 8, 3, prompt=512, response=64, k=4),
}


@dataclass(frozen=True)
class Side:
    """One way of training.

    Attributes:
        engine: whose trainer.
        order: "given" (random), or "length" (records of similar size share a step).
        reference: "live", or "cached": computed before the clock starts.
        path: of unipref's engine; "rows" shares nothing.
    """

    title: str
    engine: Literal["unipref", "trl", "loop", "flash_pref"]
    order: Literal["given", "length"] = "given"
    reference: Literal["live", "cached"] = "live"
    checkpointing: bool = False
    path: Literal["tries", "rows"] = "tries"


SIDES = {
    "ours": Side("unipref", "unipref"),
    "ours_length": Side("unipref, by length", "unipref", "length"),
    "ours_cached": Side("unipref, cached reference", "unipref", reference="cached"),
    "ours_length_cached": Side("unipref, by length, cached reference", "unipref", "length", "cached"),
    "rows_cached": Side("unipref without sharing, cached reference", "unipref", reference="cached", path="rows"),
    "trl_default": Side("TRL as it comes (checkpointing on)", "trl", checkpointing=True),
    "trl": Side("TRL, checkpointing off", "trl"),
    "trl_length": Side("TRL, by length", "trl", "length"),
    "trl_cached": Side("TRL, precomputed reference", "trl", reference="cached"),
    "trl_length_cached": Side("TRL, by length, precomputed reference", "trl", "length", "cached"),
    "loop": Side("plain loop", "loop"),
    "loop_length_cached": Side("plain loop, by length, cached reference", "loop", "length", "cached"),
    "loop_cached": Side("plain loop, cached reference", "loop", reference="cached"),
    "flash_pref_length_cached": Side("flash-pref, by length, cached reference", "flash_pref", "length", "cached"),
    "flash_pref_cached": Side("flash-pref, cached reference", "flash_pref", reference="cached"),
}


@dataclass(frozen=True)
class Setting:
    """A model on data, and the sides that train it.

    Attributes:
        precision: of the matrix products; weights stay float32 but where `weights` says otherwise.
    """

    shape: str
    data: str
    sides: tuple[str, ...]
    precision: Literal["float32", "bfloat16"] = "float32"
    lora: bool = False
    weights: Literal["float32", "bfloat16"] = "float32"


_BEST = ("ours_length", "ours_length_cached", "trl_length", "trl_length_cached")
_CACHED = ("ours_length_cached", "trl_length_cached", "loop_length_cached")

SETTINGS = {
    "tiny": Setting("tiny", "tiny", ("ours", "ours_cached", "trl", "trl_cached", "loop", "loop_cached")),
    "hh": Setting(
        "medium",
        "hh",
        (
            *("ours", "ours_length", "ours_cached", "ours_length_cached"),
            *("trl_default", "trl", "trl_length", "trl_cached", "trl_length_cached"),
            *("loop", "loop_length_cached", "flash_pref_length_cached"),
        ),
    ),
    "hh_bf16": Setting("medium", "hh", _BEST, precision="bfloat16"),
    "hh_lora": Setting("medium", "hh_step", _BEST, lora=True),
    "hh_lora_bf16": Setting(
        "medium", "hh_step", ("ours_length_cached", "trl_length_cached"), precision="bfloat16", lora=True
    ),
    "hh_small": Setting("small", "hh", (*_CACHED, "flash_pref_length_cached")),
    "hh_vocabulary": Setting("vocabulary", "hh_step", (*_BEST, "loop_length_cached")),
    "hh_wide": Setting("wide", "hh_step", ("ours_length_cached",)),
    "long": Setting("small", "long", ("ours_cached", "trl_cached", "flash_pref_cached")),
    "lists_2": Setting("small", "lists_2", ("ours_cached", "rows_cached")),
    "lists_8": Setting(
        "small", "lists_8", ("ours_cached", "rows_cached", "trl_cached", "loop_cached", "flash_pref_cached")
    ),
    "lists_16": Setting("small", "lists_16", ("ours_cached", "rows_cached")),
    "trees_3": Setting("small", "trees_3", ("ours_cached", "trl_cached", "loop_cached")),
    "trees_4": Setting("small", "trees_4", ("ours_cached", "trl_cached")),
    **{
        name: Setting("small", name, ("ours_cached", "trl_cached"))
        for name in DATA
        if name.startswith(("prompt_", "k_", "batch_"))
    },
    **{name: Setting("small", name, ("ours", "trl")) for name in DATA if name.startswith("rows_")},
    "hh_1b": Setting(
        "1b",
        "hh_cuda",
        (*_BEST, "trl", "trl_default", "loop_length_cached", "flash_pref_length_cached"),
        precision="bfloat16",
    ),
    "long_1b": Setting(
        "1b", "long_cuda", ("ours_cached", "trl_cached", "flash_pref_cached"), precision="bfloat16", weights="bfloat16"
    ),
    "lists_1b": Setting(
        "1b", "lists_cuda", ("ours_cached", "rows_cached", "trl_cached", "flash_pref_cached"), precision="bfloat16"
    ),
    "hh_8b_lora": Setting(
        "8b",
        "hh_cuda",
        ("ours_length_cached", "trl_length_cached", "flash_pref_length_cached"),
        precision="bfloat16",
        lora=True,
        weights="bfloat16",
    ),
}


@dataclass(frozen=True)
class Target:
    """What a case must reach.

    Attributes:
        of: "speed", our pairs per second over each judged peer's; "peak", our share of the measured matrix rate;
            "bound", our speed over that of the judged side, as a share of 4(P + R) / (P + 4R); "memory", our peak above
            weights, gradients and optimiser state over that of each judged peer.
        against: the peers that are judged; others are shown beside.
        at_least: the limit; `at_most` for memory.
    """

    of: Literal["speed", "peak", "bound", "memory"]
    against: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    @property
    def limit(self) -> float:
        return self.at_least if self.at_least is not None else self.at_most

    def met(self, values: list[float]) -> bool:
        """Whether all of `values` keep the limit."""
        if self.at_most is not None:
            return all(value <= self.at_most for value in values)
        return all(value >= self.at_least for value in values)


@dataclass(frozen=True)
class Case:
    """A question to one setting.

    Attributes:
        peers: sides of the setting that it is compared with.
        target: None where there is no limit, only the comparison.
    """

    name: str
    question: str
    setting: str
    ours: str
    peers: tuple[str, ...] = ()
    target: Target | None = None


def _lists_case(ratio: int, peers: tuple[str, ...] = ()) -> Case:
    return Case(
        f"lists_{ratio}",
        f"K = 4 responses to one prompt against four separate rows, prompt : response = {ratio}",
        f"lists_{ratio}",
        "ours_cached",
        ("rows_cached", *peers),
        Target("bound", ("rows_cached",), at_least=0.85),
    )


_PEAK = Target("peak", at_least=0.70)

CASES = (
    Case(
        "hh",
        "HH, the same records in every step, in random order, reference live, checkpointing off",
        "hh",
        "ours",
        ("trl", "loop"),
        Target("speed", ("trl",), at_least=4.0),
    ),
    Case("hh_default", "HH, TRL as it comes: activations checkpointed", "hh", "ours", ("trl_default",)),
    Case(
        "hh_best",
        "HH, ours by length; TRL in its own order and by length; reference live",
        "hh",
        "ours_length",
        ("trl", "trl_length"),
        Target("speed", ("trl", "trl_length"), at_least=9.0),
    ),
    Case(
        "hh_cached",
        "HH, ours by length; TRL in its own order and by length; reference cached on both sides",
        "hh",
        "ours_length_cached",
        ("trl_cached", "trl_length_cached", "loop_length_cached", "flash_pref_length_cached"),
        Target("speed", ("trl_cached", "trl_length_cached"), at_least=9.0),
    ),
    Case("hh_cached_random", "HH, random order, reference cached", "hh", "ours_cached", ("trl_cached",)),
    Case(
        "hh_bf16",
        "HH, both in bfloat16, both by length, reference live",
        "hh_bf16",
        "ours_length",
        ("trl_length",),
        Target("speed", ("trl_length",), at_least=8.0),
    ),
    Case(
        "hh_bf16_cached",
        "HH, both in bfloat16, both by length, reference cached",
        "hh_bf16",
        "ours_length_cached",
        ("trl_length_cached",),
        Target("speed", ("trl_length_cached",), at_least=8.0),
    ),
    Case("peak_wide", "share of the matrix rate, hidden 1024, 8 layers", "hh_wide", "ours_length_cached", (), _PEAK),
    Case("peak_medium", "share of the matrix rate, hidden 384, 6 layers", "hh", "ours_length_cached", (), _PEAK),
    _lists_case(2),
    _lists_case(8, ("trl_cached", "loop_cached", "flash_pref_cached")),
    _lists_case(16),
    Case(
        "memory",
        "HH, 128 k vocabulary, both by length, reference cached: memory above weights, gradients and optimiser state",
        "hh_vocabulary",
        "ours_length_cached",
        ("trl_length_cached", "loop_length_cached"),
        Target("memory", ("trl_length_cached",), at_most=0.5),
    ),
    Case(
        "memory_live",
        "HH, 128 k vocabulary, both by length, reference live: the same memory",
        "hh_vocabulary",
        "ours_length",
        ("trl_length",),
        Target("memory", ("trl_length",), at_most=0.5),
    ),
    Case("small", "HH, small vocabulary, both by length, reference cached", "hh_small", "ours_length_cached",
         ("trl_length_cached", "loop_length_cached", "flash_pref_length_cached")),
    Case("long", "prompts of 1,000 to 3,000 tokens, reference cached", "long", "ours_cached",
         ("trl_cached", "flash_pref_cached")),
    Case("trees_3", "trees of steps, three deep, reference cached", "trees_3", "ours_cached",
         ("trl_cached", "loop_cached")),
    Case("trees_4", "trees of steps, four deep, reference cached", "trees_4", "ours_cached", ("trl_cached",)),
    Case("lora", "HH, LoRA, both by length, reference live", "hh_lora", "ours_length", ("trl_length",)),
    Case("lora_cached", "HH, LoRA, both by length, reference cached", "hh_lora", "ours_length_cached",
         ("trl_length_cached",)),
    Case("lora_bf16", "HH, LoRA in bfloat16, both by length, reference cached", "hh_lora_bf16", "ours_length_cached",
         ("trl_length_cached",)),
)  # fmt: skip

# Of these nothing was run on a machine without a GPU; `--device cuda` runs them.
CUDA_CASES = (
    Case(
        "cuda_hh",
        "1 B, HH, both by length, reference cached",
        "hh_1b",
        "ours_length_cached",
        ("trl_length_cached", "trl_length", "trl", "trl_default", "loop_length_cached", "flash_pref_length_cached"),
        Target("speed", ("trl_length_cached", "flash_pref_length_cached"), at_least=1.5),
    ),
    Case("cuda_peak", "1 B, HH, share of the matrix rate", "hh_1b", "ours_length_cached", (),
         Target("peak", at_least=0.45)),
    Case("cuda_long", "1 B, long prompts, reference cached", "long_1b", "ours_cached",
         ("trl_cached", "flash_pref_cached"), Target("speed", ("trl_cached", "flash_pref_cached"), at_least=1.5)),
    Case("cuda_lists", "1 B, K = 4, prompt : response = 8", "lists_1b", "ours_cached",
         ("rows_cached", "trl_cached", "flash_pref_cached"), Target("bound", ("rows_cached",), at_least=0.85)),
    Case("cuda_lora", "8 B, LoRA, HH, both by length, reference cached", "hh_8b_lora", "ours_length_cached",
         ("trl_length_cached", "flash_pref_length_cached"), Target("speed", ("trl_length_cached",), at_least=1.5)),
)  # fmt: skip


@dataclass(frozen=True)
class Growth:
    """How speed and memory change along one axis: a setting per point, with our side and TRL's."""

    name: str
    axis: str
    points: dict[int, str] = field(hash=False)


GROWTHS = (
    Growth("prompt", "prompt tokens", {n: f"prompt_{n}" for n in (128, 512, 1024, 2048)}),
    Growth("k", "responses to a prompt", {k: f"k_{k}" for k in (2, 4, 8)}),
    Growth("batch", "pairs in a step", {n: f"batch_{n}" for n in (2, 8, 24)}),
    Growth("rows", "pairs in the data set", {n: f"rows_{n}" for n in (100, 1000, 10000)}),
)
