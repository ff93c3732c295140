"""The command line: parse words, call one function, print.

Commands import what they need when they run, so that `unipref --help` answers at once.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from unipref.cli import align, chat, cite, compare, doctor, explain, init, launcher, methods, report, reward, sample
from unipref.core.errors import UniprefError

__all__ = ["main", "parser"]

USER_ERROR = 2
STOPPED = 130
READER_GONE = 1  # as rich has it


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        from importlib.metadata import version

        print(f"unipref {version('unipref')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    words = argparse.ArgumentParser(
        prog="unipref", description="Align a language model with people's preferences and your own objectives."
    )
    words.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = words.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (init, doctor, align, launcher, compare, reward, sample, chat, explain, report, methods, cite):
        command.add_to(commands)
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command line `argv` (default: the process's own).

    Returns:
        0 where all went well; 2 where the user has something to mend, said on stderr without a traceback; 130 after
        Ctrl-C; 1 where the reader of a pipe went away.
    """
    args = parser().parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()  # here, where a reader who has left is no fault
        return code
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        return STOPPED
    except UniprefError as err:
        print(f"error: {err}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has left; python must not complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {err.filename}" if err.filename else ""
        print(f"error: the disk is full{where}; make room, then go on with --resume", file=sys.stderr)
        return USER_ERROR
