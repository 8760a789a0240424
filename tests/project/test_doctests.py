"""Every example in a docstring gives what it says."""

import doctest
import importlib
import re

import pytest
from support import ROOT

FILES = [
    path.relative_to(ROOT)
    for folder in ("npgemma", "torch_ref", "conversion", "tiny", "reports", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if re.search(r"^ *>>> ", path.read_text(), re.M)
]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_examples_work_as_pasted(path):
    """Each knows what its own file defines, and imports all else."""
    module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, globs=own)
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def test_there_are_examples():
    assert len(FILES) > 30


def test_the_block_by_hand():
    """Every number of the page is what NumPy prints."""
    found = doctest.testfile(str(ROOT / "docs" / "by_hand.md"), module_relative=False)
    assert (found.failed, found.attempted > 20) == (0, True)
