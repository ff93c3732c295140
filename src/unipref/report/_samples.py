"""What models wrote, side by side: in the terminal, and as a page of a run folder, from `samples.json` alone."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from unipref.core.errors import DataError
from unipref.core.io import write_text
from unipref.report._folder import REFERENCE, SAMPLES_PAGE
from unipref.report._page import data_view, environment
from unipref.report._words import MINUS, NOTHING, Metric, bracket
from unipref.sampling import printable

__all__ = ["SAMPLES", "label", "render_samples", "scores_line", "write_samples"]

SAMPLES = "samples.json"
BEFORE = "before"
COLUMN = 30  # the narrowest column that a text is readable in
INDENT = 2


def write_samples(folder: Path | str) -> Path:
    """Write `samples.html` into a run folder from its `samples.json`; its path.

    The page loads nothing, as `report.html` does. Every response carries data attributes (data-model, data-seed) and
    every number of it its name and value (data-metric, data-value), unrounded.

    Raises:
        DataError: the folder holds no whole `samples.json`.
    """
    folder = Path(folder)
    path = folder / SAMPLES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(f"{folder} holds no {SAMPLES}; `unipref sample RUN --page` writes it") from err
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); write it again with `unipref sample RUN --page`") from err
    page = folder / SAMPLES_PAGE
    write_text(page, environment().get_template("samples.html.j2").render(**_view(folder, found)))
    return page


def _view(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    names = [model["name"] for model in found["models"]]
    summary = found["summary"]
    data = folder / "data.json"
    return {
        "name": f"{found['name']}, samples",
        "version": found["version"],
        "created": found["created"],
        "found": found,
        "how": how_drawn(found),
        "colour": {name: i % 8 for i, name in enumerate(names)},
        "names": {name: _long(name) for name in names},
        "metrics": {key: metric_of(key) for key in summary["metrics"]},
        "compared": list(dict.fromkeys(entry["metric"] for entry in summary["differences"])),
        "cards": list(_cards(found)),
        "n_prompts": _n_prompts(found),
        "n_seeds": len(found["settings"]["seeds"]),
        "has_report": (folder / "report.html").exists(),
        "data": data_view(json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}),
        "recipe": _text(folder / "recipe.yaml"),
        "citations": _text(folder / "citations.bib"),
        "numbers": numbers,
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _cards(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was answered to one prompt with one seed, the models in their order."""
    together: dict[tuple[int, int], dict[str, Any]] = {}
    n_models = len(found["models"])
    n_seeds = len(found["settings"]["seeds"])
    for i, row in enumerate(found["rows"]):
        key = (i // (n_models * n_seeds), row["seed"])
        card = {"id": row["id"], "prompt": row["prompt"], "seed": row["seed"], "rows": []}
        together.setdefault(key, card)["rows"].append(row)
    yield from together.values()


def _n_prompts(found: Mapping[str, Any]) -> int:
    return len(found["rows"]) // (len(found["models"]) * len(found["settings"]["seeds"]))


# ---- words ----


def label(name: str) -> str:
    """What a narrow place calls a model: the one before alignment has no name of its own."""
    return BEFORE if name == REFERENCE else name


def _long(name: str) -> str:
    return "before alignment" if name == REFERENCE else name


def how_drawn(found: Mapping[str, Any]) -> str:
    """How many prompts, models and seeds, and the settings, in a sentence."""
    settings, n_models = found["settings"], len(found["models"])
    n = _n_prompts(found)
    seeds = ", ".join(map(str, settings["seeds"]))
    many = "s" if len(settings["seeds"]) > 1 else ""
    warmth = f"temperature {settings['temperature']:g}" if settings["temperature"] else "the likeliest token each time"
    told = f"{n} prompt{'s' * (n != 1)}, {n_models} model{'s' * (n_models != 1)}; seed{many} {seeds}, {warmth}, "
    told += f"top-p {settings['top_p']:g}, at most {settings['max_new_tokens']} tokens"
    return told + ("; the same prompts and random numbers for every model." if n_models > 1 else ".")


def metric_of(key: str) -> Metric:
    """The metric of a number in a row or its mean."""
    known = {
        "log_ratio": Metric(key, "log-ratio to the reference, nats", "nats", 0, "log-ratio"),
        "n_tokens": Metric(key, "tokens", "tokens", 0, "tokens"),
        "stopped": Metric(key, "ended by itself", "share", 0, "ended %"),
    }
    name = key.removeprefix("aux.")
    return known.get(key) or Metric(key, "combined reward" if name == "reward" else name, "score", 0, name)


def numbers(row: Mapping[str, Any]) -> list[tuple[str, float | None, str]]:
    """(name, value, as shown) of every score of a response, the log-ratio last."""
    found = [(metric_of(f"aux.{name}"), value) for name, value in row.get("aux", {}).items()]
    if row.get("log_ratio") is not None and row["role"] != "before":  # before alignment it is 0 by definition
        found.append((metric_of("log_ratio"), row["log_ratio"]))
    return [(metric.short, value, metric.show(value, signed=metric.key == "log_ratio")) for metric, value in found]


def scores_line(row: Mapping[str, Any]) -> str:
    """The scores of a response and its length, in one line."""
    told = [f"{name} {shown}" for name, _, shown in numbers(row)]
    many = "" if row["n_tokens"] == 1 else "s"
    return " · ".join([*told, f"{row['n_tokens']} token{many}{'' if row['stopped'] else ', cut off'}"])


# ---- the terminal ----


def render_samples(found: Mapping[str, Any], *, texts: bool = True) -> RenderableType:
    """What was drawn, for a `rich` console: prompts and responses, side by side where that fits, and means at the end.

    In a pipe nothing is wrapped and everything stands below one another.

    Args:
        texts: show the responses; False where they were shown while they came.
    """
    return _Terminal(found, texts)


class _Terminal:
    def __init__(self, found: Mapping[str, Any], texts: bool) -> None:
        self.found, self.texts = found, texts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found = self.found
        wide = console.is_terminal and 1 < len(found["models"]) <= options.max_width // (COLUMN + INDENT)
        if self.texts:
            cards = list(_cards(found))
            for i, card in enumerate(cards, 1):
                seed = f", seed {card['seed']}" if len(found["settings"]["seeds"]) > 1 else ""
                yield heading(f"{i} of {len(cards)}: {card['id']}{seed}", console)
                yield Text(printable(card["prompt"]), style="dim")
                yield Text()
                yield from self._columns(card) if wide else self._stacked(card, console)
        if len(found["rows"]) > len(found["models"]):  # of one prompt they say what stands above
            yield heading("means", console)
            yield from self._means(options.max_width)
        yield Text()
        yield Text(how_drawn(found))
        for note in found["notes"]:
            yield Text(note)

    def _columns(self, card: Mapping[str, Any]) -> Iterator[RenderableType]:
        table = Table(box=None, pad_edge=False, padding=(0, INDENT, 0, 0), expand=True)
        for row in card["rows"]:
            table.add_column(Text(label(row["model"]), style="bold"), ratio=1, overflow="fold")
        table.add_row(*(Text(_said(row)) for row in card["rows"]))
        table.add_row(*(Text(scores_line(row), style="cyan") for row in card["rows"]))
        yield table
        yield Text()

    def _stacked(self, card: Mapping[str, Any], console: Console) -> Iterator[RenderableType]:
        for row in card["rows"]:
            yield Text(f"{label(row['model'])}:", style="bold")
            for text in (Text(_said(row)), Text(f"[{scores_line(row)}]", style="cyan")):
                if console.is_terminal:
                    yield Padding(text, (0, 0, 0, INDENT))
                else:  # a line of a response stays a line
                    yield Text(textwrap.indent(text.plain, " " * INDENT))
            yield Text()

    def _means(self, room: int) -> Iterator[RenderableType]:
        summary = self.found["summary"]
        metrics = [metric_of(key) for key in summary["metrics"]]
        means = {label(name): {m.key: entry[m.key] for m in metrics} for name, entry in summary["models"].items()}
        yield from _table("mean [95 % interval over prompts]", metrics, means, room)
        against: dict[str, dict[str, Any]] = {}
        for entry in summary["differences"]:
            against.setdefault(f"{label(entry['a'])} {MINUS} {label(entry['b'])}", {})[entry["metric"]] = entry
        if against:
            yield Text()
            compared = [metric for metric in metrics if metric.key in next(iter(against.values()))]
            yield from _table("difference on the same prompts", compared, against, room, signed=True)


def heading(words: str, console: Console) -> RenderableType:
    """A line between parts: a rule in a terminal, plain words in a pipe."""
    text = Text(printable(words))
    return Rule(text, align="left", style="dim") if console.is_terminal else Text(f"== {text.plain}")


def _said(row: Mapping[str, Any]) -> str:
    return printable(row["text"]).strip("\n") or "(nothing)"


def _table(
    title: str,
    metrics: Sequence[Metric],
    entries: Mapping[str, Mapping[str, Any]],
    room: int,
    *,
    signed: bool = False,
) -> Iterator[RenderableType]:
    """The metrics of all entries: entries as columns where they fit, else below one another."""
    most = max(entry["n"] for found in entries.values() for entry in found.values())
    cells = {name: [_cell(metric, entry, most, signed) for metric in metrics] for name, entry in entries.items()}
    heads = [metric.short for metric in metrics]
    left = max(map(len, heads))
    yield Text(f"{title}, n = {most} unless said", style="bold")
    if left + INDENT + sum(max(map(len, [name, *column])) + INDENT for name, column in cells.items()) <= room:
        table = Table(box=None, pad_edge=False, padding=(0, INDENT, 0, 0))
        for head in ("", *cells):
            table.add_column(Text(head, style="bold"), no_wrap=True)
        for i, head in enumerate(heads):
            table.add_row(*map(Text, [head, *(column[i] for column in cells.values())]))
        yield table
        return
    for name, column in cells.items():
        yield Text(f"{name}:")
        for head, cell in zip(heads, column, strict=True):
            yield Text(f"  {head:<{left}}  {cell}")


def _cell(metric: Metric, entry: Mapping[str, Any], most: int, signed: bool) -> str:
    value, n = entry[metric.key]["value"], entry[metric.key]["n"]
    if value[0] is None:
        return NOTHING
    told = metric.bare(value[0], signed=signed) if value[1] is None else bracket(metric, value, signed=signed)
    return told if n == most else f"{told} (n = {n})"
