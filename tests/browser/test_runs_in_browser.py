"""Runs side by side as a reader meets the page: fronts drawn where the numbers are, at any width, no request."""

import json

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from example_runs import write_runs_example

    return write_runs_example(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def page(driver, folder):
    """The page freshly opened; afterwards nothing was complained of and nothing else was loaded."""
    size(driver, 1280)
    driver.get_log("browser")
    driver.get_log("performance")
    address = (folder / "report.html").as_uri()
    driver.get(address)
    yield driver
    assert driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {address}


def size(driver, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


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
