"""What `unipref align --dry-run` prints."""

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["print_estimate"]

COLUMNS = ("stage", "records", "steps", "tokens", "of a plain trainer", "saved", "TFLOP", "time", "memory", "disk")


def print_estimate(found: Any, console: Any) -> None:
    """Print an `Estimate` for people: the stages, then time, memory and disk by part, then what will not fit."""
    from rich.table import Table

    said = found.to_dict()
    totals = said["totals"]
    model, machine = said["model"], said["machine"]
    console.print(f"[bold]{said['recipe']}[/bold]: a dry run; nothing was written to {said['folder']}")
    if "weights" in model:
        threads = f"{machine['threads']} threads of " if machine["kind"] == "cpu" else ""
        console.print(
            f"model {model['name']}: {_count(model['weights'])} weights, {_count(model['trained'])} trained, "
            f"{said['precision']}, by {model['path']}; on {threads}{machine['name']}",
            highlight=False,
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "stage",
        "records",
        "steps",
        "tokens",
        "of a plain trainer",
        "saved",
        "TFLOP",
        "time",
        "memory",
        "disk",
    ):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in said["stages"]:
        flops = sum(stage["flops"].values())
        steps = f"{stage['left']:,}" + (f" of {stage['steps']:,}" if stage["left"] != stage["steps"] else "")
        table.add_row(
            stage["place"],
            f"{stage['records']:,}",
            steps,
            _count(stage["tokens"].get("shared", 0)),
            _count(stage["tokens"].get("plain", 0)),
            f"{100 * stage['saved']:.0f} %",
            f"{flops / 1e12:,.3g}",
            _time(sum(stage["seconds"].values())),
            _size(stage["memory"]) if stage["memory"] else "",
            _size(sum(stage["disk"].values())),
        )
    console.print(table)
    console.print()
    parts = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("time", "left"), ("", "right"), ("share", "right")):
        parts.add_column(name, justify=side)
    value, low, high = totals["seconds"]
    for name, seconds in sorted(totals["parts"].items(), key=lambda part: -part[1]):
        if seconds >= 0.05:
            parts.add_row(name, _time(seconds), f"{100 * seconds / value:.0f} %")
    parts.add_row("[bold]in all[/bold]", f"[bold]{_time(value)}[/bold]", f"{_time(low)} to {_time(high)}")
    console.print(parts)
    console.print()
    for line in _facts(said):
        console.print(line, highlight=False)
    for note in said["notes"]:
        console.print(f"note: {note}", highlight=False)
    for fault in said["faults"]:
        console.print(f"[bold red]will not fit[/bold red] {fault}", highlight=False)
    console.print(f"Measured in {_time(said['took'])}.", highlight=False)


def _facts(said: dict[str, Any]) -> Iterator[str]:
    totals = said["totals"]
    phases = ", ".join(f"{name} {_size(size)}" for name, size in totals["memory_by_phase"].items() if size)
    kind = "allocated at the peak" if said["machine"]["kind"] == "cuda" else "of the process at its peak"
    value, low, high = totals["memory"]
    available = said["available"]
    here = f"{_size(available['memory'])} available"
    yield f"memory  {_size(value)} ({_size(low)} to {_size(high)}) {kind}: {phases}; {here}"
    disk = ", ".join(f"{name} {_size(size)}" for name, size in totals["disk"].items() if name != "total" and size)
    yield f"disk    {_size(totals['disk']['total'])}: {disk}; {_size(available['disk'])} free"
    flops = totals["flops"]
    steps = sum(stage["seconds"].get("training", 0.0) for stage in said["stages"])
    computed = sum(flops[name] for name in ("matrix", "attention", "head"))
    if steps:
        yield (
            f"FLOPs   {computed / 1e12:,.3g} T in steps (weights {flops['matrix'] / 1e12:,.3g}, attention "
            f"{flops['attention'] / 1e12:,.3g}, head {flops['head'] / 1e12:,.3g}), {flops['forward'] / 1e12:,.3g} T "
            f"forward alone; this machine made {computed / steps / 1e9:,.0f} GFLOP/s"
        )
    device = said["device"]
    if device is not None:
        yield from _device(device)


def _device(device: dict[str, Any]) -> Iterator[str]:
    vendor, assumed, seconds = device["vendor"], device["assumed"], device["seconds"]
    share = " to ".join(f"{100 * x:.0f}" for x in assumed["share_of_peak"])
    yield ""
    yield (
        f"On one {device['name']} ({_size(vendor['memory'])}, {vendor['peak_flops'] / 1e12:,.0f} TFLOP/s in "
        f"{device['precision']}, {vendor['bandwidth'] / 1e9:,.0f} GB/s, as the vendor says), if training reaches "
        f"{share} % of that:"
    )
    named = ", ".join(f"{name} {_range(seconds[name], _time)}" for name in ("training", "scoring", "sampling"))
    yield f"time    {_range(seconds['total'], _time)}: {named}; the rest as on this machine"
    yield f"memory  {_range(device['memory'], _size)}; fits: {device['fits']}"


def _range(pair: Sequence[float], word: Any) -> str:
    low, high = (word(value) for value in pair)
    return low if low == high else f"{low} to {high}"


def _count(number: float) -> str:
    for unit, one in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= one:
            return f"{number / one:.3g} {unit}"
    return f"{number:.0f}"


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(n_bytes: float) -> str:
    from unipref.recipes._cost import size

    return size(n_bytes)
