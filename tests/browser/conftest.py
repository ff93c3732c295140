"""Tests in headless Chromium. They run with `-m browser` (make test-browser) and are left out otherwise."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # example_run

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
]  # fmt: skip


def pytest_collection_modifyitems(config, items):
    if "browser" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("browser")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def program(*names):
    paths = [path for path in map(shutil.which, names) if path]
    assert paths, f"none of {', '.join(names)} is installed; try: apt-get install chromium chromium-driver"
    return paths[0]


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    from example_run import write_example

    from unipref.report import write_report

    folder = tmp_path_factory.mktemp("run")
    write_example(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def summary(run_folder):
    return json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
