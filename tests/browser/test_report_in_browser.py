"""The report as a reader meets it: opened, clicked through, read back."""

import json

import pytest
from browsing import alone, one, press, select, size

pytestmark = pytest.mark.browser


@pytest.fixture
def page(driver, run_folder):
    with alone(driver, (run_folder / "report.html").as_uri(), title="quickstart \N{MIDDLE DOT} unipref") as page:
        yield page


def look_up(summary, run, metric):
    entry = summary["reference"] if run == "reference" else summary["runs"][run]
    value = entry
    for part in metric.split("."):
        value = value[int(part)] if isinstance(value, list) else value.get(part, [None] * 3)
        if value == [None] * 3:
            break
    return value if isinstance(value, list) else [value, None, None]


def test_every_figure_of_a_run_equals_the_summary(page, summary):
    read = """return [...document.querySelectorAll('[data-figure][data-run][data-value]')].map(
        e => [e.dataset.run, e.dataset.metric, e.dataset.value, e.dataset.low, e.dataset.high])"""
    figures = page.execute_script(read)
    assert len(figures) > 80
    for run, metric, *numbers in figures:
        shown = [None if number == "" else float(number) for number in numbers]
        assert shown == look_up(summary, run, metric), (run, metric)


def test_every_difference_equals_the_summary_and_is_drawn_where_it_is(page, summary):
    for entry in summary["differences"]:
        row = one(page, f'[data-a="{entry["a"]}"][data-b="{entry["b"]}"][data-metric="{entry["metric"]}"]')
        numbers = [row.get_attribute(f"data-{name}") for name in ("value", "low", "high")]
        assert [float(number) if number else None for number in numbers] == entry["value"]
        at = [float(row.find_element("css selector", css).get_attribute(name).rstrip("%"))
              for css, name in ((".zero", "x1"), (".dot", "cx"))]  # fmt: skip
        assert (at[1] - at[0]) * entry["value"][0] >= 0


def test_accuracy_in_words_is_the_number_in_the_data(page, summary):
    cell = one(page, 'td[data-run="upo_dpo"][data-metric="accuracy"]')
    assert cell.text.splitlines()[0] == f"{100 * summary['runs']['upo_dpo']['accuracy'][0]:.1f} %"


def test_a_heading_sorts_the_table_both_ways_and_runs_without_a_number_stay_last(page, summary):
    def order():
        return [row.get_attribute("data-run") for row in select(page, "#runs tbody tr")]

    by_accuracy = sorted(summary["runs"], key=lambda run: -summary["runs"][run]["accuracy"][0])
    heading = "#runs thead th:nth-child(2)"
    press(page, f"{heading} button")
    assert order() == [*by_accuracy, "reference"]
    assert one(page, heading).get_attribute("aria-sort") == "descending"
    press(page, f"{heading} button")
    assert order() == [*by_accuracy[::-1], "reference"]
    press(page, "#runs thead th:nth-child(1) button")
    assert order() == sorted([*summary["runs"], "reference"], reverse=True)


def test_tabs_show_one_comparison_at_a_time_by_mouse_and_by_arrow_key(page):
    from selenium.webdriver.common.keys import Keys

    assert [p.is_displayed() for p in select(page, "#differences [role=tabpanel]")] == [True, False]
    press(page, "#tab-2")
    assert [p.is_displayed() for p in select(page, "#differences [role=tabpanel]")] == [False, True]
    one(page, "#tab-2").send_keys(Keys.ARROW_RIGHT)
    assert [p.is_displayed() for p in select(page, "#differences [role=tabpanel]")] == [True, False]
    assert page.switch_to.active_element.get_attribute("id") == "tab-1"


def test_a_box_hides_the_curves_of_its_run(page):
    lines = select(page, '.line[data-run="dpo"]')
    assert lines
    assert all(line.is_displayed() for line in lines)
    press(page, 'input[data-toggle-run="dpo"]')
    assert not any(line.is_displayed() for line in lines)
    assert all(line.is_displayed() for line in select(page, '.line[data-run="upo_dpo"]'))


def test_samples_are_hidden_until_asked_for_and_can_be_paged_by_button_and_key(page, run_folder):
    from selenium.webdriver.common.keys import Keys

    assert not any(article.is_displayed() for article in select(page, "article"))
    assert "offensive" in one(page, "#gate").text
    press(page, "#sample-show")

    def shown():
        (article,) = [article for article in select(page, "article") if article.is_displayed()]
        return article

    assert shown().get_attribute("data-id") == "r0"
    assert not one(page, "#sample-back").is_enabled()
    press(page, "#sample-next")
    one(page, "#sample-next").send_keys(Keys.ARROW_RIGHT)
    assert one(page, "#sample-count").text == "3 of 40"
    rows = json.loads((run_folder / "upo_dpo" / "evaluation.json").read_text(encoding="utf-8"))["generations"]
    text = shown().find_element("css selector", '.text[data-run="upo_dpo"] p').text
    assert text == next(row["text"] for row in rows if row["id"] == "r2")
    press(page, "#sample-hide")
    assert not any(article.is_displayed() for article in select(page, "article"))


def test_text_that_looks_like_markup_is_shown_as_text(page):
    press(page, "#sample-show")
    assert "<script>" in one(page, 'article[data-id="r0"] .prompt').text


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(page, width):
    size(page, width)
    press(page, "#sample-show")
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_on_a_phone_numbers_stand_beside_their_names_and_text_is_not_tiny(page):
    size(page, 360)
    row = select(page, "#runs .plot .row")[0]
    name, number, track = (row.find_element("css selector", css) for css in (".name", ".number", ".track"))
    assert abs(name.rect["y"] - number.rect["y"]) < 20 < track.rect["y"] - name.rect["y"] + 5
    assert track.rect["width"] > 250
    sizes = page.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => e.textContent.trim() && !e.closest('svg'))"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 11


def test_a_keyboard_reaches_every_control_with_a_visible_focus(page):
    from selenium.webdriver.common.keys import Keys

    page.find_element("css selector", "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("class") == "skip"
    seen = set()
    for _ in range(80):
        element = page.switch_to.active_element
        seen.add(element.get_attribute("id") or element.text or element.get_attribute("data-toggle-run"))
        outline = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert outline != "none" or element.tag_name == "body"
        element.send_keys(Keys.TAB)
    assert {"tab-1", "sample-show", "dpo"} <= seen


def test_dark_mode_is_dark_and_readable(page):
    def luminance(css):
        colour = page.execute_script(f"return getComputedStyle(document.body).{css}")
        return sum(float(x) for x in colour[4:-1].split(",")[:3]) / 3

    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        assert luminance("backgroundColor") < 50
        assert luminance("color") > 200
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_print_shows_every_comparison_and_no_hidden_sample(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert all(panel.is_displayed() for panel in select(page, "[role=tabpanel]"))
        assert not any(article.is_displayed() for article in select(page, "article"))
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
