"""The page of an explanation as a reader meets it."""

import json
import math

import pytest
from browsing import alone, one, opened, press, select, size
from example_explanation import SHARED, N, write_example

from unipref.report import write_explanation

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    write_example(folder)
    write_explanation(folder)
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "explanation.json").read_text(encoding="utf-8"))


@pytest.fixture
def page(driver, folder):
    with alone(driver, (folder / "report.html").as_uri(), title="small, explained \N{MIDDLE DOT} unipref") as page:
        yield page


def choose(page, css, value):
    from selenium.webdriver.support.select import Select

    Select(one(page, css)).select_by_value(value)


def shown(page):
    return [a.get_attribute("data-id") for a in select(page, "article") if a.is_displayed()]


def walked(page):
    """The ids of all chosen pairs, one press of the button after another."""
    found = shown(page)
    while one(page, "#pair-next").is_enabled():
        press(page, "#pair-next")
        found += shown(page)
    return found


def test_pairs_are_hidden_until_asked_for_and_hidden_again(page):
    assert shown(page) == []
    press(page, "#pair-show")
    assert shown(page) == ["people-0"]
    assert page.switch_to.active_element.get_attribute("id") == "pair-next"
    press(page, "#pair-hide")
    assert shown(page) == []
    assert page.switch_to.active_element.get_attribute("id") == "pair-show"


def test_buttons_and_arrow_keys_go_through_the_pairs_one_at_a_time(page, told):
    from selenium.webdriver.common.keys import Keys

    press(page, "#pair-show")
    assert not one(page, "#pair-back").is_enabled()
    one(page, "#pair-next").send_keys(Keys.ARROW_RIGHT)
    assert shown(page) == ["people-1"]
    one(page, "#pair-next").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert shown(page) == ["people-2"]
    assert one(page, "#pair-count").text == f"3 of {3 * N}"
    assert shown(page) + walked(page)[1:] == [pair["id"] for pair in told["pairs"]][2:]
    # the button that can do no more hands the focus on, so that a keyboard is not lost
    assert page.switch_to.active_element.get_attribute("id") == "pair-back"


