"""The documentation is true: generated pages are current, rows and methods that it shows are such.

What it tells a reader to type is typed in `tests/docs`.
"""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest
import torch

import unipref.recipes.config
import unipref.recipes.reward_config
from unipref.cli._catalogue import load
from unipref.core import cards
from unipref.core.columns import MAKE
from unipref.data import FORMATS, DataReport, read_records
from unipref.data.formats import _FURTHER as FURTHER
from unipref.data.trees import FACTS
from unipref.objectives import as_objective
from unipref.recipes import load_recipe
from unipref.recipes.compare import parse_methods
from unipref.recipes.config import Stage
from unipref.recipes.fit import check_data

load()
ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(language: str, *pages: str) -> list[str]:
    """The fenced blocks of one language in the pages; of all pages where none is named."""
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in pages] or [page.read_text() for page in PAGES]
    return [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)]


def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page):
    path = ROOT / "docs" / page
    return path.read_text(encoding="utf-8") if path.is_file() else None


def test_generated_pages_follow_from_the_code():
    pages = generator().pages()
    assert {"recipe.md", "conformance.md", "methods/index.md", "methods/dpo.md"} <= set(pages)
    stale = [page for page, text in pages.items() if text_of(page) != text]
    assert not stale, "run: python scripts/generate_docs.py"


def test_every_method_has_a_page_and_every_page_a_method():
    written = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")}
    names = {generator().page_name(card) for card in cards.list_methods()}
    assert len(names) == len(cards.list_methods())
    assert {f"{name}.md" for name in written} == {"index.md", *names}


@pytest.mark.parametrize("status", cards.STATUSES)
def test_a_page_says_at_its_top_what_is_inferred(status):
    for card in [card for card in cards.list_methods() if card.status == status]:
        top = text_of(f"methods/{card.key}.md").split("```")[0]
        assert ("> **Reconstructed:** " in top) == (status == "reconstructed"), card.key


def test_how_to_make_a_column_is_said_of_every_column_that_a_method_needs():
    needed = {name for card in cards.list_methods() for name in card.needs if not name.startswith("ref_logp.")}
    assert needed <= set(MAKE)


# options, columns and settings that the guide writes as it writes methods
NO_METHODS = {"base", "base_response", "flip", "gold", "lambda_d", "lambda_u", "preference", "references"}
NO_METHODS |= {"votes_chosen", "votes_rejected"}


def test_the_guide_names_methods_that_there_are_and_all_of_its_words_are_known():
    words = re.findall(r"`([a-z][a-z0-9_]*)`", text_of("choosing.md"))
    keys = {card.key for card in cards.list_methods()}
    assert not set(words) - keys - NO_METHODS
    assert not NO_METHODS & keys
    assert len(set(words) & keys) > 30


def test_the_guide_marks_what_is_reconstructed_where_it_offers_it():
    offered = re.findall(r"^(?:\*\*Start with\*\* \[|\| )(`.*?)(?: \||$)", text_of("choosing.md"), flags=re.MULTILINE)
    marks = [found for line in offered for found in re.findall(r"`(\w+)`(?:\]\(\S+\))?( ~)?", line.split(" | ")[0])]
    status = {card.key: card.status for card in cards.list_methods()}
    wrong = [(key, status[key]) for key, mark in marks if key in status and bool(mark) != (status[key] != "verified")]
    assert len(marks) > 50
    assert not wrong


def test_the_guide_leads_to_the_page_of_every_method_it_puts_first():
    defaults = re.findall(r"^\*\*Start with\*\* (.*)$", text_of("choosing.md"), flags=re.MULTILINE)
    assert len(defaults) == len(re.findall(r"^## If ", text_of("choosing.md"), flags=re.MULTILINE)) > 8
    assert all(re.search(r"\[`\w+`\]\(methods/\w+\.md\)", line) for line in defaults)


def test_every_section_of_a_recipe_is_on_its_page():
    for config, found in (
        (unipref.recipes.config, generator().sections()),
        (unipref.recipes.reward_config, generator().reward_sections()),
    ):
        there = {getattr(config, name) for name in config.__all__ if isinstance(getattr(config, name), type)}
        bases = {base for model in there for base in model.__mro__[1:]}
        assert {model for _, model in found} >= there - bases
        assert {model for _, model in found} <= there


