"""What README.md and the pages of docs/ show: files, commands and Python, in the order in which a reader meets them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
# the line above a block names the file that the block is: "`pairs.jsonl`, one comparison a line:"
_FILE = re.compile(r"`(?P<name>[\w-]+\.\w+)`[^`\n]*:$")
_NOT_RUN = re.compile(r"^<!-- not run by the tests: (?P<reason>.+?) -->$")
_EXIT = re.compile(r"exits? (?:with )?(?:code )?(?P<code>\d)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        file: the name of the file that it shows; "" for none.
        not_run: why its commands cannot be run by a test, from the comment above it; "" where they are.
    """

    language: str
    text: str
    file: str = ""
    not_run: str = ""


@dataclass(frozen=True)
class Command:
    """A line of a block in `sh` as it is typed, and the exit code that its comment tells, 0 where it tells none."""

    line: str
    exit_code: int = 0
    not_run: str = ""

    @property
    def words(self) -> list[str]:
        """Its words as the shell cuts them."""
        return shlex.split(self.line)


def name(page: Path) -> str:
    """The page as the tests call it."""
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for fence in _FENCE.finditer(text):
        above = text[: fence.start()].rstrip().rsplit("\n", 1)[-1].strip()
        file, reason = _FILE.search(above), _NOT_RUN.search(above)
        lines = [line.removeprefix(fence["indent"]) for line in fence["text"].splitlines()]
        body = "".join(f"{line}\n" for line in lines)
        found.append(Block(fence["language"], body, file["name"] if file else "", reason["reason"] if reason else ""))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a block in `sh`; a line that ends in a backslash goes on, and comments are no commands."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        typed, _, comment = re.sub(r"(^|\s)#(?=\s)", "\0", line, count=1).partition("\0")
        code = _EXIT.search(comment)
        if typed.strip():
            found.append(Command(" ".join(typed.split()), int(code["code"]) if code else 0, block.not_run))
    return found