def test_an_arrow_in_the_box_of_words_moves_the_cursor_and_not_the_pairs(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "#pair-show")
    one(page, "#pair-words").send_keys("cats", Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
    assert shown(page) == ["people-1"]


def test_filters_together_leave_the_pairs_that_are_like_all_of_them(page, told):
    press(page, "#pair-show")
    choose(page, "#choose-mechanism", "judge")
    choose(page, "#choose-domain", "food")
    choose(page, "#choose-verdict", "wrong")

    def expected(pair):
        wrong = (pair["predicted"] > 0.5) != (pair["p"] > 0.5) and 0.5 not in (pair["p"], pair["predicted"])
        return pair["mechanism"] == "judge" and pair["domain"] == "food" and wrong

    ids = [pair["id"] for pair in told["pairs"] if expected(pair)]
    assert ids
    assert one(page, "#pair-count").text == f"1 of {len(ids)}, chosen from {3 * N}"
    assert walked(page) == ids
    one(page, "#pair-words").send_keys("nowhere")
    assert shown(page) == []
    assert one(page, "#pair-none").is_displayed()
    assert not one(page, "#pair-next").is_enabled()


def test_words_are_looked_for_in_prompt_and_responses_in_any_script_and_escape_clears_them(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "#pair-show")
    one(page, "#pair-words").send_keys("猫 DOGS question 4")
    assert shown(page) == ["people-4"]
    one(page, "#pair-words").send_keys(Keys.ESCAPE)
    assert one(page, "#pair-count").text == f"5 of {3 * N}"  # and the pair that was read stays


def test_the_largest_step_can_be_chosen(page, told):
    press(page, "#pair-show")
    choose(page, "#choose-decider", "says:lex")
    ids = [pair["id"] for pair in told["pairs"] if pair["contributions"] and pair["contributions"][0][0] == "says:lex"]
    assert ids
    assert walked(page) == ids


def test_the_steps_that_are_seen_add_up_to_the_logit_in_the_json(page, told):
    press(page, "#pair-show")
    pair = told["pairs"][0]
    article = one(page, 'article[data-id="people-0"]')
    steps = article.find_elements("css selector", '[data-figure="contribution"]')
    assert all(step.is_displayed() for step in steps)
    total = math.fsum(float(step.get_attribute("data-value")) for step in steps)
    assert total == pytest.approx(pair["logit"], abs=1e-12)
    first = steps[0].find_element("css selector", ".number b").text
    assert first == f"{pair['contributions'][0][2]:+.2f}".replace("-", "\N{MINUS SIGN}")
    logit = article.find_element("css selector", '[data-figure="logit"]')
    assert f"{100 * pair['predicted']:.1f} %" in logit.text
    assert "would turn if" in article.find_element("css selector", ".flip").text


def test_a_long_response_scrolls_in_its_own_box_and_a_keyboard_reaches_it(page):
    press(page, "#pair-show")
    one(page, "#pair-words").send_keys("question 2")
    long = one(page, 'article[data-id="people-2"]').find_element("css selector", ".text p")
    assert long.rect["height"] <= 330
    assert page.execute_script("return arguments[0].scrollHeight > arguments[0].clientHeight", long)
    assert long.get_attribute("tabindex") == "0"


def test_what_a_judge_said_is_read_beside_its_pair_as_text_and_a_keyboard_reaches_it(page, told):
    press(page, "#pair-show")
    one(page, "#pair-words").send_keys("question 2")
    said = one(page, 'article[data-id="people-2"]').find_element("css selector", ".evidence")
    assert said.text == f"Said by people: {told['pairs'][2]['evidence']}"
    assert "<script>" in said.text
    assert said.get_attribute("tabindex") == "0"
    first = one(page, 'article[data-id="people-0"]')
    assert first.find_elements("css selector", ".evidence") == []


def test_the_header_says_how_often_verdicts_change_with_the_order_or_that_nobody_asked(page, told):
    shown = one(page, '.trust dd[data-figure="order"]')
    assert "not asked in both orders" in shown.text
    assert "of 900 verdicts asked in both orders" in shown.text
    judge = one(page, '[data-figure="mechanism-order"][data-mechanism="judge"]')
    assert float(judge.get_attribute("data-value")) == told["mechanisms"]["judge"]["order"]["changed"][0]
    assert judge.text.startswith("27.5 %")


def test_a_form_whose_weight_is_not_known_has_its_reason_where_the_number_would_be(page, told):
    [row] = select(page, '#bias-1 [data-metric="bias.beside_content"][data-run="characters"]')
    assert told["bias"]["characters"]["why_not"]["beside_content"] in row.find_element("css selector", ".number").text
    assert "tables (only 2 held-out pairs differ)" in one(page, '#bias-1 [data-figure="bias-unknown"]').text


def test_text_that_looks_like_markup_is_shown_as_text(page):
    press(page, "#pair-show")
    assert "<script>" in one(page, 'article[data-id="people-0"] .prompt').text
    press(page, "#pair-next")
    assert "<script>" in select(page, 'article[data-id="people-1"] .text p')[0].text


def test_tabs_show_one_mechanism_at_a_time_by_mouse_and_by_arrow_key(page):
    from selenium.webdriver.common.keys import Keys

    def panels():
        return [panel.is_displayed() for panel in select(page, "#shared [role=tabpanel]")]

    assert panels() == [True, False, False]
    press(page, "#shared-tab-2")
    assert panels() == [False, True, False]
    bars = [row for row in select(page, '[data-figure="shared"]') if row.is_displayed()]
    assert [row.get_attribute("data-concept") for row in bars] == list(SHARED["judge"])
    one(page, "#shared-tab-2").send_keys(Keys.ARROW_RIGHT)
    assert panels() == [False, False, True]
    assert [panel.is_displayed() for panel in select(page, "#domains [role=tabpanel]")] == [True, False, False]


def test_bars_are_drawn_on_the_side_of_the_line_that_their_weight_has_and_say_their_lift(page, told):
    seen = [row for row in select(page, '[data-figure="shared"]') if row.is_displayed()]
    assert len(seen) == 12  # the rest is folded
    for row in seen:
        entry = told["shared"][row.get_attribute("data-concept")]
        zero = float(row.find_element("css selector", ".zero").get_attribute("x1").rstrip("%"))
        bar = row.find_element("css selector", ".bar")
        x, width = (float(bar.get_attribute(name).rstrip("%")) for name in ("x", "width"))
        assert (x + width / 2 - zero) * entry["weight"] > 0
        lift = f"{entry['lift']:+.1f} %".replace("-", "\N{MINUS SIGN}")
        assert row.find_element("css selector", ".number b").text == lift
        assert ("drives;" in row.text and "not shown" not in row.text) == entry["drives"]


def test_what_drives_is_filled_and_what_does_not_is_outlined_and_words_say_it_too(page):
    def fill(concept):
        bar = one(page, f'#shared-1 [data-concept="{concept}"] .bar')
        return float(page.execute_script("return getComputedStyle(arguments[0]).fillOpacity", bar))

    assert fill("characters") == 1
    assert fill("hedges") < 0.5


def test_a_heading_sorts_the_glossary_and_concepts_without_a_number_stay_last(page):
    def order():
        return [row.get_attribute("data-concept") for row in select(page, "#concepts tbody tr")]

    press(page, "#concepts thead th:nth-child(3) button")
    assert order()[-1] == "questions"
    press(page, "#concepts thead th:nth-child(3) button")
    assert order()[-1] == "questions"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(page, width):
    size(page, width)
    press(page, "#pair-show")
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_on_a_phone_bars_are_wide_responses_stand_below_one_another_and_text_is_not_tiny(page):
    size(page, 360)
    press(page, "#pair-show")
    row = select(page, "#shared-1 .row")[0]
    assert row.find_element("css selector", ".track").rect["width"] > 250
    assert len({text.rect["x"] for text in select(page, 'article[data-id="people-0"] .text')}) == 1
    sizes = page.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => e.textContent.trim() && !e.closest('svg'))"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 11