def rows_shown():
    """(format in the words above it, rows, the recipe that follows them or "") for every example of docs/data.md."""
    example = r"^\*\*`(\w+)`\*\*[^\n]*:\n\n```jsonl\n(.*?)```(?:\n\n```yaml\n(.*?)```)?"
    return re.findall(example, text_of("data.md"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("name", "rows", "recipe"), rows_shown())
def test_rows_shown_are_read_whole_in_the_format_named_above_them(name, rows, recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(rows, encoding="utf-8")
    records, report = read_records(path, strict=True)
    assert [source["format"] for source in report.sources.values()] == [name]
    assert len(records) == report.n_kept == len(rows.splitlines())
    assert not [note for note in report.notes if "not used" in note]
    if recipe:
        path.with_suffix(".yaml").write_text(recipe, encoding="utf-8")
        check_data(load_recipe(path.with_suffix(".yaml"), validate_files=False), records)


def test_every_example_of_the_data_page_is_among_those_that_are_read():
    page = text_of("data.md")
    assert len(rows_shown()) == page.count("```jsonl") > 5
    assert sum(bool(recipe) for _, _, recipe in rows_shown()) == page.count("```yaml")


def test_the_data_page_names_every_format_further_text_fact_of_a_node_and_count():
    words = set(re.findall(r"`(\w+)`", text_of("data.md")))
    counts = set(DataReport().to_dict()) - {"n_set_aside", "counts", "sources"}
    assert not {*FORMATS, *FACTS, *FURTHER, *counts} - words


@pytest.mark.parametrize("methods", sorted(set(re.findall(r"--methods (\S+)", "\n".join(blocks("sh"))))))
def test_methods_shown_to_be_compared_are_methods_with_such_options(methods):
    assert parse_methods(methods)


def test_the_comparison_shown_has_as_many_methods_as_it_says():
    page = text_of("comparison.md")
    methods = re.search(r"^unipref compare methods --methods (\S+)$", page, flags=re.MULTILINE)[1]
    count = len(parse_methods(methods))
    assert f"\n{count} methods that can be trained on plain pairs" in page
    assert f"five trainings a method, {5 * count} in all" in page


def test_the_readme_counts_the_catalogue_as_the_command_does():
    words = r"(\d+) objectives, (\d+) operators, (\d+) loops and (\d+)\s+recipes"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.search(words, readme)
    kinds = ("objective", "operator", "loop", "recipe")
    assert [int(count) for count in told.groups()] == [len(cards.list_methods(kind)) for kind in kinds]
    models = re.search(r"(\d+) models of preferences", readme)
    assert int(models[1]) == len(cards.list_methods("reward"))


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"^make ([\w-]+)", "\n".join(blocks("sh")), flags=re.MULTILINE)))
)
def test_make_targets_shown_are_in_the_makefile(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.fixture
def shown_to_contributors(monkeypatch):
    """The cards that the Python of CONTRIBUTING.md makes, block by block; the registry is as before afterwards."""
    monkeypatch.setattr(cards, "_REGISTRY", dict(cards._REGISTRY))
    found = []
    for code in blocks("python", "CONTRIBUTING.md"):
        before = set(cards._REGISTRY)
        file = types.ModuleType("shown")
        exec(compile(code, "CONTRIBUTING.md", "exec"), vars(file))
        [(kind, key)] = set(cards._REGISTRY) - before
        found.append(cards.get_method(key, kind))
        if found[-1].kind == "operator":  # where the next block looks for it
            monkeypatch.setitem(sys.modules, f"unipref.data.catalogue.{key}", file)
    return found


def test_the_method_shown_to_contributors_has_the_golden_number_it_claims(shown_to_contributors):
    card = shown_to_contributors[0]
    [(options, fields, loss)] = card.golden
    columns = {name: torch.tensor([value], dtype=torch.float64) for name, value in fields.items()}
    assert as_objective(card.build(**options))(**columns).item() == pytest.approx(loss, abs=1e-12)


def test_the_operator_and_the_recipe_shown_to_contributors_leave_out_pairs_that_are_not_clear(shown_to_contributors):
    _, operator, recipe = shown_to_contributors
    assert (operator.kind, recipe.kind) == ("operator", "recipe")
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "margin": margin} for margin in (0.5, 2.0, None)]
    records, _ = read_records(rows)
    assert operator.build() == recipe.build().operators[0]
    for least, kept, left_out in ((1.0, 1, 2), (0.1, 2, 1)):
        found, report = recipe.build(least=least).operators[0](records)
        assert (len(found), report.left_out) == (kept, {"no clear pair": left_out})
    assert Stage(method=recipe.key).composition == recipe.build()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
