"""The documentation is true: generated pages are current, and what it shows can be typed."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import unipref.recipes.align
from unipref.cli import parser
from unipref.cli._catalogue import load
from unipref.core import cards
from unipref.core.columns import MAKE
from unipref.objectives import as_objective
from unipref.recipes import load_recipe

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
    assert written == {"index", *(card.key for card in cards.list_methods())}


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
    config = unipref.recipes.config
    models = {model for _, model in generator().sections()}
    assert models == {getattr(config, name) for name in config.__all__ if isinstance(getattr(config, name), type)}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_shown_are_valid(text, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    for full in {False, "\nfull:" in text}:
        assert load_recipe(path, full=full, validate_files=False).run_plan()


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines() if "unipref " in line])
def test_commands_shown_are_commands(line):
    words = line.split("#")[0].split()
    parser().parse_args(words[words.index("unipref") + 1 :])


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"^make ([\w-]+)", "\n".join(blocks("sh")), flags=re.MULTILINE)))
)
def test_make_targets_shown_are_in_the_makefile(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python", "README.md"))
def test_python_shown_in_the_readme_runs(code, monkeypatch, tmp_path):
    monkeypatch.setattr(unipref.recipes.align, "align", lambda recipe: tmp_path / recipe.name)
    exec(compile(code, "README.md", "exec"), {})


def test_the_method_shown_to_contributors_has_the_golden_number_it_claims():
    before = dict(cards._REGISTRY)
    try:
        [code] = blocks("python", "CONTRIBUTING.md")
        exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "shown"})
        [card] = [card for card in cards.list_methods() if card.key not in before]
        [(options, fields, loss)] = card.golden
        columns = {name: torch.tensor([value], dtype=torch.float64) for name, value in fields.items()}
        assert as_objective(card.build(**options))(**columns).item() == pytest.approx(loss, abs=1e-12)
    finally:
        cards._REGISTRY.clear()
        cards._REGISTRY.update(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
