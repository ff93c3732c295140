"""`unipref doctor`: data or a recipe looked at before anything is trained on them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipref.core.errors import ConfigError

if TYPE_CHECKING:
    from unipref.core.findings import Examination

__all__ = ["add_to"]

_OF_DATA = {"model": "model", "eval": "data.eval", "max_length": "data.max_length", "format": "data.format"}


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "doctor",
        help="look at data or a recipe before training",
        description="Look at preference data, or at a recipe and its data, for what would make training wrong: faulty, "
        "doubled and contradictory rows, template and end-token faults, what max_length cuts, biases of the labels, "
        "overlap with the evaluation, and settings that do not fit. `unipref align` does the same before it trains.",
        epilog="The exit code is 1 where training would be wrong.",
    )
    parser.add_argument(
        "target", metavar="DATA|RECIPE", help="a data file, hub data set or bundled:hh-harmless; or a recipe (.yaml)"
    )
    data = parser.add_argument_group("with DATA")
    data.add_argument("--model", metavar="MODEL", help="look at the tokens too, with this model's tokenizer")
    data.add_argument("--eval", metavar="FILE", help="evaluation data, to find rows that stand in both")
    data.add_argument("--max-length", type=int, metavar="N", help="tokens that training keeps of a row (default: 512)")
    data.add_argument("--format", metavar="NAME", help="the rows' format (default: recognised)")
    recipe = parser.add_argument_group("with RECIPE")
    recipe.add_argument("--full", action="store_true", help="lay the recipe's `full` section over the rest")
    recipe.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="change a key of the recipe, such as data.max_length=1024",
    )
    parser.add_argument("--long", action="store_true", help="print every check in full, and rows token by token")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page, with rows shown token by token")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine what `args` name; the exit code: 1 where training would be wrong."""
    from rich.console import Console

    from unipref.core.io import to_json
    from unipref.report import render_doctor, write_doctor_page

    if args.html is not None and args.html.is_dir():
        raise ConfigError(f"--html: {args.html} is a folder; name a file, such as {args.html / 'doctor.html'}")
    with Console(stderr=True).status("reading and checking"):
        examination = _of_recipe(args) if _is_recipe(args.target) else _of_data(args)
    found = examination.to_dict()
    if args.html is not None:
        write_doctor_page(found, args.html)
    if args.json:
        print(to_json(found, indent=1))
        return int(bool(examination.errors))
    Console().print(render_doctor(found, long=args.long))
    print()
    ways = [] if args.long else ["--long prints every check in full"]
    ways += [f"page: {args.html}"] if args.html else ["--html FILE writes a page, with rows shown token by token"]
    print("; ".join(ways))
    return int(bool(examination.errors))


def _is_recipe(target: str) -> bool:
    from unipref.recipes import bundled_recipes

    return target.endswith((".yaml", ".yml")) or target in bundled_recipes()


def _of_recipe(args: argparse.Namespace) -> "Examination":
    for name, key in _OF_DATA.items():
        if (value := getattr(args, name)) is not None:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} goes with a data file; a recipe says it itself, so write --set {key}={value}")
    from unipref.recipes import load_recipe

    recipe = load_recipe(args.target, args.overrides, full=args.full)
    from unipref.recipes.doctor import examine_recipe

    return examine_recipe(recipe, subject=args.target)


def _of_data(args: argparse.Namespace) -> "Examination":
    given = [flag for flag, value in (("--set", args.overrides), ("--full", args.full)) if value]
    if given:
        raise ConfigError(
            f"{given[0]} changes a recipe, and {args.target} is taken for data; a recipe is a .yaml file or the "
            "name of a bundled one"
        )
    if args.max_length is not None and args.max_length < 2:
        raise ConfigError(f"--max-length must hold a context token and a response token: {args.max_length} is below 2")
    from unipref.recipes.doctor import examine_data

    options = {"max_length": args.max_length, "format": args.format}
    return examine_data(
        args.target,
        model=args.model,
        evaluation=args.eval,
        **{name: value for name, value in options.items() if value is not None},
    )
