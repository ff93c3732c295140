"""`unipref methods`: what can be trained, by which formula, from which source."""

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipref.core.cards import Card

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "methods",
        help="list the methods with formula, source and the columns they need",
        description="List every method, or show one with its options and citation.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="show this method alone, in full")
    parser.add_argument("--kind", metavar="KIND", help="only methods of one kind, such as objective")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the methods that `args` ask for; the exit code."""
    import unipref.objectives
    import unipref.rewards  # noqa: F401 (both fill the registry)
    from unipref.core.cards import get_method, list_methods

    if args.name is not None:
        card = get_method(args.name)
        print(json.dumps(_as_dict(card), indent=1, ensure_ascii=False) if args.json else _page(card))
        return 0
    cards = list_methods(args.kind)
    if args.json:
        print(json.dumps([_as_dict(card) for card in cards], indent=1, ensure_ascii=False))
    else:
        _print_table(cards)
    return 0


def _as_dict(card: "Card") -> dict[str, Any]:
    return {
        "key": card.key,
        "kind": card.kind,
        "title": card.title,
        "formula": card.formula,
        "source": card.source,
        "status": card.status,
        "needs": list(card.needs),
        "options": {name: _plain(value) for name, value in card.options.items()},
        "coupling": card.coupling,
        "exceptions": dict(card.exceptions),
        "citation": card.citation.bibtex(),
    }


def _plain(value: Any) -> Any:
    """An option's default as JSON knows it; what JSON does not know as its code."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _print_table(cards: "list[Card]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("method", "kind", "formula", "source", "needs", show_lines=True)
    for card in cards:
        table.add_row(*map(Text, (card.key, card.kind, card.formula, card.source, ", ".join(card.needs) or "-")))
    console = Console()
    console.print(table)
    console.print(f"{len(cards)} listed. `unipref methods NAME` shows options and citation.", highlight=False)


def _page(card: "Card") -> str:
    facts = {
        "kind": card.kind,
        "formula": card.formula,
        "source": f"{card.source} ({card.status})",
        "needs": ", ".join(card.needs),
        "coupling": card.coupling if card.kind == "objective" else "",
    }
    lines = [f"{card.key}: {card.title}", "", *(f"  {name:<10}{value}" for name, value in facts.items() if value)]
    if card.options:
        lines += ["", "options and their defaults"]
        lines += [f"  {name} = {value!r}" for name, value in card.options.items()]
    if card.exceptions:
        lines += ["", "laws it breaks by design"]
        lines += [f"  {law}: {reason}" for law, reason in card.exceptions.items()]
    return "\n".join([*lines, "", card.citation.bibtex()])
