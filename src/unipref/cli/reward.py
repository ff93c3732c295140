"""`unipref reward`: preference models, for everybody, for domains, for single users."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command and its words to a parser's `commands`."""
    parser = commands.add_parser(
        "reward",
        help="train, ask, measure and adapt reward and preference models",
        description="Fit a model of who prefers what to comparisons, measure it on held-out ones, label data with it, "
        "and teach it new users from a handful of choices. `unipref methods --kind reward` lists the models.",
    )
    words = parser.add_subparsers(title="what to do", metavar="WORD", required=True)
    _add_train(words)
    _add_score(words)
    _add_eval(words)
    _add_adapt(words)


def _add_train(words: Any) -> None:
    from unipref.cli._recipe import add_changes

    parser = words.add_parser(
        "train",
        help="fit what a recipe says and measure it on held-out conversations",
        description="Fit a preference model and write a run folder with the model, its evaluation and a page.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a data file to fit the defaults to")
    add_changes(parser, change="method=lore or options.rank=3", output="the recipe's, runs/NAME", resume=None)
    parser.add_argument("--json", action="store_true", help="print evaluation.json")
    parser.set_defaults(run=_train)


def _add_score(words: Any) -> None:
    parser = words.add_parser(
        "score",
        help="label data with a model",
        description="Write the rows of a data file with a model's rewards and its probabilities beside them, in a form "
        "that `align` and every other command read.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of `reward train` or `reward adapt`")
    parser.add_argument("data", metavar="FILE", help="comparisons or single responses, as `align` reads them")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON lines to write")
    parser.add_argument("--user", metavar="NAME", help="whose rewards (default: of the user that a row names)")
    parser.add_argument("--domain", metavar="NAME", help="which domain's (default: of the one that a row names)")
    parser.add_argument("--column", default="reward", metavar="NAME", help="of the rewards (default: reward)")
    parser.add_argument(
        "--relabel",
        action="store_true",
        help="put the model's verdict in the place of the data's: chosen is what it prefers, preference how surely",
    )
    _add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(run=_score)


def _add_eval(words: Any) -> None:
    parser = words.add_parser(
        "eval",
        help="measure models on data that none of them was fitted to",
        description="Accuracy, calibration, domains, users, length, with intervals, several models side by side.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders; NAME=FOLDER gives one a name")
    parser.add_argument("--data", required=True, metavar="FILE", help="comparisons, as `align` reads them")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder (default: runs/reward-eval-NAME)")
    _add_reading(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print evaluation.json")
    shape.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=_eval)


def _add_adapt(words: Any) -> None:
    parser = words.add_parser(
        "adapt",
        help="teach a model new users or domains from a handful of choices",
        description="Fit what is a newcomer's own to their choices and leave all else as it is.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of `reward train` or `reward adapt`")
    parser.add_argument("data", metavar="FILE", help="comparisons that name their user (or domain)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the new model")
    _add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(run=_adapt)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", default="auto", metavar="NAME", help="of the data (default: told from the columns)")
    parser.add_argument("--strict", action="store_true", help="a faulty row stops instead of being counted")
    parser.add_argument(
        "--user-column", default="user", metavar="COLUMN", help="that names whose choice it is (default: user)"
    )
    parser.add_argument(
        "--domain-column", default="domain", metavar="COLUMN", help="that names a row's domain (default: domain)"
    )


def _reading(args: argparse.Namespace) -> Any:
    from unipref.recipes.reward import Reading

    return Reading(args.format, args.strict, args.user_column, args.domain_column)


def _train(args: argparse.Namespace) -> int:
    from unipref.recipes.reward import train_reward
    from unipref.recipes.reward_config import load_reward_recipe

    source: Any = args.recipe
    path = Path(args.recipe)
    if path.suffix not in (".yaml", ".yml"):  # data: what it holds is fitted with all defaults
        stem = path.name.rpartition(":")[2].split(".")[0]
        source = {"name": f"reward-{stem}", "data": {"train": args.recipe}}
    recipe = load_reward_recipe(source, args.overrides, full=args.full)
    folder = train_reward(recipe, output=args.output, tell=_teller(args))
    return _shown(folder, args)


def _eval(args: argparse.Namespace) -> int:
    from unipref.recipes.reward import evaluate_reward

    models: dict[str, str] = {}
    for text in args.models:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).name, text
        if name in models:
            raise ConfigError(f"two models are called {name!r}; name them: NAME={path}")
        models[name] = path
    folder = evaluate_reward(models, args.data, reading=_reading(args), output=args.output, tell=_teller(args))
    return _shown(folder, args)


def _score(args: argparse.Namespace) -> int:
    from unipref.recipes.scored import score_data

    told = score_data(
        args.model,
        args.data,
        args.output,
        reading=_reading(args),
        user=args.user,
        domain=args.domain,
        column=args.column,
        relabel=args.relabel,
    )
    if args.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    parts = [f"{told[what]:,} {what}" for what in ("comparisons", "responses") if told[what]]
    agrees = "" if told["agreement"] is None else f"; they agree with {told['agreement']:.1%} of the data's labels"
    print(f"{' and '.join(parts)} written to {told['written']}{agrees}")
    return 0


def _adapt(args: argparse.Namespace) -> int:
    from unipref.recipes.reward import adapt_reward

    told = adapt_reward(args.model, args.data, args.output, reading=_reading(args))
    if args.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    for what in ("users", "domains"):
        counts = [f"{name} ({told['comparisons'][what][name]})" for name in told[what]]
        if counts:
            shown = ", ".join(counts[:10]) + (", ..." if len(counts) > 10 else "")
            print(f"{len(counts)} new {what}, with their comparisons: {shown}")
    before, after = told["accuracy"]
    print(f"right on these comparisons, which it has now seen: {before:.1%} before, {after:.1%} after")
    print(f"model: {args.output}; measure it on others: unipref reward eval {args.output} --data FILE")
    return 0


def _teller(args: argparse.Namespace) -> Any:
    if args.quiet or args.json:
        return lambda _: None
    return lambda words: print(words, file=sys.stderr, flush=True)


def _shown(folder: Path, args: argparse.Namespace) -> int:
    from rich.console import Console

    from unipref.report import EVALUATION, render_evaluation

    told = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    if args.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    elif not args.quiet:
        Console().print(render_evaluation(told))
        print(f"report: {folder / 'report.html'}")
    return 0
