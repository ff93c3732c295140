"""Runs side by side as a reader meets the page: fronts drawn where the numbers are, at any width, no request."""

import pytest
from browsing import alone, size

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from example_runs import write_runs_example

    return write_runs_example(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def page(driver, folder):
    with alone(driver, (folder / "report.html").as_uri()) as page:
        yield page


def test_dots_of_a_front_stand_in_the_order_of_their_numbers(page):
    read = """return [...document.querySelector('.front').querySelectorAll('g[data-figure=point]')].map(g => {
        const box = g.querySelector('circle').getBoundingClientRect();
        return [Number(g.dataset.x), Number(g.dataset.y), box.x + box.width / 2, box.y + box.height / 2]; })"""
    dots = page.execute_script(read)
    assert len(dots) == 7  # six runs and the start
    for axis, sign in ((0, 1), (1, -1)):
        apart = [dot for dot in dots if all(abs(dot[axis] - other[axis]) > 1e-3 for other in dots if other is not dot)]
        by_number = sorted(apart, key=lambda dot: dot[axis])
        assert by_number == sorted(apart, key=lambda dot: sign * dot[axis + 2])


def test_names_of_dots_do_not_lie_on_each_other(page):
    read = """return [...document.querySelector('.front').querySelectorAll('g[data-figure=point] text')].map(t => {
        const box = t.getBoundingClientRect(); return [box.left, box.right, box.top, box.bottom]; })"""
    boxes = page.execute_script(read)
    for i, (left, right, top, bottom) in enumerate(boxes):
        for other_left, other_right, other_top, other_bottom in boxes[i + 1 :]:
            across = min(right, other_right) - max(left, other_left)
            down = min(bottom, other_bottom) - max(top, other_top)
            assert across <= 0 or down <= 0.25 * (bottom - top)  # lines of text have space above and below


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    size(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_samples_are_shown_side_by_side_when_asked_for(page):
    page.execute_script("document.getElementById('sample-show').click()")
    shown = [text for text in page.find_elements("css selector", "article .text") if text.is_displayed()]
    names = [
        "reference",
        *(f"{folder}/{run}" for folder in ("slow", "fast") for run in ("dpo", "dpo_lambda0", "upo_dpo")),
    ]
    assert [text.get_attribute("data-run") for text in shown] == names
