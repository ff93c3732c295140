"""`unipref compare`: finished runs side by side, or several methods trained on equal terms and side by side."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from unipref.cli._recipe import add_changes
from unipref.core.errors import ConfigError

__all__ = ["add_to"]

# what each of the two forms of the command alone understands: the argument, its default, its flag
TRAINING = (
    ("learning_rates", None, "--learning-rates"), ("seeds", None, "--seeds"), ("select", "accuracy", "--select"),
    ("validation_share", 0.2, "--validation-share"), ("overrides", [], "--set"), ("full", False, "--full"),
    ("resume", False, "--resume"), ("keep_models", False, "--keep-models"),
)  # fmt: skip
REPORTING = (("fronts", [], "--fronts"), ("families", None, "--families"), ("json", False, "--json"))


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "compare",
        help="put finished runs side by side, or train several methods on equal terms",
        description="With run folders: put finished runs side by side, on the held-out rows that they share. With a "
        "recipe and --methods: train several methods on its rows with the same seeds and the same tuning, choose each "
        "one's learning rate on validation conversations, and compare what was chosen on the held-out ones.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="finished run folders, names in runs/, or FOLDER/RUN for one run of a folder; with --methods one recipe, "
        "a YAML file or the name of a bundled one",
    )
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with (default: the first)")
    finished = parser.add_argument_group("finished runs")
    finished.add_argument(
        "--fronts",
        action="extend",
        nargs="+",
        default=[],
        metavar="AXES",
        help="fronts to draw, each two or three METRIC,+ or METRIC,- parted by semicolons, such as "
        "'kl,-;aux.detail.generations,+' (default: every objective against KL)",
    )
    finished.add_argument(
        "--families",
        metavar="LIST",
        help="of the fronts: NAME=RUN,RUN;NAME=RUN (default: runs of one method that differ in numbers)",
    )
    finished.add_argument("--json", action="store_true", help="print the numbers as JSON")
    training = parser.add_argument_group("methods on a recipe")
    training.add_argument(
        "--methods",
        metavar="LIST",
        help="keys by commas, each KEY, KEY:option=value;option=value or KEY@RATE/RATE; `all` is every objective that "
        "the data can feed",
    )
    training.add_argument(
        "--learning-rates",
        metavar="LIST",
        help="tried by every method (default: the recipe's, a third of it and three times it)",
    )
    training.add_argument("--seeds", metavar="LIST", help="train the chosen rate with each (default: the recipe's)")
    training.add_argument(
        "--validation-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the training conversations, to choose rates on (default: 0.2)",
    )
    training.add_argument(
        "--select",
        default="accuracy",
        metavar="METRIC",
        help="what rates are chosen by: accuracy (default), ranking_accuracy, ranking_accuracy_per_token or log_score",
    )
    training.add_argument("--keep-models", action="store_true", help="keep the models of the chosen rates")
    add_changes(
        parser,
        change="data.limit=256",
        output="runs/compared-... for runs, the recipe's and -compare for methods",
        resume="of --methods: go on where it was stopped; methods, rates and seeds may be added",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare as `args` say; the exit code: 1 where a method has failed."""
    if args.methods is None:
        return _finished(args)
    return _train(args)


def _finished(args: argparse.Namespace) -> int:
    """Finished runs side by side."""
    from rich.console import Console

    _refuse(args, TRAINING, "trains methods on a recipe, and needs --methods; finished runs are read as they are")

    from unipref.recipes.side_by_side import parse_axes, parse_families, side_by_side
    from unipref.report import RUNS, render_runs

    folder = side_by_side(
        args.runs,
        axes=[parse_axes(text) for text in args.fronts],
        families=None if args.families is None else parse_families(args.families),
        baseline=args.baseline,
        output=args.output,
        command=_command(args),
    )
    comparison = json.loads((folder / RUNS).read_text(encoding="utf-8"))
    if args.json:
        print(json.dumps(comparison, indent=2))
    elif not args.quiet:
        Console().print(render_runs(comparison))
        print(f"report: {folder / 'report.html'}")
    return 0


def _train(args: argparse.Namespace) -> int:
    """Methods trained on a recipe's rows, and compared."""
    from rich.console import Console

    from unipref.recipes import load_recipe

    _refuse(args, REPORTING, "is for finished runs, and --methods trains new ones; compare their folder afterwards")
    if len(args.runs) > 1:
        raise ConfigError(f"--methods trains on one recipe, got {len(args.runs)}: {', '.join(args.runs)}")
    [name] = args.runs
    if any((Path(name) / kept).is_file() for kept in ("summary.json", "comparison.json")):
        raise ConfigError(
            f"{name} is a finished run, and --methods trains on a recipe: give {Path(name) / 'recipe.yaml'}, or leave "
            "--methods out to compare finished runs"
        )
    rates = _numbers(args.learning_rates, float, "--learning-rates")
    seeds = _numbers(args.seeds, int, "--seeds")
    if not 0 < args.validation_share < 1:
        raise ConfigError(f"--validation-share is a share between 0 and 1, got {args.validation_share:g}")
    recipe = load_recipe(name, args.overrides, full=args.full)

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


def _refuse(args: argparse.Namespace, flags: Any, why: str) -> None:
    for name, default, flag in flags:
        if getattr(args, name) != default:
            raise ConfigError(f"{flag} {why}")


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
    words = ["unipref", "compare", *args.runs]
    for flag in ("methods", "learning_rates", "seeds", "baseline", "families"):
        value = getattr(args, flag)
        words += [] if value is None else [f"--{flag.replace('_', '-')}", value]
    words += ["--fronts", *args.fronts] if args.fronts else []
    words += [] if args.validation_share == 0.2 else ["--validation-share", f"{args.validation_share:g}"]
    words += [] if args.select == "accuracy" else ["--select", args.select]
    words += ["--full"] if args.full else []
    words += ["--set", *args.overrides] if args.overrides else []
    return shlex.join(words)
