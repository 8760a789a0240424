"""A page of the embedded model, and a headless browser."""

import os
import sys

import pytest
from browser import chromium  # noqa: F401

import npgemma
from npgemma.command import main

sys.path.insert(0, os.path.dirname(__file__))

from tour_page import opened

PROMPT = "detect red circle ; blue square"


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The page of the default prompt."""
    path = tmp_path_factory.mktemp("tour") / "page.html"
    assert main(["explain", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def trace():
    """The same inference, recorded whole."""
    model = npgemma.load()
    with npgemma.record() as arrays:
        answer = model.generate(npgemma.example_image(), PROMPT)
    return model, arrays, answer


@pytest.fixture
def browser(chromium, page):  # noqa: F811
    """The page, opened anew."""
    return opened(chromium, page)
