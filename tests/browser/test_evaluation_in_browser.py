"""The page of an evaluation of preference models as a reader meets it."""

import json

import pytest
from browsing import alone, one, press, select, size
from example_evaluation import MODELS, write_example

from unipref.report import write_evaluation

pytestmark = pytest.mark.browser
SECTIONS = ("trust", "calibration", "domains", "users", "subsets", "length", "best")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    write_example(folder)
    write_evaluation(folder)
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture
def page(driver, folder):
    with alone(driver, (folder / "report.html").as_uri(), title="small \N{MIDDLE DOT} unipref") as page:
        yield page


def chosen(page):
    """Which tab of each section is selected."""
    tabs = {part: select(page, f"[id^='{part}-tab-']") for part in SECTIONS}
    return {part: [tab.get_attribute("aria-selected") for tab in each].index("true") for part, each in tabs.items()}


def test_numbers_that_are_read_are_those_of_the_json(page, told):
    rows = select(page, '#trust [data-figure="dot"]')
    every = told["models"] | told["baselines"]
    assert len(rows) == len(every)
    for row in rows:
        value, low, high = every[row.get_attribute("data-run")]["accuracy"]
        shown = f"{100 * value:.1f} % {100 * low:.1f} to {100 * high:.1f}"
        assert row.find_element("css selector", ".number").text == shown
    n = told["pairs"]["with_winner"]
    assert f"76.0 % of {n} held-out pairs" in one(page, "#verdict").text
    press(page, "#calibration-1 details:first-of-type summary")
    cells = [row.text.split("\n") for row in select(page, '#calibration-1 [data-figure="reliability"]')]
    curve = told["models"]["per user"]["calibration"]["curve"]
    assert [cell[0] for cell in cells] == [f"{100 * p['confidence']:.1f} % {100 * p['right'][0]:.1f} %" for p in curve]


def test_dots_of_the_reliability_figure_lie_where_the_numbers_say(page, told):
    circles = select(page, "#calibration-1 .reliability circle")
    curve = told["models"]["per user"]["calibration"]["curve"]
    assert len(circles) == len(curve)
    line = one(page, "#calibration-1 .diagonal")
    x1, x2, y1, y2 = (float(line.get_attribute(name)) for name in ("x1", "x2", "y1", "y2"))
    low = min(0.5, *(point["right"][1] for point in curve))
    low = int(10 * low) / 10
    for circle, point in zip(circles, curve, strict=True):
        x, y = (float(circle.get_attribute(name)) for name in ("cx", "cy"))
        share = [(x - x1) / (x2 - x1), (y - y1) / (y2 - y1)]
        expected = [(value - low) / (1 - low) for value in (point["confidence"], point["right"][0])]
        assert share == pytest.approx(expected, abs=2e-4)


def test_a_model_chosen_in_one_section_is_chosen_in_all_and_the_tab_stays_in_place(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "#domains-tab-2")
    assert chosen(page) == dict.fromkeys(SECTIONS, 1)
    assert [panel.is_displayed() for panel in select(page, "#users [role=tabpanel]")] == [False, True, False]
    tab = one(page, "#users-tab-2")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", tab)
    top = page.execute_script("return arguments[0].getBoundingClientRect().top", tab)
    tab.send_keys(Keys.ARROW_LEFT)
    assert chosen(page) == dict.fromkeys(SECTIONS, 0)
    assert page.switch_to.active_element.get_attribute("id") == "users-tab-1"
    now = page.execute_script("return document.getElementById('users-tab-1').getBoundingClientRect().top")
    assert now == pytest.approx(top, abs=2)


def test_a_model_without_best_of_n_leaves_that_section_as_it_was(page):
    press(page, "#trust-tab-3")
    told = chosen(page)
    assert told == {**dict.fromkeys(SECTIONS, 2), "best": 0}


def test_a_heading_sorts_the_models_and_those_without_a_number_stay_last(page, told):
    def order():
        return [row.get_attribute("data-run") for row in select(page, "#models tbody tr")]

    press(page, "#models thead th:nth-child(2) button")
    every = told["models"] | told["baselines"]
    assert order() == sorted(every, key=lambda name: -every[name]["accuracy"][0])
    press(page, "#models thead th:nth-child(4) button")
    assert order()[: len(MODELS)] == sorted(told["models"], key=lambda name: -told["models"][name]["nll"][0])


def test_a_phone_shows_everything_without_scrolling_sideways(page):
    size(page, 390)
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= 390
    for figure in select(page, ".reliability svg, .best-of svg"):
        if figure.is_displayed():
            assert figure.rect["x"] >= 0
            assert figure.rect["x"] + figure.rect["width"] <= 390


def test_the_keyboard_reaches_every_table_that_scrolls(page):
    assert all(box.get_attribute("tabindex") == "0" for box in select(page, "main .scroll[role=region]"))
    assert not select(page, "main table:not(.scroll table)")
