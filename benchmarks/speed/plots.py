"""The plots of docs/speed.md as SVG: bars with spread, memory in two parts, curves on logarithmic axes, shares."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["bars", "curves", "memory_bars", "nothing", "share_bars"]

Found = Mapping[str, Any]

WIDTH, NAME, ROW, TITLE = 780, 280, 21, 34
STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; --ink: #23262b; --soft: #62676f;
  --grid: #dddad2; --page: #fffefb; --c0: #20639b; --c1: #c2571a; --c2: #2f7d4f; --c3: #8a4f9e; --c4: #a8851a;
  --c5: #b03a63; --c6: #3d8f97; --c7: #6b6f76; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e4df; --soft: #a2a7b0; --grid: #363a42; --page: #1e2126;
  --c0: #6fb1e6; --c1: #f09a62; --c2: #79c99a; --c3: #c795da; --c4: #dcbd5c; --c5: #ee8aae; --c6: #74ccd4;
  --c7: #a5a9b1; } }
.page { fill: var(--page); } text { fill: var(--ink); } .soft { fill: var(--soft); } .title { font-weight: 600; }
.grid { stroke: var(--grid); } .whisker { stroke: var(--ink); stroke-width: 1.5; } .faint { opacity: .35; }
.line { fill: none; stroke-width: 2; }
""".strip()
COLOURS = {"unipref": 0, "trl": 1, "loop": 7, "flash_pref": 3}
NAMES = {"unipref": "unipref", "trl": "TRL 1.16", "loop": "plain loop", "flash_pref": "flash-pref"}


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
    body = "\n".join(parts)
    return (
        f'{head}aria-label="{escape(label, quote=True)}">\n<style>{STYLE}</style>\n'
        f'<rect class="page" width="{WIDTH}" height="{height:g}"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    told = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{told} text-anchor="{anchor}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, colour: int, *, faint: bool = False) -> str:
    kind = ' class="faint"' if faint else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="13" fill="var(--c{colour})"{kind}/>'


def nothing(label: str) -> str:
    """What stands in the place of a plot that this run has no numbers for."""
    return _svg(40, label, [_text(8, 25, "Not measured in this run.", kind="soft")])


def bars(panels: Sequence[tuple[str, Sequence[tuple[str, str, Found]]]], label: str) -> str:
    """Medians as bars, the smallest and the largest repeat as a line through their ends, one panel above another.

    Args:
        panels: (title, rows of (name, engine, {"median", "min", "max"})).
    """
    parts, y, room = [], 8.0, WIDTH - NAME - 70
    for title, rows in panels:
        parts.append(_text(8, y + 18, title, kind="title"))
        y += TITLE - 6
        most = max(spread["max"] for _, _, spread in rows)
        for name, engine, spread in rows:
            at = {key: NAME + room * value / most for key, value in spread.items()}
            parts += [
                _text(NAME - 8, y + 11, name, anchor="end"),
                _box(NAME, y, at["median"] - NAME, COLOURS[engine]),
                f'<line class="whisker" x1="{at["min"]:.1f}" x2="{at["max"]:.1f}" y1="{y + 6.5:.1f}" '
                f'y2="{y + 6.5:.1f}"/>',
                _text(at["max"] + 6, y + 11, f"{spread['median']:.3g}"),
            ]
            y += ROW
        y += 6
    return _svg(y + 4, label, parts)


def memory_bars(panels: Sequence[tuple[str, Sequence[tuple[str, str, float, float]]]], label: str) -> str:
    """State, pale, and what comes on top of it, in MB: (title, rows of (name, engine, state, above))."""
    parts, y, room = [], 8.0, WIDTH - NAME - 150
    for title, rows in panels:
        parts.append(_text(8, y + 18, title, kind="title"))
        y += TITLE - 6
        most = max(state + max(above, 0) for _, _, state, above in rows)
        for name, engine, state, above in rows:
            first, second = room * state / most, room * max(above, 0) / most
            parts += [
                _text(NAME - 8, y + 11, name, anchor="end"),
                _box(NAME, y, first, COLOURS[engine], faint=True),
                _box(NAME + first, y, second, COLOURS[engine]),
                _text(NAME + first + second + 6, y + 11, f"{state:,.0f} + {above:,.0f} MB"),
            ]
            y += ROW
        y += 6
    return _svg(y + 4, label, parts)


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) from below the smallest of `values` to above the largest."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = [factor * 10.0**power for power in range(low - 1, high + 1) for factor in (1, 2, 5)]
    first = max(step for step in steps if step <= min(values))
    last = min((step for step in steps if step >= max(values)), default=steps[-1])
    return [step for step in steps if first <= step <= last]


