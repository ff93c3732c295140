"""Where the time of our step goes, by kind of work, from torch's profiler."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from benchmarks.speed.by_trainers import STEP_END, unipref_repeat
from benchmarks.speed.cases import Setting, Side
from torch.profiler import ProfilerActivity, profile, record_function

__all__ = ["KINDS", "kind_of", "profiled", "shares"]

KINDS = ("matrix products", "attention", "head", "elementwise", "optimiser", "data", "Python and other")
HEAD = "benchmark: head"
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::matmul", "aten::linear", "mkldnn", "aten::_addmm")
_MARKS = {
    "head": (HEAD,),
    "optimiser": ("optimizer.step", "clip_grad", "_foreach_norm"),
    "attention": ("scaled_dot_product", "flex_attention"),
    "data": ("enumerate(dataloader)",),
}
_MODULES = {
    "head": "head",
    "attention": "attention",
    "_tiles": "attention",
    "_blocks": "attention",
    "_flex": "attention",
}

Told = dict[str, Any]


def own_functions() -> dict[str, str]:
    """Name of each of our autograd functions of the head and of attention, in small letters -> its kind of work."""
    found = {}
    for name, module in list(sys.modules.items()):
        kind = _MODULES.get(name.removeprefix("unipref.engine.")) if name.startswith("unipref.engine.") else None
        for _, each in inspect.getmembers(module, inspect.isclass) if kind else ():
            if issubclass(each, torch.autograd.Function) and each.__module__ == name:
                found[each.__name__.lower()] = kind
    return found


def kind_of(names: list[str], functions: Mapping[str, str]) -> str:
    """The kind of work of an operator, from its own name and those of all that it was called by, innermost first.

    Args:
        functions: name of an autograd function, in small letters -> the kind of what it calls, both ways.
    """
    chain = [name.lower() for name in names]
    for name in chain:
        kind = functions.get(name.removesuffix("backward"))
        kind = kind or next((kind for kind, marks in _MARKS.items() if any(mark in name for mark in marks)), None)
        if kind:
            return kind
    if chain[0].startswith(_PRODUCTS):
        return KINDS[0]
    return "elementwise" if chain[0].startswith(("aten::", "torch::")) or "backward" in chain[0] else KINDS[-1]


def shares(
    events: list[Any], seconds: float, functions: Mapping[str, str], *, device: bool = False
) -> dict[str, float]:
    """Kind of work -> share of `seconds`, between the first and the last step's end.

    What no operator took is Python's; a profiler makes each operator slower, so that little may be left for it.
    """
    found = dict.fromkeys(KINDS, 0.0)
    ends = [event.time_range.start for event in events if event.name == STEP_END]
    for event in events:
        if not min(ends) <= event.time_range.start < max(ends) or event.name in (STEP_END, HEAD):
            continue
        names, above = [event.name], event.cpu_parent
        while above is not None:
            names.append(above.name)
            above = above.cpu_parent
        own = event.self_device_time_total if device else event.self_cpu_time_total
        found[kind_of(names, functions)] += own / 1e6 / seconds
    found[KINDS[-1]] = max(0.0, 1.0 - sum(share for kind, share in found.items() if kind != KINDS[-1]))
    return {kind: round(share, 4) for kind, share in found.items()}


def profiled(setting: Setting, side: Side, told: Told, rows: list[Told]) -> Told:
    """Shares of a training's time by kind of work, and the operators that took most of it."""
    from unipref.engine.head import LogitHead

    cuda = told["device"] == "cuda"
    found: Told = {}

    def around(train: Callable[[], Mapping[str, Any]]) -> Told:
        original = LogitHead.__call__

        def marked(self: Any, *args: Any, **options: Any) -> Any:
            with record_function(HEAD):
                return original(self, *args, **options)

        LogitHead.__call__ = marked
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        try:
            with profile(activities=activities) as recorded:
                trained = train()
        finally:
            LogitHead.__call__ = original
        found["shares"] = shares(list(recorded.events()), trained["seconds"], own_functions(), device=cuda)
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        found["table"] = recorded.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=50)
        return dict(trained)

    unipref_repeat(setting, side, told, rows, around)
    return found
