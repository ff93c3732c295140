"""Names, units and plain words for the numbers of a summary. The page and the terminal table share them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MINUS", "NOTHING", "Metric", "Verdict", "columns", "found", "judge", "metric_of", "verdicts"]

Triple = Sequence[float | None]
MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of `summary.json`.

    Attributes:
        key: its path in a run's entry, dots between ("aux.reading_level.generations").
        label: what a table calls it.
        unit: "share", "score", "nats", "tokens" or "seconds"; numbers of one unit share an axis.
        better: 1 where more is better, -1 where less is, 0 where neither is.
    """

    key: str
    label: str
    unit: str
    better: int = 0

    def show(self, value: float | None, *, signed: bool = False) -> str:
        """`value` as a reader sees it; an en dash where there is none.

        Example:
            >>> Metric("accuracy", "accuracy", "share").show(0.6128)
            '61.3 %'
            >>> Metric("kl", "KL", "nats").show(3.14159, signed=True)
            '+3.14'
        """
        if value is None:
            return NOTHING
        sign = "+" if signed else "-"
        if self.unit == "share":
            text = f"{100 * value:{sign}.1f}" + (" points" if signed else " %")
        elif self.unit == "score":
            text = f"{value:{sign}.3f}"
        elif self.unit == "nats":
            text = f"{value:{sign}.2f}"
        else:
            text = f"{value:{sign},.1f}"
        return text.replace("-", MINUS)

    def show_interval(self, triple: Triple, *, signed: bool = False) -> str:
        """The interval of `triple` as "low to high"; says so where there is none."""
        if triple[1] is None or triple[2] is None:
            return "no interval"
        bare = [self.show(bound, signed=signed).removesuffix(" points").removesuffix(" %") for bound in triple[1:]]
        return f"{bare[0]} to {bare[1]}"


def _direction(designer: Mapping[str, Any], name: str) -> int:
    return -1 if designer[name].get("weight", 1.0) < 0 else 1


def columns(summary: Mapping[str, Any]) -> list[Metric]:
    """The columns of the main table, in order."""
    designer = summary["designer"]
    return [
        Metric("accuracy", "reward accuracy", "share", 1),
        Metric("ranking_accuracy", "ranking accuracy", "share", 1),
        *(Metric(f"aux.{name}.generations", name, "score", _direction(designer, name)) for name in designer),
        Metric("kl", "KL to reference", "nats"),
        Metric("length", "length", "tokens"),
        Metric("drift.chosen", "drift, chosen", "nats"),
        Metric("drift.rejected", "drift, rejected", "nats"),
        Metric("stopped", "stopped", "share"),
        Metric("seconds", "seconds", "seconds"),
    ]


def metric_of(summary: Mapping[str, Any], key: str) -> Metric:
    """The metric of a difference, named so that it can stand alone."""
    parts = key.split(".")
    if parts[0] == "aux":
        name, where = ".".join(parts[1:-1]), parts[-1]
        better = _direction(summary["designer"], name)
        if where == "generations":
            return Metric(key, f"{name} on generations", "score", better)
        return Metric(key, f"{name}, concordance on held-out", "share", better)
    known = {metric.key: metric for metric in columns(summary)}
    return known[key]


def found(entry: Mapping[str, Any], key: str) -> Triple | None:
    """[value, low, high] of a run's metric; None where the entry does not have it. A bare number has no interval."""
    value: Any = entry
    parts = key.split(".")
    if parts[0] == "aux":  # the name of an objective may itself hold a dot
        parts = ["aux", ".".join(parts[1:-1]), parts[-1]]
    for part in parts:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value if isinstance(value, list | tuple) else [value, None, None]


