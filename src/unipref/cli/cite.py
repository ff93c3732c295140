"""`unipref cite`: the BibTeX of what a run, a comparison, an explanation or a method rests on."""

import argparse
import re
from pathlib import Path
from typing import Any

__all__ = ["add_to"]

EXPLANATION = "explanation.json"


def add_to(commands: Any) -> None:
    """Add the command to a parser's `commands`."""
    parser = commands.add_parser(
        "cite",
        help="print the BibTeX of what a run or an explanation used",
        description="Print the BibTeX of all that runs used (methods, bases, operators, scorers) or that explanations "
        "rest on (models, concepts), each source once.",
    )
    parser.add_argument(
        "of",
        metavar="RUN|METHOD",
        nargs="+",
        help="a folder of a run, of a comparison or of an explanation, the name of one in runs/, an explanation.json, "
        "or a method's key",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the entries of everything that `args` name, in the order of their keys; the exit code."""
    entries: dict[str, str] = {}
    for name in args.of:
        entries |= _of_folder(name) or _of_method(name)
    print("\n".join(entries[key] for key in sorted(entries)), end="")
    return 0


def _of_folder(name: str) -> dict[str, str]:
    """Key -> entry of the folder called `name` and of the runs inside it; empty where there is no such folder.

    The file of an explanation stands for its folder.
    """
    from unipref.core.errors import ConfigError

    path = Path(name)
    given = path.parent if path.name == EXPLANATION and path.is_file() else path
    folder = next((each for each in (given, Path("runs") / name) if each.is_dir()), None)
    if folder is None:
        return {}
    files = sorted(folder.rglob("citations.bib"))
    if not files:
        told = f"{folder} holds no citations.bib; `unipref align` writes one into every run folder"
        if (folder / EXPLANATION).is_file():
            told = f"{folder} holds no citations.bib; make the explanation again, with the command on its page"
        raise ConfigError(told)
    return {key: entry for path in files for key, entry in _entries(path.read_text(encoding="utf-8")).items()}


def _of_method(key: str) -> dict[str, str]:
    from unipref.cli._catalogue import load
    from unipref.core.cards import bibtex, get_method
    from unipref.core.errors import ConfigError

    load()
    try:
        return _entries(bibtex([get_method(key)]))
    except ConfigError as err:
        raise ConfigError(f"neither {key} nor runs/{key} is a folder, and {err}") from err


def _entries(text: str) -> dict[str, str]:
    """Key -> entry, each ending in a newline."""
    return {
        found[2]: found[0] for found in re.finditer(r"^@(\w+)\{([^,\s]+),\n.*?^\}\n", text, re.DOTALL | re.MULTILINE)
    }
