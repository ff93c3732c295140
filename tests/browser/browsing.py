"""What every test of a page does in the browser."""

import json
from contextlib import contextmanager


@contextmanager
def alone(driver, address, *, title=None):
    """The page at `address` freshly opened at desktop width; afterwards nothing was complained of, nothing else was
    loaded, and the title is still `title`, which a hostile text would have changed."""
    size(driver, 1280)
    driver.get("about:blank")  # a fresh browser may still be loading a page of its own
    driver.get_log("browser")
    driver.get_log("performance")
    opened(driver, address)
    yield driver
    assert driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {address}
    assert title is None or driver.title == title


def opened(driver, address):
    """Go to the page and wait until it is there; on a busy machine a driver may answer for the page before."""
    from selenium.webdriver.support.wait import WebDriverWait  # the files are collected without it, too

    driver.get(address)
    there = "return location.href === arguments[0] && document.readyState === 'complete'"
    WebDriverWait(driver, 30).until(lambda driver: driver.execute_script(there, address))


def size(driver, width):
    """Make the window `width` pixels wide, below 600 a phone's."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def select(page, css):
    """All elements that `css` selects."""
    return page.find_elements("css selector", css)


def one(page, css):
    """The one element that `css` selects."""
    (element,) = select(page, css)
    return element


def press(page, css):
    """Click the one element that `css` selects, scrolled into view."""
    element = one(page, css)
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()
