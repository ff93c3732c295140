"""Plain words for what `evaluation.json` says of preference models."""

from collections.abc import Mapping, Sequence
from typing import Any

from unipref.report._explained import plural
from unipref.report._words import Metric, listed

__all__ = ["RULES", "checks", "detail", "headline", "notes", "plural", "share"]

Entry = Mapping[str, Any]
ALPHA = 0.05
RULES = {"longer wins": "the longer response wins", "shorter wins": "the shorter response wins"}
SHARE = Metric("accuracy", "accuracy", "share", 1)


def share(triple: Sequence[float | None], *, signed: bool = False) -> str:
    """A share or a difference of shares with its interval, as a sentence has it.

    Example:
        >>> share([0.613, 0.58, 0.65])
        '61.3 % (58.0 to 65.0)'
    """
    if triple[0] is None:
        return "an unknown share"
    return f"{SHARE.show(triple[0], signed=signed)} ({SHARE.show_interval(triple, signed=signed)})"


def headline(told: Entry) -> str:
    """How often the main model is right, and whether that is more than a simple rule's share."""
    main = told["main"]
    accuracy = told["models"][main]["accuracy"]
    if accuracy[0] is None:
        return f"No held-out pair has a winner, so nobody can say how often {main} is right."
    n = told["pairs"]["with_winner"]
    text = f"{main} names the preferred response in {SHARE.show(accuracy[0])} of {plural(n, 'held-out pair')}"
    rules = [entry for entry in told["differences"] if entry["a"] == main and entry["b"] in told["baselines"]]
    if not rules:
        low, high = accuracy[1], accuracy[2]
        coin = low is not None and low <= 0.5 <= high
        return f"{text}{', which a coin may do as well' if coin else ''}."
    beaten = [entry["b"] for entry in rules if _above(entry)]
    if len(beaten) == len(rules):
        return f"{text}, more than {_all_of(beaten)}."
    other = [entry["b"] for entry in rules if not _above(entry)]
    return f"{text}, which is not shown to be more than {_all_of(other)}."


def detail(told: Entry) -> str:
    """The interval of that share, and the difference from the model that the others are held against."""
    main, b = told["main"], told["baseline"]
    accuracy = told["models"][main]["accuracy"]
    parts = [] if accuracy[0] is None else [f"95 % interval: {SHARE.show_interval(accuracy)}; a coin is right in 50 %."]
    for entry in told["differences"]:
        if (entry["a"], entry["b"], entry["metric"]) == (main, b, "accuracy"):
            parts.append(f"Against {b} on the same pairs: {share(entry['value'], signed=True)}, {_p(entry)}.")
    return " ".join(parts)


def checks(told: Entry, name: str) -> list[dict[str, Any]]:
    """What a model's numbers may be trusted for: name, passed (None: neither), word, triple and a sentence each."""
    model = told["models"][name]
    found = [_against(entry) for entry in told["differences"] if entry["a"] == name and entry["b"] in told["baselines"]]
    return [*found, _sure(model["calibration"]), _order(model["both_orders"]), *_length(model), *_unseen(model)]


def _against(entry: Entry) -> dict[str, Any]:
    rule = _rule(entry["b"])
    if entry["value"][0] is None:
        sentence = f"Nothing is known against {rule}: no pair has a winner."
    else:
        word = "More often right than" if _above(entry) else "Not shown to be more often right than"
        sentence = f"{word} {rule}: {share(entry['value'], signed=True)}, {_p(entry)}."
    unknown = entry["value"][1] is None
    return _check(f"against {entry['b']}", None if unknown else _above(entry), entry["value"], sentence)


def _sure(calibration: Entry) -> dict[str, Any]:
    mean, upper = calibration["ece_by_chance"]
    off = calibration["ece_p"] <= ALPHA
    text = (
        f"The calibration error is {SHARE.show(calibration['ece'])}; a calibrated model would get "
        f"{SHARE.show(mean)} on these pairs on average, and up to {SHARE.show(upper)} by chance."
    )
    temperature = calibration["temperature"]
    if temperature is None:
        text += " No scale makes its scores better than a coin's."
    elif off:
        way = "It claims too much" if temperature > 1 else "It claims too little"
        text += f" {way}: on these pairs its scores are best divided by {temperature:.2f}."
    start = (
        "It is not as sure as it should be."
        if off
        else "Nothing shows that it is surer or less sure than it should be."
    )
    return _check("calibration", not off, [calibration["ece"], None, None], f"{start} {text}")


