"""Sets of concepts as YAML files: the published ones that come with the package, and a user's own.

```yaml
name: my-concepts
source: our style guide, 2026      # optional; a concept may name its own
concepts:
  - key: warmth
    name: Warmth
    high: the response is kind and shows that it cares
    low: the response is cold             # optional
  - key: short
    name: Short
    high: the response has fewer than 60 words
    rule: tokens to 60                    # counted, and no judge is asked
  - key: cites_law
    name: Cites law
    high: the response names a statute or a case
    domains: [law]                        # optional: only there
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from unipref.core.errors import ConfigError, nearest
from unipref.features.concepts import Concept
from unipref.features.rules import RULES, parse_rule

__all__ = ["ConceptSet", "concept_set", "concept_set_names", "load_concepts"]

_FOLDER = ("assets", "concepts")
_OF_SET = ("name", "about", "source", "scale", "concepts")
_OF_CONCEPT = ("key", "name", "high", "low", "kind", "rule", "domains", "source")


@dataclass(frozen=True)
class ConceptSet:
    """Concepts of one source.

    Attributes:
        about: in a sentence or two, what departs from the source among them.
        scale: of a judge's scores; None: the judge's own.
    """

    name: str
    concepts: tuple[Concept, ...]
    about: str = ""
    source: str = ""
    scale: tuple[int, int] | None = None


def concept_set_names() -> list[str]:
    """The names of the sets that come with the package."""
    folder = resources.files("unipref").joinpath(*_FOLDER)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_concepts(name_or_path: str | Path) -> tuple[Concept, ...]:
    """The concepts of a set that comes with the package, or of a YAML file (a name with a dot or a slash is a file).

    Raises:
        ConfigError: there is no such set or file, or it is not in order; with the file and the line.
    """
    return concept_set(name_or_path).concepts


def concept_set(name_or_path: str | Path) -> ConceptSet:
    """The set with what it says of itself. As `load_concepts`."""
    given = str(name_or_path)
    if isinstance(name_or_path, Path) or "." in given or "/" in given or "\\" in given:
        path = Path(name_or_path)
        try:
            return _parsed(path.read_text(encoding="utf-8-sig"), given)
        except FileNotFoundError:
            raise ConfigError(
                f"there is no file {given}; a concept set is a YAML file, or one of: {', '.join(concept_set_names())}"
            ) from None
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(f"{given} cannot be read as a concept set: {err}") from err
    if given not in concept_set_names():
        raise ConfigError(
            f"no concept set named {given!r}{nearest(given, concept_set_names())}; a set of your own is a YAML file, "
            "named with its ending"
        )
    return _bundled(given)


@cache
def _bundled(name: str) -> ConceptSet:
    path = resources.files("unipref").joinpath(*_FOLDER, f"{name}.yaml")
    return _parsed(path.read_text(encoding="utf-8"), f"{name}.yaml")


def _parsed(text: str, file: str) -> ConceptSet:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{where}: this is not YAML: {getattr(err, 'problem', err)}") from err
    found = _mapping(root, file, "a concept set", _OF_SET)
    if "concepts" not in found:
        raise ConfigError(
            f"{file}: there is no list `concepts`; each of its entries has a key, a name and what high means"
        )
    entries = found["concepts"]
    if not isinstance(entries, yaml.SequenceNode) or not entries.value:
        raise ConfigError(f"{_at(file, entries)}: `concepts` is a list of at least one concept")
    told = {name: _text(found[name], file, name) for name in ("name", "about", "source") if name in found}
    concepts: dict[str, tuple[Concept, int]] = {}
    names: dict[str, str] = {}
    for entry in entries.value:
        concept = _concept(entry, file, told.get("source", ""))
        line = entry.start_mark.line + 1
        if concept.key in concepts:
            before = concepts[concept.key][1]
            raise ConfigError(f"{file}, line {line}: line {before} has the key {concept.key!r}, too; rename one")
        if concept.name.casefold() in names:
            other = names[concept.name.casefold()]
            raise ConfigError(
                f"{file}, line {line}: {concept.key} and {other} are both called {concept.name!r}; rename one"
            )
        names[concept.name.casefold()] = concept.key
        concepts[concept.key] = (concept, line)
    return ConceptSet(
        told.get("name", Path(file).stem),
        tuple(concept for concept, _ in concepts.values()),
        told.get("about", ""),
        told.get("source", ""),
        _scale(found["scale"], file) if "scale" in found else None,
    )


def _concept(entry: yaml.Node, file: str, source: str) -> Concept:
    found = _mapping(entry, file, "a concept", _OF_CONCEPT)
    values = {name: _text(node, file, name) for name, node in found.items() if name != "domains"}
    for name, what in (
        ("key", "a key, unique in the study"),
        ("name", "a name for people"),
        ("high", "what a high value means"),
    ):
        if not values.get(name):
            of = f" of {values['key']!r}" if values.get("key") else ""
            raise ConfigError(f"{_at(file, found.get(name, entry))}: `{name}`{of} is missing or empty; give {what}")
    key, kind = values["key"], values.get("kind") or ("rule" if values.get("rule") else "judge")
    if kind not in ("judge", "rule"):
        hint = nearest(kind, ("judge", "rule"))
        raise ConfigError(f"{_at(file, found['kind'])}: {key} is of the kind judge or rule, not {kind!r}{hint}")
    if kind == "judge" and values.get("rule"):
        raise ConfigError(f"{_at(file, found['rule'])}: {key} names a rule, and is left to a judge; take one away")
    if kind == "rule":
        rule = values.get("rule") or key
        try:
            parse_rule(rule)
        except ConfigError as err:
            raise ConfigError(f"{_at(file, found.get('rule', entry))}: {key}: {err}") from None
        if not values.get("rule") and key not in RULES:
            raise ConfigError(f"{_at(file, entry)}: {key} is counted, and does not say by which `rule`")
    domains: tuple[str, ...] = ()
    if "domains" in found:
        node = found["domains"]
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise ConfigError(f"{_at(file, node)}: `domains` of {key} is a list of names; leave it out for all domains")
        domains = tuple(_text(item, file, "domains") for item in node.value)
    return Concept(
        key,
        values["name"],
        values["high"],
        values.get("low", ""),
        kind,
        domains,
        values.get("source") or source,
        values.get("rule", ""),
    )


def _mapping(node: yaml.Node | None, file: str, what: str, known: tuple[str, ...]) -> Mapping[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_at(file, node)}: {what} is a mapping with the keys {', '.join(known)}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in known:
            raise ConfigError(f"{_at(file, key)}: {what} has no key {name!r}{nearest(name, known)}")
        if name in found:
            raise ConfigError(f"{_at(file, key)}: the key {name!r} stands twice; keep one")
        found[name] = value
    return found


def _text(node: yaml.Node, file: str, name: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{_at(file, node)}: `{name}` is a text, not a list or a mapping; put it in quotation marks")
    null = node.tag == "tag:yaml.org,2002:null"
    return "" if null else " ".join(node.value.split())


def _scale(node: yaml.Node, file: str) -> tuple[int, int]:
    values: list[Any] = [item.value for item in node.value] if isinstance(node, yaml.SequenceNode) else []
    if (
        len(values) != 2
        or not all(str(value).isdecimal() for value in values)
        or not 1 <= int(values[0]) < int(values[1])
    ):
        raise ConfigError(f"{_at(file, node)}: `scale` is the lowest and the highest score, such as [1, 10]")
    return int(values[0]), int(values[1])


def _at(file: str, node: yaml.Node | None) -> str:
    return f"{file}, line {node.start_mark.line + 1}" if node is not None else file
