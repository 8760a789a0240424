"""Write docs/figures/page.png, the first screen of `explain`'s page: ``python reports/page_picture.py``.

It needs Chromium, its driver and ``pip install -e '.[browser]'``.
"""

import io
import pathlib
import shutil
import sys
import tempfile

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests" / "explain")]

from tour_page import opened  # noqa: E402

from npgemma.command import main  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    page = pathlib.Path(folder) / "page.html"
    main(["explain", "--out", str(page)])
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        screen = Image.open(io.BytesIO(opened(driver, page, height=1010).get_screenshot_as_png()))
    finally:
        driver.quit()
screen.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(ROOT / "docs" / "figures" / "page.png", optimize=True)
