"""What an explanation of preferences says, in words. Nothing here says "drives" that the numbers do not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unipref.report._words import MINUS, NOTHING, Metric, listed

__all__ = [
    "BASELINES",
    "changes",
    "confirmed",
    "differing",
    "domain_named",
    "everywhere",
    "findings",
    "headline",
    "leaning",
    "lift",
    "name_of",
    "only_here",
    "order_told",
    "overlooks",
    "plural",
    "prefers",
    "short",
    "standing",
    "travels",
    "trust",
    "trust_here",
    "who",
]

Explanation = Mapping[str, Any]
LIFT = 50.0  # per cent of a weight of 1, as E[sigmoid(z)] = 1/2 under a swap of the responses: arXiv:2505.20088, C.3
STABLE = 0.9
UNNAMED = "all"  # mechanism or domain of data that name none
N_NAMED = 5  # concepts that a sentence names

BASELINES = {
    "majority": "the side that wins more often",
    "length_only": "length alone",
    "shared_only": "shared weights alone",
    "specific_only": "each domain by itself",
    "dirty": "nothing drawn to the shared weights",
}
_SHARE = Metric("accuracy", "held-out accuracy", "share", 1)
_BETTER_THAN = {"majority": "better than the side that wins more often", "length_only": "better than length alone"}


def lift(weight: float | None, *, signed: bool = True) -> str:
    """By how many per cent one spread more of a concept goes with a higher chance to be preferred.

    Example:
        >>> lift(0.25)
        '+12.5 %'
    """
    return NOTHING if weight is None else f"{bare(weight, signed=signed)} %"


def bare(weight: float, *, signed: bool = True) -> str:
    """`lift` without its sign of per cent."""
    shown = f"{LIFT * weight:{'+' if signed else '-'}.1f}"
    return ("0.0" if shown in ("+0.0", "-0.0") else shown).replace("-", MINUS)


def plural(n: int, what: str) -> str:
    """`n` and what it counts.

    Example:
        >>> plural(1, "pair"), plural(1200, "pair")
        ('1 pair', '1,200 pairs')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def who(name: str) -> str:
    """Who preferred: the mechanism's name, where the data have one."""
    return "those who judged" if name == UNNAMED else name


def prefers(name: str) -> str:
    """`who` with the verb.

    Example:
        >>> prefers("people"), prefers("gpt4")
        ('people prefer', 'gpt4 prefers')
    """
    if name == UNNAMED:
        return "is preferred"
    return f"{who(name)} {'prefer' if _many(name) else 'prefers'}"


def overlooks(name: str) -> str:
    """The title of what a mechanism gives less weight than another does."""
    return f"What {who(name)} {'overlook' if _many(name) else 'overlooks'}"


def domain_named(name: str) -> str:
    """A domain as a heading has it."""
    return "all pairs" if name == UNNAMED else name


def name_of(explanation: Explanation, key: str) -> str:
    """What people call the concept `key`."""
    concept = explanation["concepts"].get(key)
    return concept["name"] if concept else key.replace("_", " ")


def short(explanation: Explanation, key: str) -> str:
    """Its name inside a sentence: an n-gram is quoted without its verb."""
    return name_of(explanation, key).removeprefix("says ")


def order_told(order: Mapping[str, Any] | None, what: str = "pair") -> dict[str, Any]:
    """How often a verdict changed with the order: {"shown", "aside", "triple"}; said, too, where nobody asked twice.

    Args:
        order: {"n", "changed": [share, low, high]} and perhaps how often which place won both times; None: not known.
        what: was asked about.

    Example:
        >>> order_told({"n": 40, "changed": [0.1, 0.05, 0.2]})["shown"]
        '10.0 %'
    """
    if not order or not order["n"]:
        return {"shown": NOTHING, "aside": "not asked in both orders", "triple": [None] * 3}
    aside = f"of {plural(order['n'], what)} asked in both orders, {_SHARE.show_interval(order['changed'])}"
    if "first" in order:
        aside += f"; the first won both times in {order['first']:,}, the second in {order['second']:,}"
    return {"shown": _SHARE.show(order["changed"][0]), "aside": aside, "triple": order["changed"]}