def curves(panels: Sequence[tuple[str, str, Mapping[str, Sequence[tuple[float, float]]]]], label: str) -> str:
    """Curves on logarithmic axes, two panels a row: (title, axis, engine -> points)."""
    parts: list[str] = []
    wide, high, left = WIDTH / 2, 210, 46
    for n, engine in enumerate(("unipref", "trl")):
        parts += [_box(8 + 110 * n, 8, 16, COLOURS[engine]), _text(30 + 110 * n, 19, NAMES[engine])]
    for i, (title, axis, lines) in enumerate(panels):
        x0, y0 = (i % 2) * wide + left, 30 + (i // 2) * high
        points = [point for line in lines.values() for point in line]
        ticks = _ticks([y for _, y in points])
        low, top = math.log(ticks[0]), math.log(ticks[-1]) if len(ticks) > 1 else math.log(ticks[0] * 2)
        left_x, right_x = (math.log(of(x for x, _ in points)) for of in (min, max))

        def at(x: float, y: float, box: tuple[float, ...] = (x0, y0, left_x, right_x, low, top)) -> tuple[float, float]:
            bx, by, a, b, c, d = box
            return (
                bx + (wide - left - 30) * (math.log(x) - a) / max(b - a, 1e-9),
                by + high - 52 - (high - 82) * (math.log(y) - c) / max(d - c, 1e-9),
            )

        parts.append(_text(x0 - left + 8, y0 + 18, title, kind="title"))
        for tick in ticks:
            y = at(points[0][0], tick)[1]
            parts.append(
                f'<line class="grid" x1="{x0:.1f}" x2="{x0 + wide - left - 30:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(_text(x0 - 6, y + 4, f"{tick:g}", kind="soft", anchor="end"))
        for x in sorted({x for x, _ in points}):
            parts.append(_text(at(x, 1)[0], y0 + high - 36, f"{x:,g}", kind="soft", anchor="middle"))
        parts.append(_text(x0 + (wide - left - 30) / 2, y0 + high - 19, axis, kind="soft", anchor="middle"))
        for engine, line in lines.items():
            placed = [at(*point) for point in line]
            told = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            colour = COLOURS[engine]
            parts.append(f'<polyline class="line" stroke="var(--c{colour})" points="{told}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="var(--c{colour})"/>' for x, y in placed]
    return _svg(30 + high * math.ceil(len(panels) / 2), label, parts)


def share_bars(rows: Sequence[tuple[str, Mapping[str, float]]], label: str) -> str:
    """What the time of each row consists of, as parts of one bar: (name, kind -> share)."""
    kinds = list(rows[0][1])
    parts, room = [], WIDTH - NAME - 20
    for i, kind in enumerate(kinds):
        x, y = 8 + (i % 4) * 180, 8 + (i // 4) * 20
        parts += [_box(x, y, 16, i), _text(x + 22, y + 11, kind)]
    y = 16.0 + 20 * math.ceil(len(kinds) / 4)
    for name, shares in rows:
        parts.append(_text(NAME - 8, y + 11, name, anchor="end"))
        x = float(NAME)
        for i, kind in enumerate(kinds):
            parts.append(_box(x, y, room * shares[kind], i))
            x += room * shares[kind]
        y += ROW
    return _svg(y + 4, label, parts)
