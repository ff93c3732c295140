"""Names, units and plain words for the numbers of a summary. The page and the terminal table share them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "MINUS", "NOTHING", "Metric", "Verdict", "bracket", "columns", "concordance", "found", "judge", "listed",
    "metric_of", "nothing_compared", "tick", "verdicts",
]  # fmt: skip

Triple = Sequence[float | None]
MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of `summary.json`.

    Attributes:
        key: its path in a run's entry, dots between ("aux.reading_level.generations").
        label: what a table calls it.
        unit: "share", "score", "nats", "tokens", "seconds" or "count"; numbers of one unit share an axis.
        better: 1 where more is better, -1 where less is, 0 where neither is.
        short: what a narrow table calls it, with its unit.
    """

    key: str
    label: str
    unit: str
    better: int = 0
    short: str = ""

    def bare(self, value: float, *, signed: bool = False) -> str:
        """`show` without a unit.

        Example:
            >>> Metric("accuracy", "accuracy", "share").bare(0.6128)
            '61.3'
        """
        return self.show(value, signed=signed).removesuffix(" points").removesuffix(" %")

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
        elif self.unit == "count":
            text = f"{value:{sign},.0f}"
        else:
            text = f"{value:{sign},.1f}"
        return text.replace("-", MINUS)

    def show_interval(self, triple: Triple, *, signed: bool = False) -> str:
        """The interval of `triple` as "low to high"; says so where there is none."""
        if triple[1] is None or triple[2] is None:
            return "no interval"
        return f"{self.bare(triple[1], signed=signed)} to {self.bare(triple[2], signed=signed)}"


def bracket(metric: Metric, triple: Triple, *, signed: bool = False) -> str:
    """`triple` as "value [low, high]" without a unit.

    Example:
        >>> bracket(Metric("accuracy", "accuracy", "share"), [0.531, 0.502, 0.56])
        '53.1 [50.2, 56.0]'
    """
    if triple[0] is None:
        return NOTHING
    value, low, high = (None if number is None else metric.bare(number, signed=signed) for number in triple)
    return f"{value} [{f'{low}, {high}' if low and high else 'no interval'}]"


PER_TOKEN = Metric("ranking_accuracy_per_token", "ranking per token", "share", 1, "per token %")


def _direction(designer: Mapping[str, Any], name: str) -> int:
    return -1 if designer[name].get("weight", 1.0) < 0 else 1


def columns(summary: Mapping[str, Any]) -> list[Metric]:
    """The columns of the main table, in order."""
    designer = summary["designer"]
    return [
        Metric("accuracy", "reward accuracy", "share", 1, "accuracy %"),
        Metric("ranking_accuracy", "ranking accuracy", "share", 1, "ranking %"),
        *(Metric(f"aux.{name}.generations", name, "score", _direction(designer, name), name) for name in designer),
        Metric("kl", "KL to reference, nats", "nats", 0, "KL nats"),
        Metric("length", "length, tokens", "tokens", 0, "length tokens"),
        Metric("drift.chosen", "drift of chosen, nats", "nats", 0, "chosen nats"),
        Metric("drift.rejected", "drift of rejected, nats", "nats", 0, "rejected nats"),
        Metric("stopped", "ended by itself", "share", 0, "ended %"),
        Metric("seconds", "training, seconds", "seconds", 0, "seconds"),
    ]


def concordance(summary: Mapping[str, Any], name: str) -> Metric:
    """How often a run prefers the held-out answer that scores higher on the objective `name`."""
    better = _direction(summary["designer"], name)
    return Metric(f"aux.{name}.heldout", f"{name}, concordance on held-out", "share", better, f"{name} agree %")


def metric_of(summary: Mapping[str, Any], key: str) -> Metric:
    """The metric of a difference, named so that it can stand alone."""
    parts = key.split(".")
    if parts[0] == "aux":
        name, where = ".".join(parts[1:-1]), parts[-1]
        if where == "generations":
            return Metric(key, f"{name} on generations", "score", _direction(summary["designer"], name), name)
        return concordance(summary, name)
    known = {metric.key: metric for metric in (*columns(summary), PER_TOKEN)}
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
    """One word: better, worse, higher, lower, unclear (the interval holds 0) or unknown (there is no interval)."""
    low, high = triple[1], triple[2]
    if low is None or high is None:
        return "unknown"
    if low <= 0 <= high:
        return "unclear"
    sign = 1 if low > 0 else -1
    if metric.better == 0:
        return "higher" if sign > 0 else "lower"
    return "better" if sign == metric.better else "worse"


