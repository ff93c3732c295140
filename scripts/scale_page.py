"""Write the tables of docs/scale.md, between their marks, from the formulas below.

    python scripts/scale_page.py

Every number of the tables follows from the inputs at the top of this file. To do the arithmetic for a run of your own,
change them, or call the functions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unipref.core.io import write_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
MARK = "<!-- {name}: {side} -->"

# ---- inputs: data ----
PAIRS = 15_000_000
PROMPT, RESPONSE = 400, 300  # tokens of a pair's prompt and of each response
FACTS_BYTES = 120  # of a prepared pair besides its tokens: offsets, facts, hashes
TOKEN_BYTES = 4  # of a prepared token
TEXT_BYTES = 4.5  # of text per token, as it lies in a JSON-lines file

# ---- inputs: devices and links (vendors' figures; shares of them are assumed) ----
PEAK = 989e12  # bfloat16 products of an H100 or H200, dense, a second
UTILISATION = 0.40  # of it, over a whole step; 0.25 and 0.5 are the ends of the range that is shown
RANGE = (0.25, 0.50)
PER_NODE = 8
DEVICE_BYTES = {"H100": 80e9, "H200": 141e9}
INSIDE, BETWEEN, LINK_SHARE = 450e9, 50e9, 0.7  # bytes a second and direction per device: NVLink 4; a 400 Gb/s port
DISK = 10e9  # bytes a second of the shared file system, all together
HOST_BYTES = 2e12  # memory of a machine of eight devices

# ---- inputs: the run ----
FORWARD_TOKENS = 8192  # train.max_tokens_per_forward
RANK, DEVICES = 16, (8, 64, 1024)


@dataclass(frozen=True)
class Shape:
    """A Llama-like model: `kv` is the width of its keys, and head and embeddings are apart."""

    name: str
    layers: int
    hidden: int
    inner: int
    kv: int
    vocabulary: int

    @property
    def block(self) -> int:
        """Weights of one block that are multiplied with every token."""
        return 2 * self.hidden**2 + 2 * self.hidden * self.kv + 3 * self.hidden * self.inner

    @property
    def blocks(self) -> int:
        return self.layers * self.block

    @property
    def root(self) -> int:
        """Embeddings and head: what FSDP2 keeps gathered from a forward's begin to its backward's end."""
        return 2 * self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        return self.blocks + self.root

    @property
    def adapters(self) -> int:
        """Weights of LoRA on all linear layers of the blocks."""
        sides = [(self.hidden, self.hidden)] * 2 + [(self.hidden, self.kv)] * 2 + [(self.hidden, self.inner)] * 3
        return self.layers * RANK * sum(a + b for a, b in sides)


MODELS = (Shape("8 B", 32, 4096, 14336, 1024, 128256), Shape("70 B", 80, 8192, 28672, 1024, 128256))


# ---- one pair ----


def shared_tokens() -> int:
    """Of a pair whose prompt is computed once."""
    return PROMPT + 2 * RESPONSE


def plain_tokens() -> int:
    """Of a pair as two rows of their own, without padding."""
    return 2 * (PROMPT + RESPONSE)


def visible(*, shared: bool) -> int:
    """(token, token it sees) of a pair: what attention has to compute."""

    def below(n: int) -> int:
        return n * (n + 1) // 2

    prompt, answers = below(PROMPT), 2 * (PROMPT * RESPONSE + below(RESPONSE))
    return (prompt if shared else 2 * prompt) + answers


def forward_flops(model: Shape, *, shared: bool = True) -> float:
    """Of one pair: products of tokens and weights, of queries, keys and values, and of the head at scored tokens."""
    tokens = shared_tokens() if shared else plain_tokens()
    attention = 4 * model.layers * model.hidden * visible(shared=shared)
    return 2 * model.blocks * tokens + attention + 2 * model.vocabulary * model.hidden * 2 * RESPONSE


def training_flops(model: Shape, *, recomputed: bool = False) -> float:
    """Of one pair, forward and backward; `recomputed`: activations are, so the blocks run forward twice."""
    head = 2 * model.vocabulary * model.hidden * 2 * RESPONSE
    return 3 * forward_flops(model) + (forward_flops(model) - head if recomputed else 0)


def hours(flops: float, devices: int, utilisation: float = UTILISATION) -> float:
    return PAIRS * flops / (devices * PEAK * utilisation) / 3600


# ---- memory of a device ----


def state_bytes(model: Shape, way: str, devices: int) -> float:
    """Weights, gradients, optimiser state, and what is gathered of them at the same time, at its peak.

    AdamW in float32 takes 16 bytes for each trained weight. Gathered blocks are bfloat16, two at a time, with the
    float32 gradient of one; embeddings and head are gathered in float32 with their gradients.
    """
    adapter = 16 * model.adapters
    blocks = 2 * 2 * model.block + 4 * model.block
    if way == "DDP":
        return 16 * model.weights + 2 * model.blocks  # and the bfloat16 copies that autocast keeps
    if way == "FSDP2":
        return 16 * model.weights / devices + blocks + 2 * 4 * model.root
    if way == "ZeRO-3 (refused here)":  # bfloat16 weights and gradients beside float32 masters
        return 16 * model.weights / devices + 2 * 2 * 2 * model.block + 2 * 2 * model.root
    if way == "LoRA, DDP":
        return 2 * model.weights + adapter
    if way == "LoRA, FSDP2":
        return (2 * model.weights + adapter) / devices + 2 * 2 * model.block + 2 * model.root
    if way == "QLoRA, DDP":
        return 0.52 * model.blocks + 2 * model.root + adapter  # four bits, and their scales quantised too
    raise KeyError(way)


WAYS = ("DDP", "FSDP2", "ZeRO-3 (refused here)", "LoRA, DDP", "LoRA, FSDP2", "QLoRA, DDP")


def activation_bytes(model: Shape, tokens: int, *, recomputed: bool) -> float:
    """What a forward of `tokens` keeps for its backward: the float32 residual stream, bfloat16 elsewhere.

    Per token and block: two norms' inputs and outputs, queries, keys, values, attention's result, and four vectors of
    the MLP. Recomputed: a block's input alone, and all of one block.
    """
    block = 2 * (4 + 2) * model.hidden + 2 * (3 * model.hidden + 2 * model.kv) + 4 * 2 * model.inner
    per_token = 4 * model.hidden * model.layers + block if recomputed else block * model.layers
    return tokens * per_token


# ---- network ----


def exchanged(model: Shape, way: str, devices: int) -> tuple[float, float]:
    """Bytes that a device sends, over the links inside its machine and between machines.

    DDP: once per step, whatever number of forwards. FSDP2: per forward; blocks are gathered twice in bfloat16 and
    embeddings and head once in float32, gradients are reduced in float32. HSDP: the same inside a machine, and the
    machine's share of the gradients is averaged between machines.
    """
    ring = (devices - 1) / devices
    if way == "DDP":
        total = 2 * ring * 4 * model.weights
    else:
        group = PER_NODE if way == "HSDP" else devices
        total = (group - 1) / group * (2 * 2 * model.blocks + 4 * model.root + 4 * model.weights)
    if devices <= PER_NODE:
        return total, 0.0
    if way == "HSDP":
        nodes = devices // PER_NODE
        return total, 2 * (nodes - 1) / nodes * 4 * model.weights / PER_NODE
    return 0.0, total


def exchange_seconds(model: Shape, way: str, devices: int) -> float:
    inside, between = exchanged(model, way, devices)
    return inside / (INSIDE * LINK_SHARE) + between / (BETWEEN * LINK_SHARE)


def forward_seconds(model: Shape) -> float:
    """Of a forward and backward of `FORWARD_TOKENS`, without waiting for the network."""
    return FORWARD_TOKENS / shared_tokens() * training_flops(model) / (PEAK * UTILISATION)


# ---- disk ----


def prepared_bytes() -> float:
    return PAIRS * (shared_tokens() * TOKEN_BYTES + FACTS_BYTES)


def column_bytes() -> float:
    """Of one reference: a float32 for each scored token."""
    return PAIRS * 2 * RESPONSE * 4


# ---- tables ----


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def size(n: float) -> str:
    for unit, one in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= one:
            return f"{n / one:,.1f} {unit}" if n < 100 * one else f"{n / one:,.0f} {unit}"
    return f"{n / 1e3:.0f} kB"


def span(n_hours: float) -> str:
    if n_hours >= 48:
        return f"{n_hours / 24:,.1f} days"
    if n_hours >= 2:
        return f"{n_hours:.1f} h"
    if n_hours * 60 >= 2:
        return f"{n_hours * 60:.0f} min"
    return f"{n_hours * 3600:.1f} s"


def inputs() -> str:
    rows = [
        ["pairs; tokens of a prompt, of each response", f"{PAIRS:,}; {PROMPT}, {RESPONSE}", "assumed"],
        ["tokens of a pair: prompt once, or two rows", f"{shared_tokens():,}, {plain_tokens():,}", "counted"],
        ["a device's bfloat16 products, dense", f"{PEAK / 1e12:.0f} TFLOP/s (H100, H200)", "vendor"],
        ["share of it that a step reaches", f"{UTILISATION:.0%} ({RANGE[0]:.0%} to {RANGE[1]:.0%})", "assumed"],
        [
            "links of a device: inside a machine, between machines",
            f"{INSIDE / 1e9:.0f} and {BETWEEN / 1e9:.0f} GB/s each way, of which {LINK_SHARE:.0%}",
            "vendor; share assumed",
        ],
        ["shared file system, all readers together", f"{DISK / 1e9:.0f} GB/s", "assumed"],
        ["tokens per forward (`max_tokens_per_forward`)", f"{FORWARD_TOKENS:,}", "the default"],
    ]
    return table(["input", "value", "where from"], rows)


def work() -> str:
    rows = []
    for model in MODELS:
        train, score = training_flops(model), forward_flops(model)
        plain = 4 * forward_flops(model, shared=False)  # three of the policy, one of the reference, every epoch
        rows.append(
            [
                model.name,
                f"{model.weights / 1e9:.2f} B",
                f"{train / 1e12:,.0f}",
                f"{score / 1e12:,.0f}",
                f"{plain / 1e12:,.0f}",
                f"{PAIRS * train:.2g}",
                f"{plain / train:.2f}",
            ]
        )
    header = [
        "model", "weights", "TFLOP a pair, trained", "scored once", "plain trainer, reference each epoch",
        "FLOP an epoch", "plain / ours, cached",
    ]  # fmt: skip
    return table(header, rows)


def times() -> str:
    rows = []
    for model in MODELS:
        for n in DEVICES:
            train, score = training_flops(model), forward_flops(model)
            low, high = (span(hours(train, n, share)) for share in reversed(RANGE))
            rows.append(
                [
                    model.name,
                    f"{n:,}",
                    f"{span(hours(train, n))} ({low} to {high})",
                    span(hours(training_flops(model, recomputed=True), n)),
                    span(hours(score, n)),
                ]
            )
    return table(["model", "devices", "an epoch", "the same, activations recomputed", "scoring the reference"], rows)


def memory() -> str:
    rows = []
    for model in MODELS:
        for way in WAYS:
            state = [state_bytes(model, way, n) for n in DEVICES]
            best = min(DEVICES, key=lambda n, m=model, w=way: state_bytes(m, w, n))
            need = state_bytes(model, way, best) + activation_bytes(model, FORWARD_TOKENS, recomputed=True)
            fits = [name for name, has in DEVICE_BYTES.items() if need < 0.92 * has]
            rows.append([model.name, way, *map(size, state), ", ".join(fits) or "neither"])
    header = ["model", "way", *(f"{n:,} devices" for n in DEVICES), "fits, recomputing, at best"]
    return table(header, rows)


def activations() -> str:
    rows = []
    for model in MODELS:
        kept, again = (activation_bytes(model, FORWARD_TOKENS, recomputed=r) for r in (False, True))
        rows.append([model.name, size(kept), size(again), size(kept / FORWARD_TOKENS)])
    return table(["model", f"kept for {FORWARD_TOKENS:,} tokens", "recomputed", "kept, per token"], rows)


def network() -> str:
    rows = []
    for model in MODELS:
        for way in ("DDP", "FSDP2", "HSDP"):
            if way == "DDP" and model.name != MODELS[0].name:
                continue
            cells = []
            for n in DEVICES:
                if way == "HSDP" and n <= PER_NODE:
                    cells.append("as FSDP2")
                    continue
                cells.append(f"{size(sum(exchanged(model, way, n)))}, {span(exchange_seconds(model, way, n) / 3600)}")
            once = "step" if way == "DDP" else "forward"
            rows.append([model.name, way, once, *cells, span(forward_seconds(model) / 3600)])
    header = ["model", "way", "once per", *(f"{n:,} devices" for n in DEVICES), "a forward and backward computes"]
    return table(header, rows)


def steps() -> str:
    rows = []
    for n in DEVICES:
        tokens = n * FORWARD_TOKENS
        pairs = tokens // shared_tokens()
        rows.append([f"{n:,}", f"{tokens / 1e6:.2f} M", f"{pairs:,}", f"{PAIRS / pairs:,.0f}"])
    header = ["devices", "tokens of a step of one full forward each", "pairs", "steps of an epoch"]
    return table(header, rows)


def disk() -> str:
    model, large = MODELS
    node_reads = [size(n / PER_NODE * 2 * model.weights) for n in DEVICES]
    rows = [
        ["the rows as text", size(PAIRS * plain_tokens() * TEXT_BYTES), "once, read by one process"],
        ["prepared tokens and facts", size(prepared_bytes()), "memory-mapped by every process"],
        ["one reference's log-probabilities", size(column_bytes()), "float32 per scored token"],
        *(
            [f"a checkpoint of {m.name}, full training", size(12 * m.weights), span(12 * m.weights / DISK / 3600)]
            for m in MODELS
        ),
        [f"a checkpoint of {large.name}, LoRA", size(12 * large.adapters), span(12 * large.adapters / DISK / 3600)],
        [f"loading {model.name}, each machine once", ", ".join(node_reads), "8, 64, 1,024 devices"],
    ]
    return table(["what", "bytes", "time, or how"], rows)


def breaks() -> str:
    model, large = MODELS
    host = {m.name: PER_NODE * 4 * m.weights for m in MODELS}
    judged = hours(forward_flops(model), 1) / PAIRS * 20_000
    rate = PAIRS / (hours(training_flops(model), 1024) * 3600)
    between = exchange_seconds(model, "FSDP2", 64)
    hybrid = exchange_seconds(model, "HSDP", 64)
    of_step = forward_seconds(model)
    rows = [
        [
            "8",
            f"Memory: full training of {model.name} does not fit under DDP ({size(state_bytes(model, 'DDP', 8))} a "
            f"device); FSDP2 takes {size(state_bytes(model, 'FSDP2', 8))}, LoRA "
            f"{size(state_bytes(model, 'LoRA, DDP', 8))}. {large.name} in full takes "
            f"{size(state_bytes(large, 'FSDP2', 8))} a device: not on eight.",
        ],
        [
            "8",
            f"The host's memory at the start: each process loads the model. Eight in float32 are "
            f"{size(host[model.name])} for {model.name} and {size(host[large.name])} for {large.name}, of about "
            f"{size(HOST_BYTES)}. Load frozen weights in bfloat16 (LoRA), or start fewer processes a machine.",
        ],
        [
            "64",
            f"The network, where FSDP2 spans machines: {span(between / 3600)} a forward against "
            f"{span(of_step / 3600)} of computing at {FORWARD_TOKENS:,} tokens. HSDP: {span(hybrid / 3600)}. So does "
            "a larger `max_tokens_per_forward`.",
        ],
        [
            "64",
            f"One process that judges: 20,000 held-out pairs take one device {span(judged)} of scoring, and its "
            "sampling is on top. The others have ended by then and their devices are free.",
        ],
        [
            "1,024",
            f"The step: one full forward each is {1024 * FORWARD_TOKENS // shared_tokens():,} pairs. With 512 pairs, "
            "half of the devices have nothing to do, whatever their number; the learning rate has to be found anew.",
        ],
        [
            "1,024",
            f"One process that tokenises, and a score store in SQLite on a network file system, whose locks are not "
            f"made for that: prepared data and columns take {rate:,.0f} pairs a second, "
            f"{size(rate * (shared_tokens() * TOKEN_BYTES + 2 * RESPONSE * 4))}/s read by all together.",
        ],
        [
            "1,024",
            f"Time to the first step: {1024 // PER_NODE} machines read {size(1024 / PER_NODE * 2 * model.weights)} of "
            f"{model.name}, {span(1024 / PER_NODE * 2 * model.weights / DISK / 3600)} at {DISK / 1e9:.0f} GB/s, and an "
            f"epoch takes {span(hours(training_flops(model), 1024))}. Copy the model to the machines first.",
        ],
    ]
    return table(["devices", "what gives way"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "inputs": inputs,
    "work": work,
    "times": times,
    "memory": memory,
    "activations": activations,
    "network": network,
    "steps": steps,
    "disk": disk,
    "breaks": breaks,
}


def page(text: str) -> str:
    """`text` with every table between its marks made anew."""
    for name, make in TABLES.items():
        begin, end = (MARK.format(name=name, side=side) for side in ("begin", "end"))
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
