"""A headless browser; skipped aloud without one unless NPGEMMA_BROWSER=required."""

import os
import shutil
import sys

import pytest


def _missing(what):
    if os.environ.get("NPGEMMA_BROWSER") == "required":
        pytest.fail(f"{what} is missing, and NPGEMMA_BROWSER=required")
    pytest.skip(f"the page in a browser: {what} is missing (pip install -e '.[browser]', apt install chromium-driver)")


@pytest.fixture(scope="session")
def chromium():
    """Headless Chromium, without any network."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        _missing("Selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs or sys.platform != "linux":
        _missing("Chromium or its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()