def tick(metric: Metric, value: float) -> str:
    """`value` beside a mark of an axis."""
    text = f"{100 * value:.4g} %" if metric.unit == "share" else f"{value:.4g}"
    return text.replace("-", MINUS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison in words.

    Attributes:
        kind: "gain", "loss", "mixed", "none" or "unknown", over the designer objectives on generations.
        headline: what was gained, or that nothing is shown, and what became of accuracy; without numbers.
        detail: gains and costs with their intervals.
        against_control: whether b is the lambda = 0 control of a UPO run.
    """

    a: str
    b: str
    kind: str
    headline: str
    detail: str
    against_control: bool


def verdicts(summary: Mapping[str, Any]) -> list[Verdict]:
    """A verdict per comparison; first UPO against its control, which is UPO with lambda 0, then UPO against others."""
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in summary["differences"]:
        groups.setdefault((entry["a"], entry["b"]), {})[entry["metric"]] = entry
    result = [_verdict(summary, a, b, entries) for (a, b), entries in groups.items()]

    def of_upo(run: str) -> bool:
        return summary["runs"][run].get("method") == "upo"

    return sorted(result, key=lambda v: (not v.against_control, not of_upo(v.a), not of_upo(v.b)))


def nothing_compared(summary: Mapping[str, Any]) -> str:
    """What stands in the verdict's place where the recipe names no controls."""
    n = len(summary["runs"])
    runs = f"{n} run{'s' * (n > 1)} measured"
    return f"{runs}; nothing is compared, so nothing is shown: name a control under `controls` in the recipe."


def _is_control(run: Mapping[str, Any]) -> bool:
    return run.get("method") == "upo" and run.get("options", {}).get("lam") == 0


def _verdict(summary: Mapping[str, Any], a: str, b: str, entries: Mapping[str, Mapping[str, Any]]) -> Verdict:
    runs, designer = summary["runs"], summary["designer"]
    controlled = runs[a].get("method") == "upo" and not _is_control(runs[a]) and _is_control(runs[b])
    other = f"its \N{GREEK SMALL LETTER LAMDA} = 0 control {b}" if controlled else b
    words = {key: judge(metric_of(summary, key), entry["value"]) for key, entry in entries.items()}
    goal = "designer objective" + (" or judge" if any(facts.get("judge") for facts in designer.values()) else "")
    judged: dict[str, list[str]] = {"better": [], "worse": [], "unclear": [], "unknown": []}
    for name in designer:
        judged[words[f"aux.{name}.generations"]].append(name)
    cost = {
        "better": "and held-out reward accuracy is better too",
        "worse": "at a cost in held-out reward accuracy",
        "unclear": "with no clear change in held-out reward accuracy",
        "unknown": "and nothing can be said of held-out reward accuracy",
    }[words["accuracy"]]
    if judged["better"] and judged["worse"]:
        both = f"gains on {listed(judged['better'])} and loses on {listed(judged['worse'])}"
        kind, main = "mixed", f"{a} {both} against {other}"
    elif judged["better"]:
        kind, main = "gain", f"{a} gains on {listed(judged['better'])} over {other}"
    elif judged["worse"]:
        kind, main = "loss", f"{a} loses on {listed(judged['worse'])} against {other}"
    elif judged["unclear"]:
        kind, main = "none", f"{a} shows no clear gain over {other} on any {goal}"
    elif designer:
        kind, main = "unknown", f"Too little was measured to tell {a} from {other} on any {goal}"
    else:
        kind = {"better": "gain", "worse": "loss", "unclear": "none", "unknown": "unknown"}[words["accuracy"]]
        verb = {"gain": "tells held-out pairs apart better than", "loss": "tells held-out pairs apart worse than",
                "none": "tells held-out pairs apart neither clearly better nor clearly worse than",
                "unknown": "cannot be compared with"}  # fmt: skip
        main, cost = f"{a} {verb[kind]} {other}", ""
    open_ = [*judged["unclear"], *judged["unknown"]]
    if kind in ("gain", "loss", "mixed") and open_:
        main += f", nothing is shown on {listed(open_)}"
    faulty = [run for run in (a, b) if any(alarm["level"] == "error" for alarm in runs[run].get("alarms", ()))]
    warning = f" Do not build on this: there is an error alarm for {listed(faulty)}." if faulty else ""
    headline = f"{main}{',' if cost else ''} {cost}".strip() + "." + warning

    def told(key: str) -> str:
        return _told(metric_of(summary, key), entries[key], words[key], _seeds(runs[a], runs[b], key, entries[key]))

    def told_of_score(key: str) -> str:
        n, of = entries[key].get("n"), runs[a].get("n", {}).get("generations")
        partly = of and words[key] != "unknown" and n < of
        return told(key) + (f" (scores on {n} of {of} answers)" if partly else "")

    gains = [told_of_score(f"aux.{name}.generations") for name in designer]
    costs = [told(key) for key in ("accuracy", "kl", "length") if key in entries]
    parts = [f"{a} minus {b} [95 % interval]."]
    if gains:
        parts.append(f"Objectives on generations: {'; '.join(gains)}.")
    parts += _below_the_start(summary, a, judged["better"])
    parts.append(f"{'What it costs' if gains else 'In numbers'}: {'; '.join(costs)}.")
    if len(runs[a].get("seeds", ())) == 1:
        parts.append("One training seed: the luck of training is not in these intervals.")
    return Verdict(a, b, kind, headline, " ".join(parts), controlled)


def _below_the_start(summary: Mapping[str, Any], run: str, names: Sequence[str]) -> list[str]:
    """A control may have lost what `run` gains over it: where `run` is still worse than the model before alignment."""
    told = []
    for name in names:
        metric = metric_of(summary, f"aux.{name}.generations")
        now, before = (found(entry, metric.key) for entry in (summary["runs"][run], summary.get("reference") or {}))
        if now and before and None not in (now[0], before[0]) and metric.better * (now[0] - before[0]) < 0:
            told.append(f"{name} {metric.bare(now[0])} against {metric.bare(before[0])}")
    return [f"Still worse than before alignment: {'; '.join(told)}."] if told else []


def _told(metric: Metric, entry: Mapping[str, Any], word: str, seeds: str) -> str:
    names = {"accuracy": "reward accuracy", "kl": "KL to the reference", "length": "length"}
    name = names.get(metric.key, metric.short)
    unit = {"share": " points", "nats": " nats", "tokens": " tokens"}.get(metric.unit, "")
    if entry["value"][0] is None:
        return f"{name} not measured"
    value = metric.bare(entry["value"][0], signed=True)
    if word == "unknown":
        return f"{name} {value}{unit}, too few to say" + (f" (n = {entry['n']})" if "n" in entry else "")
    number = bracket(metric, entry["value"], signed=True)
    return f"{name} {number}{unit}, {word}{seeds}"


def _seeds(a: Mapping[str, Any], b: Mapping[str, Any], key: str, entry: Mapping[str, Any]) -> str:
    """In how many seeds the difference has the sign that it has over all; empty for one seed or an unkept metric."""
    signs = []
    for seed in a.get("by_seed", {}).keys() & b.get("by_seed", {}).keys():
        values = []
        for run in (a, b):
            value = run["by_seed"][seed]
            for part in key.removesuffix(".generations").split(".", 1):
                value = value.get(part) if isinstance(value, Mapping) else None
            values.append(value)
        if None not in (*values, entry["value"][0]):  # of few answers, the same prompts may have no score in both
            signs.append((values[0] - values[1]) * entry["value"][0] > 0)
    return f"; same sign in {sum(signs)} of {len(signs)} seeds" if len(signs) > 1 else ""


def listed(names: Sequence[str]) -> str:
    """The names as a sentence has them: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
