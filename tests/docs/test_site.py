"""The site holds together: every page is in its navigation, no link leads nowhere. `make docs` builds it strictly."""

import importlib.util
import re

import pytest
import yaml
from doc_pages import PAGES, ROOT, blocks, name

from unipref.recipes import load_recipe

DOCS = ROOT / "docs"
ALL = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def conf():
    spec = importlib.util.spec_from_file_location("site_conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_code(text):
    return re.sub(r"^( *)```.*?^\1```$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The fragments of a page's headings, as repository browsers and the site make them."""
    found = []
    for heading in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), flags=re.MULTILINE
    ):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        n = sum(other == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", other) is not None for other in found)
        found.append(f"{slug}-{n}" if n else slug)
    return found


def test_every_page_is_in_the_navigation_once():
    pages = [page for group in conf().NAVIGATION.values() for page in group]
    written = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob("*.md")} - {"index"}
    assert sorted(pages) == sorted(written | {"methods/index"})


def test_the_front_page_leads_to_every_page_of_the_guide():
    linked = set(re.findall(r"\]\(([\w/-]+)\.md", (DOCS / "index.md").read_text(encoding="utf-8")))
    navigation = conf().NAVIGATION
    guide = {page for heading in ("Start", "Around training", "Going further") for page in navigation[heading]}
    assert guide <= linked


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_to_headings_that_there_are(page):
    for target, fragment in re.findall(
        r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))
    ):
        assert fragment in anchors((page.parent / target) if target else page), f"{target}#{fragment}"


def test_commands_stand_in_blocks_in_sh_where_they_are_run():
    typed = re.compile(r"^(?:\$ )?(?:unipref|pip|make|accelerate) \w", flags=re.MULTILINE)
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            assert block.language not in ("console", "shell", "bash"), name(page)
            assert block.language or not typed.search(block.text), name(page)


def test_a_page_fetches_nothing_from_a_network():
    for page in PAGES:
        assert not re.search(r"<(?:script|img|link|iframe)\b|!\[[^]]*\]\(https?:", page.read_text(encoding="utf-8")), (
            page
        )


def test_every_test_that_a_page_names_is_in_the_suite():
    suite = {
        found
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    sentence = r"`(test(?:_[^\W_]+){4,})`"  # `test_split_size` is a key
    named = {found for page in PAGES for found in re.findall(sentence, page.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert not named - suite


def test_every_answer_rests_on_a_test_a_command_or_a_page():
    page = (DOCS / "faq.md").read_text(encoding="utf-8")
    answers = {part.split("\n", 1)[0]: part for part in re.split(r"^### ", page, flags=re.MULTILINE)[1:]}
    assert len(answers) > 20
    holds = re.compile(r"`test_\w+`|```sh|\]\([\w/-]+\.md")
    assert not [question for question, text in answers.items() if not holds.search(text)]


def test_every_scorer_shown_in_the_table_of_objectives_is_one_and_takes_these_options():
    page = (DOCS / "objectives.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| \[`(\w+)`\].*`(\{.+\})` \|$", page, flags=re.MULTILINE)
    assert len(shown) > 5
    for scorer, text in shown:
        recipe = {"model": "bundled", "data": {"train": "pairs.jsonl"}, "stages": [{"method": "dpo"}]}
        recipe["objectives"] = {"one": yaml.safe_load(text)}
        assert load_recipe(recipe, validate_files=False).objectives["one"].scorer == scorer