def judge(metric: Metric, triple: Triple) -> str:
    """"better", "worse", "higher", "lower", "unclear" (the interval holds 0) or "unknown" (there is no interval)."""
    low, high = triple[1], triple[2]
    if low is None or high is None:
        return "unknown"
    if low <= 0 <= high:
        return "unclear"
    sign = 1 if low > 0 else -1
    if metric.better == 0:
        return "higher" if sign > 0 else "lower"
    return "better" if sign == metric.better else "worse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison in words.

    Attributes:
        kind: "gain", "loss", "mixed", "none" or "unknown", over the designer objectives on generations.
        headline: one sentence without numbers.
        detail: one sentence with them.
    """

    a: str
    b: str
    kind: str
    headline: str
    detail: str


def verdicts(summary: Mapping[str, Any]) -> list[Verdict]:
    """A verdict per comparison; first UPO against its control, which is UPO with lambda 0, then UPO against others."""
    groups: dict[tuple[str, str], dict[str, Triple]] = {}
    for entry in summary["differences"]:
        groups.setdefault((entry["a"], entry["b"]), {})[entry["metric"]] = entry["value"]
    result = [_verdict(summary, a, b, values) for (a, b), values in groups.items()]

    def of_upo(run: str) -> bool:
        return summary["runs"][run].get("method") == "upo"

    return sorted(result, key=lambda verdict: (not of_upo(verdict.a), not of_upo(verdict.b)))


def _verdict(summary: Mapping[str, Any], a: str, b: str, values: Mapping[str, Triple]) -> Verdict:
    judged: dict[str, list[str]] = {"better": [], "worse": [], "unclear": [], "unknown": []}
    told = []
    for name in summary["designer"]:
        key = f"aux.{name}.generations"
        metric = metric_of(summary, key)
        word = judge(metric, values[key])
        judged[word].append(name)
        told.append(f"{name} {_told(metric, values[key], word)}")
    accuracy = metric_of(summary, "accuracy")
    at_cost = judge(accuracy, values["accuracy"])
    cost = {
        "better": "and held-out reward accuracy is better too",
        "worse": "at a cost in held-out reward accuracy",
        "unclear": "with no clear change in held-out reward accuracy",
        "unknown": "and nothing can be said of held-out reward accuracy",
    }[at_cost]
    if judged["better"] and judged["worse"]:
        both = f"gains on {_list(judged['better'])} and loses on {_list(judged['worse'])}"
        kind, main = "mixed", f"{a} {both} against {b}"
    elif judged["better"]:
        kind, main = "gain", f"{a} gains on {_list(judged['better'])} over {b}"
    elif judged["worse"]:
        kind, main = "loss", f"{a} loses on {_list(judged['worse'])} against {b}"
    elif judged["unclear"]:
        kind, main = "none", f"{a} shows no clear gain over {b} on any designer objective"
    elif summary["designer"]:
        kind, main = "unknown", f"Too little was measured to tell {a} from {b} on the designer objectives"
    else:
        kind = {"better": "gain", "worse": "loss", "unclear": "none", "unknown": "unknown"}[at_cost]
        words = {"gain": "tells held-out pairs apart better than", "loss": "tells held-out pairs apart worse than",
                 "none": "tells held-out pairs apart neither clearly better nor clearly worse than",
                 "unknown": "cannot be compared with"}  # fmt: skip
        main, cost = f"{a} {words[kind]} {b}", ""
    headline = f"{main}{',' if cost else ''} {cost}".strip() + "."
    told.append(f"held-out reward accuracy {_told(accuracy, values['accuracy'], at_cost)}")
    told.append(f"KL to the reference {_told(metric_of(summary, 'kl'), values['kl'], '')}")
    return Verdict(a, b, kind, headline, f"{a} minus {b}, with 95 % intervals: " + "; ".join(told) + ".")


def _told(metric: Metric, triple: Triple, word: str) -> str:
    tail = {"unclear": ", no clear difference", "better": ", better", "worse": ", worse"}.get(word, "")
    return f"{metric.show(triple[0], signed=True)} ({metric.show_interval(triple, signed=True)}{tail})"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
