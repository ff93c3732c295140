"""The page of samples as a reader meets it."""

import pytest
from browsing import alone, one, press, size
from example_samples import MODELS, N, write_example

from unipref.report import write_samples

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampled")
    write_example(folder)
    return write_samples(folder).as_uri()


@pytest.fixture
def page(driver, address):
    with alone(driver, address, title="small, samples \N{MIDDLE DOT} unipref") as page:
        yield page


def shown(page):
    return [a.get_attribute("data-id") for a in page.find_elements("css selector", "article") if a.is_displayed()]


def test_samples_are_hidden_until_asked_for_and_then_the_filter_has_the_focus(page):
    assert shown(page) == []
    press(page, "#samples-show")
    assert shown(page) == [f"p{i}" for i in range(N)]
    assert page.switch_to.active_element.get_attribute("id") == "sample-filter"


def test_the_filter_keeps_the_samples_that_hold_every_word_in_prompt_or_answer(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "#samples-show")
    box = one(page, "#sample-filter")
    box.send_keys("ANSWER cats")
    assert shown(page) == ["p1", "p3", "p5", "p7"]
    assert one(page, "#sample-status").text == f"4 of {N} shown"
    box.send_keys(" 猫 question 5")
    assert shown(page) == ["p5"]
    box.send_keys(" nowhere")
    assert shown(page) == []
    box.send_keys(Keys.ESCAPE)
    assert len(shown(page)) == N


def test_a_slash_goes_to_the_filter_and_is_a_slash_inside_it(page):
    press(page, "#samples-show")
    page.execute_script("document.activeElement.blur()")
    one(page, "body").send_keys("/")
    box = one(page, "#sample-filter")
    assert page.switch_to.active_element == box
    assert box.get_attribute("value") == ""
    box.send_keys("/")
    assert box.get_attribute("value") == "/"


def test_a_box_hides_the_answers_of_its_model_by_mouse_and_by_space(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "#samples-show")
    texts = page.find_elements("css selector", '.text[data-model="dpo"]')
    assert len(texts) == N
    press(page, 'input[data-toggle-model="dpo"]')
    assert not any(text.is_displayed() for text in texts)
    assert all(t.is_displayed() for t in page.find_elements("css selector", '.text[data-model="upo_dpo"]'))
    one(page, 'input[data-toggle-model="dpo"]').send_keys(Keys.SPACE)
    assert all(text.is_displayed() for text in texts)


def test_models_stand_side_by_side_on_a_desk_and_below_one_another_on_a_phone(page):
    press(page, "#samples-show")

    def tops():
        return [t.rect["y"] for t in page.find_elements("css selector", 'article[data-id="p5"] .text')]

    assert len(set(tops())) == 1
    size(page, 360)
    assert len(set(tops())) == len(MODELS)
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360


def test_text_that_looks_like_markup_is_shown_as_text(page):
    press(page, "#samples-show")
    assert "<script>" in one(page, 'article[data-id="p0"] .prompt').text
    assert "<script>" in one(page, 'article[data-id="p1"] .text[data-model="dpo"] p').text


def test_a_heading_sorts_the_means(page):
    table = page.find_elements("css selector", "#runs table")[0]
    button = table.find_elements("css selector", "thead th")[2].find_element("css selector", "button")

    def order():
        return [row.get_attribute("data-run") for row in table.find_elements("css selector", "tbody tr")]

    button.click()  # the combined reward, which falls from model to model
    assert order() == list(MODELS)
    button.click()
    assert order() == list(MODELS)[::-1]