def _order(orders: Entry | None) -> dict[str, Any]:
    if not orders or not orders["asked"]:
        sentence = "Nobody asked it in both orders, so whether a response's place decides is not known."
        return _check("order", None, [None] * 3, sentence)
    n = plural(orders["asked"], "pair")
    if orders["turned"] == 0 and orders["different"] == 0:
        sentence = f"Exchanging the sides changes nothing: P(a wins) + P(b wins) is 1 for {n}."
    else:
        sentence = (
            f"Asked with the sides exchanged, the verdict on {SHARE.show(orders['turned'])} of {n} follows the place; "
            f"P(a wins) + P(b wins) is off 1 by {orders['mean']:.3g} on average and {orders['largest']:.3g} at most."
        )
    return _check("order", orders["turned"] == 0, [orders["turned"], None, None], sentence)


def _length(model: Entry) -> list[dict[str, Any]]:
    length = model["length"]
    if not length or length["excess"][1] is None:
        return []
    excess = length["excess"]
    word = "more" if excess[1] > 0 else "less" if excess[2] < 0 else "neither clearly more nor clearly less"
    sentence = (
        f"It chooses the longer response {word} often than people do: "
        f"{SHARE.show(length['chooses_longer'][0])} against {SHARE.show(length['people_choose_longer'][0])}, "
        f"{share(excess, signed=True)}."
    )
    return [_check("length", excess[1] <= 0 <= excess[2], excess, sentence)]


def _unseen(model: Entry) -> list[dict[str, Any]]:
    fallback = model["fallback"]
    if fallback is None:
        return []
    if not fallback["reasons"]:
        return [_check("unseen", True, [0.0, None, None], "It knew every user and domain that it reads.")]
    parts = [
        f"{plural(each['pairs'], 'pair')} ({reason}), right in {share(each['accuracy'])}"
        for reason, each in fallback["reasons"].items()
    ]
    known = f"right in {share(fallback['known']['accuracy'])} of the {fallback['known']['pairs']:,} it knew all of"
    n = sum(each["pairs"] for each in fallback["reasons"].values())
    return [_check("unseen", None, [float(n), None, None], f"It fell back for {listed(parts)}; {known}.", "Note")]


def notes(told: Entry) -> list[str]:
    """What a reader could get wrong."""
    pairs = told["pairs"]
    found = ["Brackets are 95 % intervals over conversations, for these fitted models: how another training sample "
             "would have turned out is not in them."]  # fmt: skip
    if pairs["ties"]:
        found.append(
            f"{plural(pairs['ties'], 'pair')} tied by people have no winner: they do not count in accuracy, and count "
            "in agreement, NLL and Brier score."
        )
    if pairs["soft"] or pairs["ties"]:
        found.append(
            f"Labels are shares of votes: no model can agree with more than {SHARE.show(told['ceiling']['agreement'])} "
            f"of single votes, or have an NLL below {told['ceiling']['nll']:.3f} or a Brier score below "
            f"{told['ceiling']['brier']:.3f}."
        )
    equal = [f"{name} {model['ties']:,}" for name, model in told["models"].items() if model["ties"]]
    if equal:
        found.append(f"Equal scores count as half right; such pairs: {listed(equal)}.")
    compared = sum(e["b"] == told["baseline"] and e["metric"] == "accuracy" for e in told["differences"])
    if compared:
        found.append(
            f"p: conversations exchanged at random between a model and {told['baseline']}, adjusted for "
            f"{plural(compared, 'comparison')} by Holm's method; the intervals stand for one comparison each."
        )
    return found


def _above(entry: Entry) -> bool:
    return entry["value"][1] is not None and entry["value"][1] > 0 and entry["p_holm"] is not None and (
        entry["p_holm"] <= ALPHA
    )  # fmt: skip


def _p(entry: Entry) -> str:
    p = entry["p_holm"]
    return "no test" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _rule(name: str) -> str:
    return f"“{RULES.get(name, name)}”"


def _all_of(names: Sequence[str]) -> str:
    return listed([_rule(name) for name in names])


def _check(
    name: str, passed: bool | None, triple: Sequence[float | None], sentence: str, neither: str = "Unknown"
) -> dict[str, Any]:
    word = neither if passed is None else "Passed" if passed else "Not passed"
    return {"name": name, "passed": passed, "word": word, "triple": triple, "sentence": sentence}
