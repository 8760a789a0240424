"""Runs tests of the suite under a known mistake, to see them fail."""

import contextlib
import dataclasses
import io

import pytest
from witnesses import NUMPY, ROOT, TWIN, making, shared

from npgemma.porting.mistakes import made


@dataclasses.dataclass
class MakingInTests:
    """A plugin of pytest that makes a mistake while a test is called, and notes what fails."""

    id: str | None
    way: int
    failed: list = dataclasses.field(default_factory=list)
    passed: list = dataclasses.field(default_factory=list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        """Make the mistake in both backends."""
        with making(self.id, NUMPY, self.way), contextlib.ExitStack() as stack:
            if self.id and not shared(self.id, self.way):
                stack.enter_context(made(self.id, TWIN, self.way))
            return (yield)

    def pytest_runtest_logreport(self, report):
        """Note a test's outcome."""
        if report.when == "call" or report.failed:
            (self.failed if report.failed else self.passed).append(report.nodeid)


def fails(test, id, way=0):
    """Run a test under a mistake that both backends make.

    Parameters
    ----------
    test : str
        As pytest names it.
    id : str or None
    way : int

    Returns
    -------
    bool
        Whether it fails. A test of several cases fails if one does.
    """
    plugin = MakingInTests(id, way)
    options = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([*options, str(ROOT / test)], plugins=[plugin])
    if not plugin.failed + plugin.passed:
        raise RuntimeError(f"{test} did not run")
    return bool(plugin.failed)
