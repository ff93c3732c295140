"""`unipref align`: a recipe in, a run folder and a table out."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "align",
        help="train what a recipe says and report on it",
        description="Train every run of a recipe, evaluate them on the same held-out data, and write a report.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a bundled recipe: quickstart")
    parser.add_argument("--full", action="store_true", help="lay the recipe's `full` section over the rest")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="change a key of the recipe, such as train.learning_rate=1e-4 or runs.dpo.0.options.beta=0.3",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="run folder (default: the recipe's, runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run of the same recipe left off")
    parser.add_argument(
        "--strict", action="store_true", help="a faulty data row is an error; otherwise it is set aside"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Align as `args` say; the exit code: 1 where a run is not what its name says (an alarm of level "error")."""
    from rich.console import Console

    from unipref.recipes import load_recipe

    strict = ["data.strict=true"] if args.strict else []
    recipe = load_recipe(args.recipe, [*args.overrides, *strict], full=args.full)
    folder = args.output or recipe.folder

    from unipref.recipes.align import align
    from unipref.recipes.stage import Interrupted
    from unipref.report import render_table

    try:
        align(recipe, output=folder, resume=args.resume, console=Console(stderr=True, quiet=args.quiet))
    except Interrupted as stop:
        raise KeyboardInterrupt(str(stop)) from stop
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped; whole checkpoints are in {folder}, continue with --resume") from stop
    if int(os.environ.get("RANK", "0")) > 0:  # one of several processes; the first one speaks
        return 0
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if not args.quiet:
        Console().print(render_table(summary))
        print(f"report: {folder / 'report.html'}")
    return int(any(alarm["level"] == "error" for run in summary["runs"].values() for alarm in run["alarms"]))
