"""Write the pages of docs/ that follow from the code: methods.md from the cards, recipe.md from the recipe's models.

python scripts/generate_docs.py
"""

import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import unipref.objectives
import unipref.rewards  # noqa: F401 (both fill the registry of cards)
from unipref.core.cards import KINDS, Card, list_methods
from unipref.core.io import write_text
from unipref.recipes import config

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEADINGS = {
    "objective": "Objectives: what a stage of a recipe can train",
    "operator": "Operators: changes of the data",
    "loop": "Loops: collect and train",
    "recipe": "Recipes: named combinations",
    "reward": "Reward models",
    "scorer": "Scorers: designer objectives",
}


def methods_page() -> str:
    """docs/methods.md: every card."""
    parts = [
        "# Methods",
        "Generated from the cards by `python scripts/generate_docs.py`; `unipref methods` prints the same.\n\n"
        "`logp` is the log-probability of a response, `ref_logp` the reference's, `|y|` its tokens, `_c` and `_r` the\n"
        "chosen and the rejected side. A *verified* definition was read in its source; of a *reconstructed* one, a\n"
        "part is inferred, and the text says which.",
    ]
    for kind in KINDS:
        cards = list_methods(kind)
        if cards:
            parts.append(f"## {HEADINGS[kind]}")
            parts += [_card(card) for card in cards]
    return "\n\n".join(parts) + "\n"


def _card(card: Card) -> str:
    text, meanings = _docstring(card)
    facts = [f"formula: `{card.formula}`", f"source: {card.source} ({card.status})"]
    if card.needs:
        facts.append("needs: " + ", ".join(f"`{name}`" for name in card.needs))
    if card.coupling != "none":
        facts.append(f"rows of a batch are tied by: {card.coupling}")
    facts += [f"breaks {law} by design: {reason}" for law, reason in card.exceptions.items()]
    parts = [f"### {card.key}", text, "\n".join(f"- {fact}" for fact in facts)]
    if card.options:
        rows = [(f"`{name}`", f"`{value!r}`", meanings.get(name, "")) for name, value in card.options.items()]
        parts.append(_table(("option", "default", "meaning"), rows))
    parts.append(f"```bibtex\n{card.citation.bibtex()}```")
    return "\n\n".join(parts)


def _docstring(card: Card) -> tuple[str, dict[str, str]]:
    """The text of a method's docstring before its sections, and what its `Args` say."""
    text = inspect.getdoc(card.function) or ""
    text, *sections = re.split(r"\n\n(?=(?:Args|Attributes|Returns|Raises|Example):\n)", text)
    meanings: dict[str, list[str]] = {}
    for section in sections:
        heading, *lines = section.splitlines()
        names: list[str] = []
        for line in lines if heading in ("Args:", "Attributes:") else []:
            entry = re.fullmatch(r" {4}([\w, ]+): (.*)", line)
            if entry:
                names = entry[1].split(", ")
                meanings |= {name: [entry[2]] for name in names}
            else:
                for name in names:
                    meanings[name].append(line.strip())
    return text, {name: " ".join(words) for name, words in meanings.items()}


RECIPE_INTRO = """# The recipe

Generated from the code by `python scripts/generate_docs.py`.

A recipe is a YAML file. `unipref align recipe.yaml` checks all of it before anything is loaded: unknown keys, wrong
types, unknown methods and options, files that are not there. Relative paths start at the folder you are in.

- `--set key.path=value` changes a key for one run; entries of lists go by number from 0:
  `--set train.learning_rate=1e-4 runs.dpo.0.options.beta=0.3`
- `--full` lays the recipe's section `full` over the rest: mappings key by key, everything else replaced.
- The recipe with all its defaults is written to `recipe.yaml` in the run folder, and can be run again.

A smallest recipe:

```yaml
model: bundled
data: {train: bundled:hh-harmless}
stages: [{method: dpo}]
```

Three runs that share a first stage, one of them the control of another:

```yaml
model: bundled
data: {train: bundled:hh-harmless}
objectives:
  reading_level: {scorer: reading_level}
stages:
  - {method: sft, train: {epochs: 1}}
runs:
  dpo: [{method: dpo, options: {beta: 0.1}}]
  control: [{method: upo, options: {base: dpo, lam: 0.0}}]
  upo: [{method: upo, options: {base: dpo}}]
controls: {upo: control, control: dpo}
full:
  seeds: [0, 1, 2]
```"""


def recipe_page() -> str:
    """docs/recipe.md: every key of a recipe with type, default and meaning."""
    parts = [RECIPE_INTRO]
    for title, model in sections():
        table = _table(
            ("key", "type", "default", "meaning"), map(_field, *zip(*model.model_fields.items(), strict=True))
        )
        parts += [f"## {title}", inspect.getdoc(model), table]
    return "\n\n".join(parts) + "\n"


def sections() -> list[tuple[str, type[BaseModel]]]:
    """Heading and model of every section of a recipe, in the order of the page."""
    return [
        ("Top level", config.Recipe),
        ("`model_options`", config.ModelOptions),
        ("`model_options.lora`", config.Lora),
        ("`references`", config.Reference),
        ("`data`", config.DataOptions),
        ("`objectives.NAME`", config.DesignerObjective),
        ("`train`", config.TrainOptions),
        ("`train.bounds`", config.Bounds),
        ("`stages` and `runs.NAME`", config.Stage),
        ("`sampling`", config.Sampling),
    ]


def _field(name: str, info: FieldInfo) -> tuple[str, str, str, str]:
    default = info.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        shown = "required"
    elif isinstance(default, BaseModel):
        shown = "see below"
    else:
        shown = f"`{_yaml(default)}`"
    return f"`{name}`", _type(info.annotation, info.metadata), shown, info.description or ""


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, BaseModel):
        return _yaml({key: item for key, item in value.model_dump().items() if item is not None})
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    return str(value)


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """An annotation in words, with its bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], [*_flat(arguments[1:]), *metadata])
    bounds = [
        f"{sign} {getattr(item, name):g}"
        for item in metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if hasattr(item, name)
    ]
    return " ".join([_plain_type(annotation, origin, arguments), " and ".join(bounds)]).strip()


def _plain_type(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> str:
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        inner = [_type(item) for item in arguments if item is not Ellipsis]
        return f"list of {_many(inner[0])}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    if origin is dict:
        return "mapping" if arguments[1] is Any else f"{_many(_type(arguments[1]))} by name"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
    return words[annotation]


def _many(words: str) -> str:
    """The plural of a type in words.

    Example:
        >>> _many("whole number ≥ 0")
        'whole numbers ≥ 0'
    """
    return re.sub(r"\b(section|number|list)\b", r"\1s", words)


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PAGES = {"methods.md": methods_page, "recipe.md": recipe_page}

if __name__ == "__main__":
    for page, text in PAGES.items():
        write_text(DOCS / page, text())
