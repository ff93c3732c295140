"""The doctor's page as a reader meets it: read back against the JSON, by keyboard, on a phone, without colour."""

import json
import sys
from pathlib import Path

import pytest
from browsing import alone, size

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from faulty_data import faulty_file, heldout_file

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """The file of all planted faults with its page: what was found, and the page's address."""
    from unipref.recipes.doctor import examine_data
    from unipref.report import write_doctor_page

    folder = tmp_path_factory.mktemp("doctor")
    file, _ = faulty_file(folder / "faulty.jsonl")
    held = heldout_file(folder / "heldout.jsonl")
    found = examine_data(file, model="bundled", evaluation=held, max_length=128).to_dict()
    return json.loads(json.dumps(found)), write_doctor_page(found, folder / "doctor.html").as_uri()


@pytest.fixture
def page(driver, examined):
    with alone(driver, examined[1]) as page:
        yield page


def test_the_page_opens_with_the_verdict_and_holds_the_numbers_of_the_json(page, examined):
    found, _ = examined
    counts = found["counts"]
    headline = page.find_element("css selector", "#verdict").text
    assert headline.startswith(f"Training would be wrong: {counts['error']} errors, {counts['warning']} warnings")
    read = """return [...document.querySelectorAll('[data-figure=finding]')].map(
        e => [e.dataset.code, e.dataset.level, e.dataset.n, e.dataset.of, e.dataset.value])"""
    shown = page.execute_script(read)
    number = lambda text: None if text == "" else float(text)  # noqa: E731
    assert [[code, level, number(n), number(of), number(value)] for code, level, n, of, value in shown] == [
        [one["code"], one["level"], one["n"], one["of"], (one["value"] or [None])[0]] for one in found["findings"]
    ]


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(page, width):
    size(page, width)
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_texts_are_hidden_until_asked_for_by_key_and_show_what_is_scored_without_colour(page):
    from selenium.webdriver.common.keys import Keys

    tokens = page.find_element("css selector", ".tokens")
    assert not tokens.is_displayed()
    page.find_element("css selector", "#rows summary").send_keys(Keys.ENTER)
    assert tokens.is_displayed()

    def line(kind):
        token = page.find_element("css selector", f".tokens .piece.{kind} i")
        return page.execute_script("return getComputedStyle(arguments[0]).textDecorationLine", token)

    assert [line(kind) for kind in ("context", "scored", "cut")] == ["none", "underline", "line-through"]


def test_a_keyboard_reaches_every_control_with_a_visible_focus(page):
    from selenium.webdriver.common.keys import Keys

    page.find_element("css selector", "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("class") == "skip"
    wanted = {element.id for element in page.find_elements("css selector", "summary")}
    for _ in range(150):
        element = page.switch_to.active_element
        wanted.discard(element.id)
        outline = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert outline != "none" or element.tag_name == "body"
        element.send_keys(Keys.TAB)
    assert not wanted
