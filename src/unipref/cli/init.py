"""`unipref init`: a first recipe, from somebody's data or from a TRL configuration."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "init",
        help="write a first recipe, from data or from a TRL configuration",
        description="Write a commented recipe for DATA: a method that they can feed, and settings of the right size. "
        "With --from-trl, write what a TRL configuration says as a recipe, and name every key that could not be kept.",
    )
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="a data file, a hub data set, or bundled:hh-harmless to try it out"
    )
    parser.add_argument("--model", metavar="MODEL", help="a hub id or a folder (default: bundled, a toy)")
    parser.add_argument("--eval", metavar="DATA", help="held-out data (default: a share of DATA)")
    parser.add_argument("--method", metavar="KEY", help="train this method (default: one that fits the data)")
    parser.add_argument(
        "--goal",
        dest="goals",
        metavar="SCORER",
        action="extend",
        nargs="+",
        default=[],
        help="goals of your own, each KEY or KEY:option=value;option=value; `unipref methods --kind scorer` lists them",
    )
    parser.add_argument("--from-trl", metavar="CONFIG", help="convert this configuration, as of `trl dpo --config`")
    parser.add_argument("--trainer", metavar="NAME", help="its trainer: dpo, kto, orpo or cpo (default: told from it)")
    parser.add_argument("--output", metavar="FILE", default="recipe.yaml", help="where to (default: recipe.yaml)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the recipe that `args` ask for; the exit code: 1 where a TRL loss, data or model could not be kept."""
    _check(args)
    if args.from_trl is not None:
        return _convert(args)

    from unipref.core.io import write_text
    from unipref.recipes.starting import next_steps, start_recipe

    made = start_recipe(
        args.data,
        model=args.model or "bundled",
        eval=args.eval,
        method=args.method,
        goals=args.goals,
        command=_command(args),
        file=args.output,
    )
    write_text(args.output, made.text)
    _say(*made.found)
    for note in made.notes:
        _say(f"note: {note}")
    _say("", f"Wrote {args.output}. Look through it; then:")
    print("\n".join(next_steps(args.output, str(made.recipe.folder))))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.data is None and args.from_trl is None:
        raise ConfigError(
            "init needs data to write a recipe for: give a file or a hub data set, or bundled:hh-harmless to try it "
            "out; or a TRL configuration with --from-trl CONFIG"
        )
    if args.from_trl is None and args.trainer is not None:
        raise ConfigError("--trainer says what kind of TRL configuration it is; it needs --from-trl CONFIG")
    if args.from_trl is not None and (args.method or args.goals):
        flag = "--method" if args.method else "--goal"
        raise ConfigError(
            f"{flag} and --from-trl: the configuration says what is trained; change the recipe afterwards"
        )
    path = Path(args.output)
    if path.is_dir():
        raise ConfigError(f"--output {args.output} is a folder; give the name of a file, such as recipe.yaml")
    if path.exists() and not args.force:
        raise ConfigError(
            f"{args.output} is there already; choose another file with --output, or write over it: --force"
        )


def _convert(args: argparse.Namespace) -> int:
    from unipref.core.io import write_text
    from unipref.recipes.from_trl import from_trl, read_trl
    from unipref.recipes.starting import next_steps

    made = from_trl(
        read_trl(args.from_trl),
        trainer=args.trainer,
        data=args.data,
        eval=args.eval,
        model=args.model,
        source=Path(args.from_trl).name,
        command=_command(args),
        file=args.output,
    )
    write_text(args.output, made.text)
    told = f" ({made.guess}; --trainer says another)" if made.guess else ""
    n = len(made.kept)
    _say(f"{args.from_trl}: {made.trainer.upper()}{told}. Kept {n} key{'' if n == 1 else 's'} of {made.n_given}.")
    titles = (
        ("kept in another form", made.differs),
        ("NOT KEPT, and what is trained is not the same without it", made.lost),
        ("not kept; it changes how training goes", made.minor),
        ("not kept; nothing here depends on it", made.idle),
        ("not keys of TRL", made.unknown),
    )
    for title, keys in titles:
        if keys:
            _say("", f"{title}:", *(f"  {key}: {why}" for key, why in keys.items()))
    _say("", f"Wrote {args.output}; what was not kept stands at its end. Look through it; then:")
    print("\n".join(next_steps(args.output, str(made.recipe.folder))))
    return int(bool(made.lost))


def _say(*lines: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)


def _command(args: argparse.Namespace) -> str:
    """The command line that writes this recipe."""
    words = ["unipref", "init"] + ([args.data] if args.data else [])
    for flag, value in (
        *(("--model", args.model), ("--eval", args.eval), ("--method", args.method)),
        *(("--from-trl", args.from_trl), ("--trainer", args.trainer)),
    ):
        words += [flag, value] if value else []
    words += ["--goal", *args.goals] if args.goals else []
    return shlex.join(words)
