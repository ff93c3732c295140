"""A recipe's raw values, each with the place it was written: YAML files, `--full` sections and `--set` overrides."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unipref.core.errors import ConfigError, nearest

__all__ = ["Key", "Source", "dotted", "merged", "read_yaml", "yaml_value"]

Key = tuple[str | int, ...]


def dotted(key: Key) -> str:
    """A key path as a user writes it.

    Example:
        >>> dotted(("runs", "dpo", 0, "options"))
        'runs.dpo.0.options'
    """
    return ".".join(map(str, key))


def merged(base: Any, changes: Any) -> Any:
    """`base` with `changes` laid over it: mappings key by key, everything else (lists too) replaced.

    Example:
        >>> merged({"train": {"epochs": 1, "seed": 0}, "seeds": [0]}, {"train": {"epochs": 3}, "seeds": [1, 2]})
        {'train': {'epochs': 3, 'seed': 0}, 'seeds': [1, 2]}
    """
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {
        **base,
        **{key: merged(base[key], value) if key in base else value for key, value in changes.items()},
    }


@dataclass(frozen=True)
class Source:
    """Raw values of a recipe and where each key was written.

    Attributes:
        name: the file, or what stands for it in messages.
        values: plain mappings, lists and scalars.
        places: "line 12" or "--set key=value" per key path.
    """

    name: str
    values: Mapping[str, Any]
    places: Mapping[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """Where `key`, or the nearest key above it, was written; "" where nothing says."""
        while key:
            if key in self.places:
                return self.places[key]
            key = key[:-1]
        return ""

    def order(self, key: Key) -> int:
        """Where `key`, or the nearest key above it, stands among all keys as they were written."""
        known = list(self.places)
        while key and key not in self.places:
            key = key[:-1]
        return known.index(key) if key else len(known)

    def with_section(self, section: str, *, apply: bool) -> "Source":
        """The same without the top-level key `section`, whose values are laid over the rest where `apply` is set."""
        values = {key: value for key, value in self.values.items() if key != section}
        inside = {key[1:]: place for key, place in self.places.items() if key[0] == section and len(key) > 1}
        outside = {key: place for key, place in self.places.items() if key[0] != section}
        changes = self.values.get(section)
        if not apply or changes is None:
            return Source(self.name, values, outside)
        if not isinstance(changes, Mapping):
            raise ConfigError(f"{self.name}: {section} holds keys that replace others, got {changes!r}")
        return Source(self.name, merged(values, changes), {**outside, **inside})

    def with_override(self, text: str) -> "Source":
        """The same with one `key.path=value`, the value written as in YAML; list items are named by number from 0.

        Raises:
            ConfigError: there is no "=", the value is not YAML, or the path leads through something without keys.
        """
        name, equals, written = text.partition("=")
        parts = [part.strip() for part in name.split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {text}: expected key=value, such as train.learning_rate=1e-4")
        value = yaml_value(written, f"--set {text}")
        values = _copied(self.values)
        key, inner = (), values
        for part in parts[:-1]:
            step = _step(inner, part, key, text)
            if isinstance(inner, dict) and inner.get(step) is None:
                inner[step] = {}
            inner, key = inner[step], (*key, step)
        last = _step(inner, parts[-1], key, text)
        inner[last] = value
        key = (*key, last)
        places = {known: place for known, place in self.places.items() if known[: len(key)] != key}
        return Source(self.name, values, {**places, key: f"--set {text}"})


def _step(inner: Any, part: str, key: Key, text: str) -> str | int:
    """The next key of an override's path: a name in a mapping, a number in a list."""
    where = dotted(key) or "the recipe"
    if isinstance(inner, dict):
        if part.isdecimal() and part not in inner:
            raise ConfigError(f"--set {text}: {where} is not a list{nearest(part, inner) if inner else ''}")
        return part
    if not isinstance(inner, list):
        raise ConfigError(f"--set {text}: {where} is {inner!r}, which has no keys")
    if not part.isdecimal() or int(part) >= len(inner):
        raise ConfigError(f"--set {text}: {where} is a list of {len(inner)}, counted from 0; got {part!r}")
    return int(part)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_copied(item) for item in value]
    return value


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: `1e-5` is a number, `no`, `off` and `12:30` are words."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] in ("merge", "null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), "-+0123456789")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    "-+.0123456789",
)


def yaml_value(text: str, name: str) -> Any:
    """The value that `text` writes in YAML.

    Raises:
        ConfigError: it is not YAML.

    Example:
        >>> yaml_value("[1e-5, off, null]", "an example")
        [1e-05, 'off', None]
    """
    return _parsed(text, name).values


def read_yaml(path: Path) -> Source:
    """The mapping in the YAML file `path`, with the line of every key.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, empty, not a mapping, or writes a key twice.
    """
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror})") from err
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw[: err.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 (byte {raw[err.start]:#04x}); save the file as UTF-8"
        ) from err
    source = _parsed(text, str(path))
    if source.values is None:
        raise ConfigError(f"{path}: the file is empty; a recipe needs at least `model`, `data` and `stages`")
    if not isinstance(source.values, Mapping):
        raise ConfigError(f"{path}: expected `key: value` lines, got {type(source.values).__name__}")
    return source


def _parsed(text: str, name: str) -> Source:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        places: dict[Key, str] = {}
        values = None if node is None else _built(loader, node, (), places, name)
    except RecursionError as err:
        raise ConfigError(f"{name}: an alias (*name) stands inside what it names") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{line}: not YAML ({getattr(err, 'problem', None) or err})") from err
    finally:
        loader.dispose()
    return Source(name, values, places)


def _built(loader: _Loader, node: yaml.Node, key: Key, places: dict[Key, str], name: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        values = []
        for index, item in enumerate(node.value):
            places[(*key, index)] = f"line {item.start_mark.line + 1}"
            values.append(_built(loader, item, (*key, index), places, name))
        return values
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    written: dict[str, int] = {}
    for part, _ in node.value:
        line = part.start_mark.line + 1
        if part.value in written and part.tag != "tag:yaml.org,2002:merge":
            where = dotted((*key, part.value))
            raise ConfigError(f"{name}, line {line}: {where} is written twice, first in line {written[part.value]}")
        written[str(part.value)] = line
    loader.flatten_mapping(node)  # `<<: *anchor`
    values = {}
    for part, item in node.value:
        step = str(loader.construct_object(part))
        places[(*key, step)] = f"line {part.start_mark.line + 1}"
        values[step] = _built(loader, item, (*key, step), places, name)
    return values