# ---- may it be trusted ----


def trust(told: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a mechanism's explanation may be trusted, in a sentence, and the checks that decide.

    Returns:
        {"trusted", "sentence", "consequence", "checks": [{"name", "passed", "sentence", "triple"}]}.
    """
    accuracy = told["accuracy"]
    checks = []
    for name, better in _BETTER_THAN.items():
        triple = accuracy["differences"].get(name)
        if triple is None:
            checks.append({"name": name, "passed": None, "triple": [None] * 3,
                           "sentence": f"Whether it is {better} is not known: no concept of these is the length."
                           if name == "length_only" else f"Whether it is {better} was not measured."})  # fmt: skip
            continue
        shown = f"{_SHARE.show(triple[0], signed=True)}, {_SHARE.show_interval(triple, signed=True)}"
        passed = triple[1] is not None and triple[1] > 0
        words = f"It is {better}" if passed else f"It is not shown to be {better}"
        checks.append({"name": name, "passed": passed, "triple": triple, "sentence": f"{words}: {shown}."})
    right = f"{_SHARE.show(accuracy['heldout'][0])} ({_SHARE.show_interval(accuracy['heldout'])})"
    if told["trusted"]:
        sentence = f"This explanation predicts: it is right on {right} of the held-out pairs."
        consequence = (
            "A concept “drives” below where the sign of its weight is the same in at least 90 % of refits to resampled "
            "prompts. That says what goes with being preferred in new pairs of this kind, never what causes it."
        )
    else:
        missing = [_BETTER_THAN[check["name"]] for check in checks if check["passed"] is False]
        failing = f", and it is not shown to be {listed(missing)}" if missing else ""
        sentence = f"Do not build on this explanation: it is right on {right} of the held-out pairs{failing}."
        consequence = (
            "So nothing below may be said to drive preferences. The bars show what the model uses, no more; give it "
            "more pairs, or concepts that say more."
        )
    return {"trusted": told["trusted"], "sentence": sentence, "consequence": consequence, "checks": checks}


def trust_here(told: Mapping[str, Any], domain: str) -> dict[str, Any]:
    """Whether a mechanism's explanation may be trusted in one domain, and a sentence that says why."""
    accuracy = told["accuracy"]
    trusted = told.get("trusted_in", {}).get(domain, told["trusted"])
    triple = accuracy["by_domain"][domain]
    sentence = f"Right on {_SHARE.show(triple[0])} ({_SHARE.show_interval(triple)}) of its held-out pairs"
    gains = accuracy.get("differences_by_domain", {}).get(domain, {})
    shown = [
        f"{_SHARE.show(gains[name][0], signed=True)} against {BASELINES[name]} "
        f"({_SHARE.show_interval(gains[name], signed=True)})"
        for name in _BETTER_THAN
        if name in gains and gains[name][0] is not None
    ]
    sentence += f": {listed(shown)}." if shown else "."
    return {"trusted": trusted, "sentence": sentence}


def travels(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Whether shared weights predict domains that they were not fitted to; None where there is one domain."""
    triple = told["accuracy"].get("left_out_domains")
    if triple is None:
        return None
    right = f"{_SHARE.show(triple[0])} ({_SHARE.show_interval(triple)})"
    passed = triple[1] is not None and triple[1] > 0.5
    sentence = f"Weights shared by the other domains are right on {right} of a left-out domain's held-out pairs"
    consequence = "" if passed else ": not shown to be better than a coin, so no concept is said to drive everywhere"
    return {"passed": passed, "sentence": f"{sentence}{consequence}.", "triple": triple}


def standing(entry: Mapping[str, Any], *, trusted: bool) -> dict[str, str]:
    """How far a weight holds: {"word": a class of the page, "told", "interval"}."""
    kept = f"same sign in {100 * entry['stability']:.0f} % of refits" if entry.get("stability") is not None else ""
    if entry["low"] is None or entry["high"] is None:
        interval = f"no interval: {entry.get('no_interval') or 'not measured'}"
        of_sum = entry.get("together")
        if of_sum is not None and of_sum["low"] is not None:
            interval += f"; of their sum {bare(of_sum['low'])} to {bare(of_sum['high'])}"
        aside = ""
    else:
        interval = f"{bare(entry['low'])} to {bare(entry['high'])}"
        aside = "" if _clear(entry) else ", but the interval does not confirm it"
    interval += f"; {entry['caution']}" if entry.get("caution") else ""
    if entry["drives"]:
        return {"word": "higher", "told": f"drives; {kept}{aside}", "interval": interval}
    # where nothing is trusted the page says so once
    told = [*(["not shown to drive"] if trusted else []), *([kept] if kept else [])]
    return {"word": "unclear", "told": "; ".join(told), "interval": interval}


def confirmed(entry: Mapping[str, Any]) -> bool:
    """Whether a concept drives and its interval on held-out prompts lies on the same side of 0."""
    return bool(entry["drives"]) and _clear(entry)


def _clear(entry: Mapping[str, Any]) -> bool:
    if entry["low"] is None or entry["high"] is None:
        return False
    return entry["low"] > 0 if entry["weight"] > 0 else entry["high"] < 0


# ---- findings ----


def headline(explanation: Explanation) -> str:
    """The main mechanism's finding, or that there is none to be trusted."""
    name = explanation["main"]
    told = explanation["mechanisms"][name]
    if not told["trusted"]:
        return f"No trusted explanation of what {prefers(name)}"
    sure = {key: entry for key, entry in told["shared"].items() if confirmed(entry)}
    if not sure:
        return f"What {prefers(name)} can be predicted, but no concept is confirmed to hold everywhere"
    return f"What {prefers(name)} has {_more_and_less(explanation, sure, most=3, numbers=False)}"


def findings(explanation: Explanation) -> list[str]:
    """What holds everywhere, what in one domain, and where mechanisms differ: a sentence each."""
    told = [sentence for name in _order(explanation) for sentence in _of_mechanism(explanation, name)]
    return told + [sentence for pair in explanation["between"] for sentence in differing(explanation, pair)]


def _order(explanation: Explanation) -> list[str]:
    return sorted(explanation["mechanisms"], key=lambda name: name != explanation["main"])


def _of_mechanism(explanation: Explanation, name: str) -> Iterator[str]:
    told = explanation["mechanisms"][name]
    if not told["trusted"]:
        yield f"{_begins(name)}: the explanation is not trusted, so no concept is said to drive."
        return
    yield everywhere(explanation, name)
    if len(told["domains"]) > 1:
        for domain in told["domains"]:
            yield from only_here(explanation, name, domain)


def everywhere(explanation: Explanation, name: str) -> str:
    """What a mechanism rewards in all of its domains."""
    told = explanation["mechanisms"][name]
    place = "In all domains" if len(told["domains"]) > 1 else "Here"
    sure = {key: entry for key, entry in told["shared"].items() if confirmed(entry)}
    rest = sum(bool(entry["drives"]) for entry in told["shared"].values()) - len(sure)
    keeps, it = ("keeps", "it") if rest == 1 else ("keep", "them")
    more = f" {plural(rest, 'further concept')} {keeps} the sign in refits, but held-out prompts do not confirm {it}."
    if not sure:
        return f"{place}, no concept is confirmed to go with what {prefers(name)}.{more if rest else ''}"
    phrase = _more_and_less(explanation, sure, most=N_NAMED)
    return f"{place}, what {prefers(name)} has {phrase}.{more if rest else ''}"


def only_here(explanation: Explanation, name: str, domain: str) -> Iterator[str]:
    """What a mechanism rewards in one domain otherwise than elsewhere."""
    entries = explanation["mechanisms"][name]["domains"][domain]
    own = {key: entry for key, entry in entries.items() if confirmed(entry) and entry.get("specific")}
    alone = {key: entry for key, entry in own.items() if abs(entry["weight"] - entry["specific"]) < 1e-12}
    if alone:
        yield f"Only in {domain}, what {prefers(name)} has {_more_and_less(explanation, alone)}."
    for key, entry in [item for item in own.items() if item[0] not in alone][:3]:
        common = entry["weight"] - entry["specific"]
        how = "the other way round" if common * entry["weight"] < 0 else (
            "more" if common * entry["specific"] > 0 else "less")  # fmt: skip
        yield (
            f"In {domain}, {short(explanation, key)} counts {how} for {who(name)}: {lift(entry['weight'])} there, "
            f"{lift(common)} shared."
        )


def differing(explanation: Explanation, pair: Mapping[str, Any]) -> Iterator[str]:
    """What one of two mechanisms leans towards more than the other; nothing where either is not trusted."""
    a, b = pair["a"], pair["b"]
    if not all(explanation["mechanisms"][name]["trusted"] for name in (a, b)):
        return
    stable = [e for e in pair["overlooked"] if e["stability"] is not None and e["stability"] >= STABLE]
    for sign, one, other in ((1, a, b), (-1, b, a)):
        mine, theirs = ("a", "b") if sign > 0 else ("b", "a")
        told = [
            f"{short(explanation, e['concept'])} ({lift(e[mine])} against {lift(e[theirs])})"
            for e in stable
            if sign * e["difference"] > 0
        ][:N_NAMED]
        if told:
            yield f"{_begins(one)} {'lean' if _many(one) else 'leans'} more than {who(other)} towards {listed(told)}."


def _more_and_less(
    explanation: Explanation, entries: Mapping[str, Mapping[str, Any]], *, most: int = N_NAMED, numbers: bool = True
) -> str:
    ordered = sorted(entries, key=lambda key: -abs(entries[key]["weight"]))[:most]
    parts = []
    for sign, word in ((1, "more"), (-1, "less")):
        names = [
            short(explanation, key) + (f" ({lift(entries[key]['weight'])})" if numbers else "")
            for key in ordered
            if sign * entries[key]["weight"] > 0
        ]
        if names:
            parts.append(f"{word} of: {listed(names)}")
    return "; ".join(parts)


def _many(name: str) -> bool:
    """Whether a mechanism is spoken of in the plural."""
    return name in ("people", UNNAMED)


def _begins(name: str) -> str:
    """`who` at the beginning of a sentence; the names of judges stay as they are written."""
    return who(name).capitalize() if _many(name) else who(name)


# ---- one pair ----


def leaning(kind: str, x: float) -> str:
    """What a concept's value says of a pair: x is the first response's minus the second's, in spreads."""
    if kind == "ngram":
        return "only the first says it" if x > 0 else "only the second says it"
    return f"{'first' if x > 0 else 'second'} has more, by {abs(x):.2g}"


def changes(explanation: Explanation, pair: Mapping[str, Any]) -> str:
    """What would turn the verdict on a pair, in a sentence."""
    flip = pair["flip"]
    if pair["logit"] == 0:
        return "There is no verdict to turn: nothing that the two differ in has a weight here."
    if not flip["found"] or not flip["changes"]:
        return "No change of concepts within what the data hold turns the verdict."
    parts = [_moved(explanation, key, old, new) for key, old, new in flip["changes"]]
    return f"The verdict would turn if {_joined(parts)}. Numbers are first minus second, in spreads."


def _moved(explanation: Explanation, key: str, old: float, new: float) -> str:
    concept = explanation["concepts"].get(key, {})
    name, says = short(explanation, key), concept.get("kind") == "ngram"
    before, after = ("first" if value > 0 else "second" for value in (old, new))
    if _spread(new) == "0.00":
        how = f"both or neither said {name}" if says else f"the two were level in {name}"
    elif _spread(old) == "0.00":
        how = f"the {after} response {f'alone said {name}' if says else f'had more of {name}'}"
    elif before != after:
        how = f"the {after} response, not the {before}, {f'said {name}' if says else f'had more of {name}'}"
    else:
        how = f"the {before} response were {'less far' if abs(new) < abs(old) else 'further'} ahead in {name}"
    return f"{how} ({_spread(old)} to {_spread(new)})"


def _spread(value: float) -> str:
    shown = f"{value:+.2f}"
    return "0.00" if shown in ("+0.00", "-0.00") else shown.replace("-", MINUS)


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
