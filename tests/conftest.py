"""What all tests share: small models with every axis of another size, and the checkpoint the suite runs on."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

# The rooms of tests/ are named like the packages they test: the packages come first.
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / folder) for folder in (".", "tests", "reports")]

import checkpoint_report
import plugin
from support import CONFIGS, GEMMA_2, write_random_folder

import npgemma
from npgemma.fast import blas

MEASUREMENTS = pytest.StashKey[list]()


def pytest_addoption(parser, pluginmanager):
    """Declare the options where the project is not installed; `--checkpoint DIR` must be one word, with `=`, then."""
    if not pluginmanager.has_plugin("npgemma"):
        plugin.pytest_addoption(parser)


def pytest_configure(config):
    """Refuse a folder or file that cannot be before any test is run."""
    folder, report = config.getoption("--checkpoint"), config.getoption("--report")
    if folder is not None and not (config.invocation_params.dir / folder).is_dir():
        raise pytest.UsageError(f"--checkpoint should name a checkpoint's folder; at '{folder}' there is none")
    if report is not None and (
        not (config.invocation_params.dir / report).parent.is_dir() or (config.invocation_params.dir / report).is_dir()
    ):
        raise pytest.UsageError(f"--report should name a file in a folder that exists, found '{report}'")
    config.stash[MEASUREMENTS] = []


def pytest_collection_modifyitems(config, items):
    """Skip slow tests, and those of full size, unless they are asked for by name."""
    if any("::" in argument for argument in config.args):
        return
    for marker in ("slow", "full_size"):
        if marker not in config.getoption("-m"):
            for item in filter(lambda item: marker in item.keywords, items):
                item.add_marker(pytest.mark.skip(reason=f"run with -m {marker}"))


@pytest.fixture(scope="session", autouse=True)
def one_thread(request):
    """On small models threads wait for each other longer than one alone takes."""
    if request.config.getoption("--checkpoint") or "full_size" in request.config.getoption("-m"):
        yield
        return
    torch.set_num_threads(1)
    with blas.on_one_thread():
        yield


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Say aloud what was measured, and what was not proved here, and why; write the report."""
    measurements = config.stash[MEASUREMENTS]
    if measurements:
        terminalreporter.section("measured of the checkpoint")
        for line in checkpoint_report.summary(measurements):
            terminalreporter.write_line(line)
    report = config.getoption("--report")
    if report is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        tests = checkpoint_tests(terminalreporter.stats)
        document = checkpoint_report.document(checkpoint_folder(config), measurements, tests)
        checkpoint_report.write(config.invocation_params.dir / report, document)
        terminalreporter.write_line(f"report: {len(tests)} checkpoint tests, written to {report}")
    elif report is not None:
        terminalreporter.write_line(f"report: not written to {report}, since the run did not end", red=True)
    reasons = {}
    for outcome in ("skipped", "xfailed"):
        for skipped in terminalreporter.stats.get(outcome, []):
            reason = reason_of(skipped)
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"NOT PROVED HERE: {count} tests ({reason})", yellow=True)


def checkpoint_tests(stats):
    """Return name, outcome and reason of every test that ran on the checkpoint."""
    tests = []
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in stats.get(outcome, []):
            if "checkpoint" not in getattr(report, "fixturenames", ()):
                continue
            tests.append({"test": report.nodeid, "outcome": outcome, "reason": reason_of(report)})
    return tests


def reason_of(report):
    """Return why a test was skipped or has failed, without the path of a source file; None if it has passed."""
    if report.outcome == "skipped":
        return getattr(report, "wasxfail", "") or report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash else report.longrepr and str(report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Let a test's report know its fixtures: those with ``checkpoint`` are told in the written report."""
    report = yield
    report.fixturenames = item.fixturenames
    return report


def checkpoint_folder(config):
    """Return the folder the checkpoint tests run on."""
    folder = config.getoption("--checkpoint")
    return npgemma.embedded_checkpoint() if folder is None else config.invocation_params.dir / folder


@pytest.fixture(scope="session")
def checkpoint(request):
    """The folder the checkpoint tests run on."""
    return checkpoint_folder(request.config)


@pytest.fixture(scope="session")
def measurements(request):
    """What the summary prints and the report holds: dictionaries, in the order of the tests."""
    return request.config.stash[MEASUREMENTS]


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory):
    """A checkpoint of random weights in the hub's layout with a tokenizer: everything but a trained model."""
    return write_random_folder(tmp_path_factory.mktemp("random"), CONFIGS["two key/value heads"])


@pytest.fixture(scope="session")
def gemma_2_folder(tmp_path_factory):
    """The same of PaliGemma 2."""
    return write_random_folder(tmp_path_factory.mktemp("gemma_2"), GEMMA_2)


@pytest.fixture
def copied(random_folder, tmp_path):
    """The same folder, to be damaged."""
    return shutil.copytree(random_folder, tmp_path / "copied")


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """An image file."""
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)).save(path)
    return path
