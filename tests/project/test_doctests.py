"""Every example in a docstring gives what it says."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
from support import ROOT

import conversion
import npgemma

MODULES = [
    module.name
    for package in (npgemma, conversion)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert found >= 5


def test_the_block_by_hand():
    """Every number of the page is what NumPy prints."""
    found = doctest.testfile(str(ROOT / "docs" / "by_hand.md"), module_relative=False)
    assert (found.failed, found.attempted > 20) == (0, True)
