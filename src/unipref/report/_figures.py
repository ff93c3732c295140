"""Where things stand on an axis: plain numbers that the templates draw."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Axis", "Line", "Panel", "Point", "Scatter", "axis", "lines", "panel", "scatter"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from `low` to `high` with ticks at round numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Per cent of the way from `low` to `high`, rounded to 0.01, held within 0 and 100."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 2)


def axis(values: Iterable[float | None], *, around_zero: bool = False, about: int = 5) -> Axis:
    """An axis that holds all `values` with a little room; symmetric where it is `around_zero`.

    Example:
        >>> axis([0.52, 0.61]).ticks
        (0.52, 0.54, 0.56, 0.58, 0.6)
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if around_zero:
        high = max(abs(low), abs(high))
        low = -high
    room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    low, high = low - room, high + room
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return Axis(low, high, tuple(round(i * step, digits) + 0.0 for i in range(first, last + 1)))


@dataclass(frozen=True, slots=True)
class Line:
    """One run's curve: points as SVG takes them, and its last value."""

    run: str
    seed: str
    points: str
    n: int
    last: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric over optimiser steps, drawn in a box of WIDTH x HEIGHT with a margin for the numbers."""

    metric: str
    title: str
    lines: list[Line]
    x: Axis
    y: Axis


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 190, 46, 24, 8


def panel(metric: str, title: str, curves: Sequence[Any]) -> Panel | None:
    """The panel of `metric`, or None where no run logged it twice.

    Args:
        curves: objects with run, seed and rows (dictionaries with "step" and metrics; None is a gap).
    """
    series = []
    for curve in curves:
        points = [(row["step"], row[metric]) for row in curve.rows if _plotted(row, metric)]
        if len(points) > 1:
            series.append((curve, points))
    if not series:
        return None
    x = Axis(min(p[0] for _, ps in series for p in ps), max(p[0] for _, ps in series for p in ps), ())
    steps = (t for t in axis([x.low, x.high]).ticks if x.low <= t <= x.high and t == int(t))
    x = Axis(x.low, max(x.high, x.low + 1), tuple(steps))
    y = axis([p[1] for _, ps in series for p in ps])
    lines = [
        Line(curve.run, curve.seed, " ".join(_point(x, y, *p) for p in points), len(points), points[-1][1])
        for curve, points in series
    ]
    return Panel(metric, title, lines, x, y)


def lines(
    metric: str, title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], ticks: Sequence[float]
) -> Panel | None:
    """A panel of (name, points), with marks at `ticks` of the horizontal axis; None where no line has two points."""
    series = [(name, points) for name, points in series if len(points) > 1]
    if not series:
        return None
    room = 0.06 * (max(ticks) - min(ticks))
    x = Axis(min(ticks) - room, max(ticks) + room, tuple(ticks))
    y = axis([point[1] for _, points in series for point in points])
    drawn = [
        Line(name, "", " ".join(_point(x, y, *point) for point in points), len(points), points[-1][1])
        for name, points in series
    ]
    return Panel(metric, title, drawn, x, y)


@dataclass(frozen=True, slots=True)
class Point:
    """A dot with a name beside it, in a box of 100 by 100."""

    run: str
    x: float
    y: float
    label_y: float
    at: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Two numbers of each run against each other."""

    points: list[Point]
    x: Axis
    y: Axis


LABEL, LETTER = 4.0, 1.25  # height of a name and width of a letter, per cent of the box


def scatter(
    values: Sequence[tuple[str, float | None, float | None]], axes: tuple[Axis, Axis] | None = None
) -> Scatter | None:
    """Dots of (name, x, y), names moved up or down so that they do not lie on each other; None without a dot.

    Args:
        axes: of x and of y; default: x holds the dots and 0, y the dots.
    """
    known = [(name, x, y) for name, x, y in values if x is not None and y is not None]
    if not known:
        return None
    x_axis, y_axis = axes or (axis([0.0, *(x for _, x, _ in known)]), axis([y for _, _, y in known]))
    points: list[Point] = []
    for name, x, y in sorted(known, key=lambda value: value[2]):
        left, top = x_axis.at(x), round(100 - y_axis.at(y), 2)
        others = [p for p in points if p.x < left + LETTER * (len(name) + 2) and left < p.x + LETTER * (len(p.run) + 2)]
        shifts = (sign * LABEL * i / 2 for i in range(2 * len(known) + 1) for sign in (1, -1))
        free = (top + shift for shift in shifts if all(abs(top + shift - p.label_y) >= LABEL for p in others))
        points.append(Point(name, left, top, round(next(at for at in free if 0 <= at <= 100), 2), (x, y)))
    return Scatter(points, x_axis, y_axis)


def _plotted(row: Mapping[str, Any], metric: str) -> bool:
    return row.get(metric) is not None and math.isfinite(row[metric])


def _point(x: Axis, y: Axis, step: float, value: float) -> str:
    return f"{x_at(x, step)},{y_at(y, value)}"


def plain(value: float) -> str:
    """`value` in four digits, short enough for the margin of a panel.

    Example:
        >>> plain(0.00015), plain(-1.25)
        ('1.5e\u22124', '\u22121.25')
    """
    text = f"{value:.4g}"
    if abs(value) < 1e-3 and value != 0:
        digits, power = f"{value:.3e}".split("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return text.replace("-", "\N{MINUS SIGN}")


def x_at(x: Axis, step: float) -> float:
    """Horizontal position in the box."""
    return round(LEFT + (WIDTH - LEFT - 8) * x.at(step) / 100, 1)


def y_at(y: Axis, value: float) -> float:
    """Vertical position in the box; larger values are higher up."""
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - y.at(value) / 100), 1)
