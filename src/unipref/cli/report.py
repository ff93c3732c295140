"""`unipref report`: the page of a run folder, made again."""

import argparse
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError

__all__ = ["add_to"]

KEPT = ("summary.json", "comparison.json", "runs.json", "explanation.json")


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "report",
        help="write a run folder's report.html again",
        description="Write report.html of a run folder again, from the numbers in the folder.",
    )
    parser.add_argument("folder", metavar="RUN", help="a run folder, or the name of one in runs/")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report that `args` name; the exit code."""
    from unipref.report import write_report

    print(write_report(_run_folder(args.folder)))
    return 0


def _run_folder(name: str) -> Path:
    for folder in (Path(name), Path("runs") / name):
        if any((folder / kept).is_file() for kept in KEPT):
            return folder
    raise ConfigError(
        f"no run folder {name!r}: neither {name} nor runs/{name} holds a {', a '.join(KEPT[:-1])} or an {KEPT[-1]}"
    )
