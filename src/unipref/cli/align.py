"""`unipref align`: a recipe in, a run folder and a table out."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from unipref.cli._recipe import add_recipe
from unipref.core.errors import ConfigError

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "align",
        help="train what a recipe says and report on it",
        description="Train every run of a recipe, evaluate them on the same held-out data, and write a report.",
    )
    add_recipe(
        parser,
        change="train.learning_rate=1e-4 or runs.dpo.0.options.beta=0.3",
        output="the recipe's, runs/NAME",
        resume="go on where a stopped run of the same recipe left off",
    )
    parser.add_argument(
        "--strict", action="store_true", help="a faulty data row is an error; otherwise it is set aside"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what it will cost (steps, tokens, time, memory, disk), from a few measured steps, and write nothing",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="with --dry-run: what to expect on another device, such as H100"
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: print all numbers as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Align as `args` say; the exit code: 1 where a run is not what its name says (an alarm of level "error").

    With --dry-run, 1 where it will not fit.
    """
    began = time.perf_counter()
    if not args.dry_run and (args.device or args.json):
        raise ConfigError(f"{'--device' if args.device else '--json'} belongs to --dry-run; add it, or leave this out")
    from rich.console import Console

    from unipref.recipes import load_recipe

    strict = ["data.strict=true"] if args.strict else []
    recipe = load_recipe(args.recipe, [*args.overrides, *strict], full=args.full)
    folder = args.output or recipe.folder
    if args.dry_run:
        return _dry_run(args, recipe, folder, began)

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


def _dry_run(args: argparse.Namespace, recipe: Any, folder: Path, began: float) -> int:
    """Print what the run will cost; the exit code: 1 where it does not fit on this machine or the named device."""
    from rich.console import Console

    from unipref.cli._dry_run import print_estimate
    from unipref.core.io import to_json
    from unipref.recipes.estimate import estimate

    with Console(stderr=True, quiet=args.quiet).status("measuring a few steps"):
        found = estimate(recipe, output=folder, resume=args.resume, device=args.device, began=began)
    if args.json:
        print(to_json(found.to_dict(), indent=1))
    elif not args.quiet:
        print_estimate(found, Console())
    return int(bool(found.faults))
