"""`unipref compare`: several methods on the same rows, seeds and tuning budget, side by side."""

import argparse
import json
import shlex
from typing import Any

from unipref.cli._recipe import add_recipe
from unipref.core.errors import ConfigError

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "compare",
        help="train several methods on equal terms and report them side by side",
        description="Train several methods on a recipe's rows with the same seeds and the same tuning, choose each "
        "one's learning rate on validation conversations, and compare what was chosen on the held-out ones.",
    )
    add_recipe(
        parser,
        change="data.limit=256",
        output="the recipe's and -compare",
        resume="go on where it was stopped; methods, rates and seeds may be added",
    )
    parser.add_argument(
        "--methods",
        required=True,
        metavar="LIST",
        help="keys by commas, each KEY, KEY:option=value;option=value or KEY@RATE/RATE; `all` is every objective that "
        "the data can feed",
    )
    parser.add_argument(
        "--learning-rates",
        metavar="LIST",
        help="tried by every method (default: the recipe's, a third of it and three times it)",
    )
    parser.add_argument("--seeds", metavar="LIST", help="train the chosen rate with each (default: the recipe's)")
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the training conversations, to choose rates on (default: 0.2)",
    )
    parser.add_argument(
        "--select",
        default="accuracy",
        metavar="METRIC",
        help="what rates are chosen by: accuracy (default), ranking_accuracy, ranking_accuracy_per_token or log_score",
    )
    parser.add_argument("--baseline", metavar="METHOD", help="what the others are compared with (default: the first)")
    parser.add_argument("--keep-models", action="store_true", help="keep the models of the chosen rates")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare as `args` say; the exit code: 1 where a method has failed."""
    from rich.console import Console

    from unipref.recipes import load_recipe

    rates = _numbers(args.learning_rates, float, "--learning-rates")
    seeds = _numbers(args.seeds, int, "--seeds")
    if not 0 < args.validation_share < 1:
        raise ConfigError(f"--validation-share is a share between 0 and 1, got {args.validation_share:g}")
    recipe = load_recipe(args.recipe, args.overrides, full=args.full)

    from unipref.recipes.compare import compare, parse_methods
    from unipref.recipes.stage import Interrupted
    from unipref.report import COMPARISON, render_comparison

    try:
        folder = compare(
            recipe,
            parse_methods(args.methods),
            learning_rates=rates,
            seeds=seeds,
            validation_share=args.validation_share,
            select=args.select,
            baseline=args.baseline,
            output=args.output,
            resume=args.resume,
            keep_models=args.keep_models,
            command=_command(args),
            console=Console(stderr=True, quiet=args.quiet),
        )
    except Interrupted as stop:
        raise KeyboardInterrupt(str(stop)) from stop
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped; finished runs are kept, continue with --resume") from stop
    comparison = json.loads((folder / COMPARISON).read_text(encoding="utf-8"))
    if not args.quiet:
        Console().print(render_comparison(comparison))
        print(f"report: {folder / 'report.html'}")
        print(f"table: {folder / 'table.md'}")
    return int(any(entry["state"] == "failed" for entry in comparison["methods"].values()))


def _numbers(text: str | None, kind: type, flag: str) -> list[Any]:
    if text is None:
        return []
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        example = "0,1,2" if kind is int else "1e-6,3e-6,1e-5"
        raise ConfigError(f"{flag}: expected numbers by commas, such as {example}, got {text!r}") from None


def _command(args: argparse.Namespace) -> str:
    """The command line that makes this comparison, whole."""
    words = ["unipref", "compare", args.recipe, "--methods", args.methods]
    for flag in ("learning_rates", "seeds", "baseline"):
        value = getattr(args, flag)
        words += [] if value is None else [f"--{flag.replace('_', '-')}", value]
    words += [] if args.validation_share == 0.2 else ["--validation-share", f"{args.validation_share:g}"]
    words += [] if args.select == "accuracy" else ["--select", args.select]
    words += ["--full"] if args.full else []
    words += ["--set", *args.overrides] if args.overrides else []
    return shlex.join(words)