def test_a_keyboard_reaches_every_control_with_a_visible_focus_and_is_not_trapped(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "#pair-show")
    page.execute_script("document.querySelector('.skip').focus()")
    one(page, ".skip").send_keys(Keys.TAB)
    seen = []
    for _ in range(150):
        element = page.switch_to.active_element
        if element.tag_name == "body":
            break
        outline = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert outline != "none", element.get_attribute("outerHTML")[:80]
        seen.append(element.get_attribute("id") or element.text)
        element.send_keys(Keys.TAB)
    else:
        pytest.fail("the focus never came to the end of the page")
    controls = ["shared-tab-1", "choose-mechanism", "choose-domain", "choose-verdict", "pair-words", "pair-next"]
    assert [seen.index(name) for name in controls] == sorted(seen.index(name) for name in controls)


def test_dark_mode_is_dark_and_its_bars_stand_out(page):
    def luminance(css, property_):
        element = one(page, css)
        colour = page.execute_script(f"return getComputedStyle(arguments[0]).{property_}", element)
        return sum(float(x) for x in colour[4:-1].split(",")[:3]) / 3

    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        card = luminance("#shared", "backgroundColor")
        assert card < 50
        assert luminance('#shared-1 [data-concept="characters"] .bar', "fill") > card + 80
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_print_shows_every_mechanism_and_no_hidden_pair(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert all(panel.is_displayed() for panel in select(page, "[role=tabpanel]"))
        assert shown(page) == []
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_of_two_hundred_pairs_of_long_texts_one_is_laid_out_at_a_time(driver, tmp_path_factory, told):
    from selenium.webdriver.common.keys import Keys

    from unipref.core.io import write_json

    folder = tmp_path_factory.mktemp("large")
    pairs = [
        {**told["pairs"][i % N], "id": f"pair {i}", "first": f"number {i} " + "word " * 2000, "second": "text " * 2000}
        for i in range(200)
    ]
    write_json(folder / "explanation.json", {**told, "pairs": pairs})
    size(driver, 1280)
    opened(driver, write_explanation(folder).as_uri())
    press(driver, "#pair-show")
    search = """
        const box = document.getElementById("pair-words");
        box.value = "number 137";
        box.dispatchEvent(new Event("input"));"""
    driver.execute_script(search)
    assert shown(driver) == ["pair 137"]
    one(driver, "#pair-words").send_keys(Keys.ESCAPE)
    before = shown(driver)
    one(driver, "#pair-next").click()
    assert len(before) == len(shown(driver)) == 1
    assert before != shown(driver)
