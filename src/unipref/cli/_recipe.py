"""What the commands that take a recipe have in common."""

import argparse
from pathlib import Path

__all__ = ["add_changes", "add_recipe"]


def add_recipe(parser: argparse.ArgumentParser, *, change: str, output: str, resume: str) -> None:
    """Add the recipe, the ways to change it, and where the result goes; see `add_changes`."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a YAML file, or the name of a bundled recipe: quickstart or methods"
    )
    add_changes(parser, change=change, output=output, resume=resume)


def add_changes(parser: argparse.ArgumentParser, *, change: str, output: str, resume: str | None) -> None:
    """Add the ways to change a recipe, and where the result goes.

    Args:
        change: an example of --set.
        output: the default of --output, in words.
        resume: what --resume goes on with, in words; None: there is nothing to resume.
    """
    parser.add_argument("--full", action="store_true", help="lay the recipe's `full` section over the rest")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help=f"change a key of the recipe, such as {change}",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"folder (default: {output})")
    if resume is not None:
        parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
