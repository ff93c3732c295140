"""`unipref methods`: what can be trained, by which formula, from which source, and what it needs."""

import argparse
import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipref.core.cards import Card, Limit

__all__ = ["HEADINGS", "add_to"]

HEADINGS = {
    "objective": "Objectives: what a stage of a recipe can train",
    "operator": "Operators: changes of the data",
    "loop": "Loops: collect and train",
    "recipe": "Recipes: named combinations",
    "reward": "Reward models",
    "scorer": "Scorers: designer objectives",
    "explanation": "Explanations: what says why something was preferred",
    "concepts": "Concepts: what `unipref explain` can weigh",
}
_MARKS = {"verified": "  ", "reconstructed": "~ "}


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "methods",
        help="list the methods, or show one: formula, source, options, what it needs, its nearest relatives",
        description="List every method by kind, or show one in full.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="show this method alone, in full")
    parser.add_argument("--kind", metavar="KIND", help="only methods of one kind, such as objective")
    parser.add_argument(
        "--status", metavar="STATUS", help="only methods that are verified in their source, or reconstructed"
    )
    parser.add_argument("--long", action="store_true", help="list formula and source too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the methods that `args` ask for; the exit code."""
    from unipref.cli._catalogue import load
    from unipref.core.cards import STATUSES, get_method, list_methods
    from unipref.core.errors import ConfigError, nearest

    load()
    if args.name is not None:
        first = get_method(args.name, args.kind)
        cards = [card for card in list_methods(args.kind) if card.key == first.key]
        told = [_as_dict(card) for card in cards]
        if args.json:
            print(json.dumps(told if len(told) > 1 else told[0], indent=1, ensure_ascii=False))
        else:
            print("\n\n".join(map(_page, cards)))
        return 0
    if args.status not in (None, *STATUSES):
        raise ConfigError(f"no method has the status {args.status!r}{nearest(args.status, STATUSES)}")
    cards = [card for card in list_methods(args.kind) if args.status in (None, card.status)]
    if args.json:
        print(json.dumps([_as_dict(card) for card in cards], indent=1, ensure_ascii=False))
    elif args.long:
        print("\n\n".join(map(_entry, cards)))
    else:
        _print_list(cards)
    return 0


def _as_dict(card: "Card") -> dict[str, Any]:
    return {
        "key": card.key,
        "kind": card.kind,
        "title": card.title,
        "formula": card.formula,
        "source": card.source,
        "status": card.status,
        "inferred": card.inferred,
        "needs": list(card.needs),
        "options": {name: value if _is_plain(value) else card.defaults[name] for name, value in card.options.items()},
        "coupling": card.coupling,
        "exceptions": dict(card.exceptions),
        "limits": [limit_in_words(card, limit) for limit in card.limits],
        "citation": card.citation.bibtex(),
    }


def _is_plain(value: Any) -> bool:
    """Whether JSON knows the value."""
    return value is None or isinstance(value, bool | int | float | str)


def limit_in_words(card: "Card", limit: "Limit") -> str:
    """A special case as an equation, with what it asks of the data and its note."""
    ours, theirs = (
        f"{key}({', '.join(f'{name}={value!r}' for name, value in options.items())})"
        for key, options in ((card.key, limit.options), (limit.method, limit.method_options))
    )
    factor = "" if limit.factor == 1 else f"{limit.factor:g} * "
    constant = "" if limit.constant == 0 else f" {'-' if limit.constant < 0 else '+'} {abs(limit.constant):g}"
    where = " and ".join(f"{name} is {value:g} everywhere" for name, value in limit.where.items())
    sign = "=" if limit.tolerance <= 1e-9 else "≈"
    said = f"{ours} {sign} {factor}{theirs}{constant}"
    return "; ".join(filter(None, (said, where and f"where {where}", limit.note)))


def _print_list(cards: "list[Card]") -> None:
    """One line per method, grouped by kind: status, key, what it needs of the user, title.

    On a terminal a line is cut where it does not fit; elsewhere lines are as long as they are.
    """
    from unipref.core.columns import in_words

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for kind, heading in HEADINGS.items():
        rows = [(_MARKS[c.status] + c.key, in_words(c.needs), c.title) for c in cards if c.kind == kind]
        if not rows:
            continue
        print(f"{heading} ({len(rows)})")
        key = max(len(row[0]) for row in rows)
        needs = max(len(row[1]) for row in rows)
        if width is not None:
            needs = min(needs, width // 3)
        for name, asks, title in rows:
            gap = f"  {_cut(asks, needs):<{needs}}" if needs else ""
            print(_cut(f"{name:<{key}}{gap}  {title}", width))
        print()
    inferred = sum(card.status == "reconstructed" for card in cards)
    print(f"{len(cards)} listed; in {inferred} of them a part of the definition is inferred (~).")
    print("`unipref methods NAME` shows one in full; --long shows formula and source of all.")


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(width - 1, 0)] + "…"


def _entry(card: "Card") -> str:
    facts = {
        "formula": card.formula,
        "source": f"{card.source} ({card.status})",
        "needs": ", ".join(card.needs),
    }
    return "\n".join(
        [f"{card.key} ({card.kind}): {card.title}", *(f"  {name:<10}{value}" for name, value in facts.items() if value)]
    )


def _page(card: "Card") -> str:
    from unipref.core.columns import how_to_make
    from unipref.objectives.relatives import nearest

    meanings = card.meanings
    blocks = {
        "options and their defaults": [
            f"{name} = {default}" + (f": {meanings[name]}" if name in meanings else "")
            for name, default in card.defaults.items()
        ],
        "what it builds at these defaults": _built(card),
        "what it needs": [f"{name}: {how_to_make(name)}" for name in card.needs],
        "special cases": [limit_in_words(card, limit) for limit in card.limits],
        "nearest relatives, and what they have instead": [
            f"{other}: {'; '.join(changes) or 'the same parts at these defaults'}"
            for other, changes in (nearest(card.key) if card.kind in ("objective", "recipe", "loop") else ())
        ],
        "laws it breaks by design": [f"{law}: {reason}" for law, reason in card.exceptions.items()],
    }
    lines = [f"{card.key}: {card.title}", ""]
    facts = {
        "kind": card.kind,
        "formula": card.formula,
        "source": f"{card.source} ({card.status})",
        "coupling": card.coupling if card.kind == "objective" else "",
    }
    lines += [f"  {name:<10}{value}" for name, value in facts.items() if value]
    for paragraph in filter(None, [card.inferred, *card.explanation.split("\n\n")]):
        lines += ["", _wrapped(paragraph, hanging=0)]
    for heading, entries in blocks.items():
        if entries:
            lines += ["", heading, *map(_wrapped, entries)]
    return "\n".join([*lines, "", card.citation.bibtex()])


def _built(card: "Card") -> list[str]:
    """The operators and terms that the method builds at its defaults, one entry each, round by round."""
    from unipref.core.cards import REQUIRED
    from unipref.objectives import as_objective
    from unipref.recipes.composition import rounds_of

    if card.kind not in ("objective", "recipe", "loop") or REQUIRED in card.options.values():
        return []
    rounds = [
        [
            *(f"data: {operator!r}" for operator in composition.operators),
            *map(repr, as_objective(composition.objective).terms),
        ]
        for composition in rounds_of(card, {})
    ]
    if all(entries == rounds[0] for entries in rounds):
        return [*([f"{len(rounds)} rounds, each of"] if len(rounds) > 1 else []), *rounds[0]]
    return [f"round {number}: {entry}" for number, entries in enumerate(rounds, start=1) for entry in entries]


def _wrapped(entry: str, hanging: int = 2) -> str:
    return textwrap.fill(
        " ".join(entry.split()),
        100,
        initial_indent="  ",
        subsequent_indent=" " * (2 + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
