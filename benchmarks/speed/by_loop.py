"""One repeat of the plain PyTorch loop that a careful person writes: padded rows, full logits, AdamW.

It needs torch and transformers alone, so that it also runs where flash-pref does: in an environment with the older
transformers that flash-pref asks for. There its forward and backward passes stand inside `flash_pref.shared_prefix`.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.speed.cases import Setting, Side
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

__all__ = ["loop_repeat", "matrix_rate"]

LEARNING_RATE, BETA, CLIP = 1e-4, 0.1, 1.0

Told = dict[str, Any]


def loop_repeat(setting: Setting, side: Side, told: Told, rows: list[Told]) -> Told:
    """One training, whose first step is not timed. A response that several pairs hold is one row."""
    device = told["device"]
    attention = {}
    if side.engine == "flash_pref" and device == "cuda":
        attention["attn_implementation"] = "flash_attention_2"

    def model() -> Any:
        kind = torch.bfloat16 if setting.weights == "bfloat16" else torch.float32
        return AutoModelForCausalLM.from_pretrained(told["model"], torch_dtype=kind, **attention).to(device)

    policy = model()
    policy.config.use_cache = False
    reference = model().eval() if side.reference == "live" else policy
    steps = [_padded([rows[i] for i in step], device) for step in told["steps"]]
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=setting.precision == "bfloat16")

    def logp(which: Any, step: Told) -> torch.Tensor:
        with autocast:
            logits = which(input_ids=step["ids"], attention_mask=step["mask"], use_cache=False).logits
        each = logits[:, :-1].float().log_softmax(-1).gather(2, step["ids"][:, 1:, None])[..., 0]
        return (each * step["scored"][:, 1:]).sum(1)

    def shared(which: Any, step: Told) -> contextlib.AbstractContextManager:
        if side.engine != "flash_pref":
            return contextlib.nullcontext()
        from flash_pref import shared_prefix

        return shared_prefix(which, input_ids=step["ids"], attention_mask=step["mask"], group_size=step["group"])

    def of_reference(step: Told) -> torch.Tensor:
        with torch.no_grad(), shared(reference, step):
            return logp(reference, step)

    cached = [of_reference(step) for step in steps] if side.reference == "cached" else None
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    losses, gradients = [], []
    now = _clock(device)
    for i, step in enumerate(steps):
        if i == 1:  # the first step warms up
            began = now()
        ratio = None if cached is None else cached[i]
        if ratio is None:
            ratio = of_reference(step)
        with shared(policy, step):
            ratio = logp(policy, step) - ratio
            loss = -logsigmoid(BETA * (ratio[step["chosen"]] - ratio[step["rejected"]])).mean()
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        gradients.append(float(norm))
    return {
        "seconds": now() - began,
        "loss": sum(losses) / len(losses),
        "gradient": gradients[0],
        "trained": sum(p.numel() for p in policy.parameters()),
        "steps": [_counted(step) for step in steps],
    }


def _clock(device: str) -> Callable[[], float]:
    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


def _padded(rows: list[Told], device: str) -> Told:
    """A step as padded rows: the items of one record after those of another."""
    items = [item for row in rows for item in row["items"]]
    longest = max(len(context) + len(response) for context, response in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    mask, scored = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, (context, response) in enumerate(items):
        n = len(context) + len(response)
        ids[i, :n] = torch.tensor([*context, *response])
        mask[i, :n] = 1
        scored[i, len(context) : n] = 1
    start, pairs = 0, []
    for row in rows:
        pairs += [(start + a, start + b) for a, b in row["pairs"]]
        start += len(row["items"])
    chosen, rejected = (torch.tensor(side, device=device) for side in zip(*pairs, strict=True))
    parts = {"ids": ids, "mask": mask, "scored": scored}
    return {
        **{name: part.to(device) for name, part in parts.items()},
        "chosen": chosen,
        "rejected": rejected,
        "group": len(rows[0]["items"]),
    }


def _counted(step: Told) -> Told:
    both = torch.cat([step["chosen"], step["rejected"]])
    return {
        "pairs": len(step["chosen"]),
        "tokens": int(step["mask"][both].sum()),
        "scored": int(step["scored"][both].sum()),
    }


def matrix_rate(precision: str, device: str, size: int, tries: int = 4) -> Told:
    """The most operations per second that a product of two square matrices reached in some tries.

    On a CPU torch has two libraries for it; both are tried.
    """
    now, dtype = _clock(device), getattr(torch, precision)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.mm(a, b)
    ways = [lambda: torch.mm(a, b, out=out)]
    if device == "cpu" and hasattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise"):
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
        ways[-1]()
    best = 0.0
    for way in ways * tries:
        began = now()
        way()
        best = max(best, 2 * size**3 / (now() - began))
    return {"flops_per_second": best}
