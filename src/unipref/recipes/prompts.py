"""What models are asked: held-out prompts of a recipe, a user's own, and the tokens that a model gets for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, DataError, MissingExtraError
from unipref.core.records import Item, Message, Record, Text
from unipref.data import RowFault, encode, limit_records
from unipref.data.formats import Columns, text_or_messages
from unipref.data.sources import open_source
from unipref.recipes._judging import compared
from unipref.recipes._run import read_data
from unipref.recipes.config import Recipe

__all__ = ["Prompt", "heldout_prompts", "in_turns", "prompt_ids", "read_prompts", "readable"]

_TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gz")


@dataclass(frozen=True)
class Prompt:
    """What is to be answered.

    Attributes:
        text: a string of the user's own, which becomes a turn where a model is asked in turns; or the whole context.
        record: the held-out record it is of; None for a user's own.
        source: where it stands, for messages.
    """

    id: str
    text: Text
    record: Record | None = None
    source: str = ""

    def messages(self, system: str | None) -> tuple[Message, ...]:
        """The prompt as turns, behind the `system` message where one is given."""
        turns = (Message("user", self.text),) if isinstance(self.text, str) else self.text
        if system is None:
            return turns
        return (Message("system", system), *(turn for turn in turns if turn.role != "system"))


def read_prompts(values: Sequence[str], *, limit: int | None = None) -> list[Prompt]:
    """The prompts in `values`: files, and texts as they are.

    A text file has a prompt a line; a table (JSON lines, JSON, CSV, Parquet) has them in the column `prompt`, as text
    or as messages. Blank lines of a text file are no prompts.

    Args:
        limit: the first so many of all.

    Raises:
        DataError: a file cannot be read, or a row has no prompt.
        ConfigError: a value is empty, or looks like a file that is not there.
    """
    prompts: list[Prompt] = []
    for value in values:
        path = Path(value) if len(value) < 1024 and "\n" not in value else None
        if path is not None and path.is_file():
            prompts += _of_file(path)
        elif value.startswith("bundled:"):
            prompts += _of_table(value)
        elif path is not None and value.endswith((*_TABLES, ".txt")) and not any(map(str.isspace, value)):
            raise ConfigError(f"--prompts: there is no file {value!r}; paths start at the current folder")
        elif not value.strip():
            raise ConfigError("--prompts: a prompt is empty; give a text or a file")
        else:
            prompts.append(Prompt("", value, source="--prompts"))
    chosen = prompts if limit is None else prompts[:limit]
    return [replace(prompt, id=prompt.id or f"prompt-{i}") for i, prompt in enumerate(chosen, 1)]


def _of_file(path: Path) -> list[Prompt]:
    if path.name.endswith(_TABLES):
        return _of_table(str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"{path}: byte {err.start} is not UTF-8; save the file as UTF-8 and try again") from err
    # not splitlines(): a line of a user's file ends where an editor ends it
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    found = [Prompt(f"{path.name}:{n}", line, source=f"{path}, line {n}") for n, line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} holds no prompt; expected one a line")
    return found


def _of_table(name: str) -> list[Prompt]:
    source = open_source(name)
    rows = [row for _, row in source.rows if not isinstance(row, RowFault)]
    columns = Columns.of(rows, typed=source.typed)
    stem = name if name.startswith("bundled:") else Path(name).name
    found = []
    for line, row in source.rows:
        place = f"{name}, line {line}"
        try:
            if isinstance(row, RowFault):
                raise row
            if row.get("prompt") in (None, "", []):
                raise RowFault("no prompt", f"its columns are {', '.join(sorted(row))}; the prompt stands in 'prompt'")
            text = text_or_messages(row["prompt"], "prompt", columns)
        except RowFault as fault:
            raise DataError(f"{place}: {fault}") from fault
        if not isinstance(text, str) and text[-1].role == "assistant":
            raise DataError(f"{place}: the prompt ends with an assistant's turn, so there is nothing to answer")
        found.append(Prompt(str(row.get("id") or f"{stem}:{line}"), text, source=place))
    return found


def heldout_prompts(recipe: Recipe, n: int, folder: Path) -> list[Prompt]:
    """The first `n` prompts that `align` samples for: of held-out records, one per conversation.

    Args:
        folder: the run folder, which holds the pairs of a recipe that collects them.

    Raises:
        DataError: the recipe's data cannot be read any more.
    """
    records = _heldout(recipe, folder)
    chosen: dict[str, Record] = {}
    for record in compared(records):
        chosen.setdefault(record.conversation, record)
    kept, _ = limit_records(list(chosen.values()), n)
    return [Prompt(record.id, record.items[0].context, record, record.source or "") for record in kept]


def _heldout(recipe: Recipe, folder: Path | None = None) -> list[Record]:
    # without objectives and judges nothing is scored; the split does not depend on them
    bare = recipe.model_copy(update={"objectives": {}, "judges": {}})
    return read_data(bare, None, None, folder=folder).heldout


def in_turns(recipe: Recipe) -> bool | None:
    """Whether the recipe's data are conversations; None where they cannot be read any more."""
    try:
        return not isinstance(_heldout(recipe)[0].items[0].context, str)
    except (DataError, MissingExtraError, OSError):
        return None


def prompt_ids(
    prompt: Prompt, tokenizer: Any, *, turns: bool, system: str | None = None, max_length: int | None = None
) -> tuple[Text, list[int]]:
    """What a model is given for `prompt`: the context, and its tokens, as training makes them.

    Args:
        turns: through the chat template; otherwise as plain text.
        max_length: of a held-out record, as in training: longer contexts are cut from their start.

    Raises:
        ConfigError: `turns` without a chat template.
        DataError: the template refuses the prompt, or messages are to be plain text.
    """
    if prompt.record is not None and system is None:
        encoded = encode(prompt.record, tokenizer, max_length=max_length)
        return prompt.text, encoded.ids(0)[0]
    context: Text = prompt.messages(system) if turns else prompt.text
    if not turns and (system is not None or not isinstance(prompt.text, str)):
        what = "--system is a message" if system is not None else f"{prompt.source} holds messages"
        raise ConfigError(f"{what}, and this model is asked in plain text; leave it out, or take a model with a chat "
                          "template")  # fmt: skip
    # an answer of given tokens: the context is then rendered for generation, and nothing is added to it
    item = Item(context, "", response_ids=(tokenizer.eos_token_id,))
    record = Record(prompt.id, (item,), source=prompt.source or prompt.id)
    return context, encode(record, tokenizer).ids(0)[0]


def readable(context: Text) -> str:
    """A context as a reader should see it: a string as it is, turns behind who says them."""
    if isinstance(context, str):
        return context
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in context)
