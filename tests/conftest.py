"""What all tests share: small models with every axis of another size, and the checkpoint the suite runs on."""

import contextlib
import pathlib
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

# The rooms of tests/ are named like the packages they test: the packages come first.
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / folder) for folder in (".", "tests", "reports")]

from support import CONFIGS, GEMMA_2, write_random_folder

import npgemma
import npgemma_pytest
from npgemma.fast import blas


def pytest_addoption(parser):
    """Declare the options where the project is not installed; `--checkpoint DIR` must be one word, with `=`, then."""
    with contextlib.suppress(ValueError):  # they are known
        npgemma_pytest.declare(parser)


def pytest_configure(config):
    """Refuse a folder that is none before any test is run."""
    folder = config.getoption("--checkpoint")
    if folder is not None and not (config.invocation_params.dir / folder).is_dir():
        raise pytest.UsageError(f"--checkpoint should name a checkpoint's folder; at '{folder}' there is none")
    if config.getoption("--report") is not None:
        raise pytest.UsageError("--report is an option of python cli.py parity now: --checkpoint DIR --report FILE")


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


def pytest_terminal_summary(terminalreporter):
    """Say aloud what was not proved here, and why."""
    reasons = {}
    for skipped in terminalreporter.stats.get("skipped", []):
        reason = skipped.longrepr[2].removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"NOT PROVED HERE: {count} tests ({reason})", yellow=True)


@pytest.fixture(scope="session")
def checkpoint(request):
    """The folder the checkpoint tests run on."""
    folder = request.config.getoption("--checkpoint")
    return npgemma.embedded_checkpoint() if folder is None else request.config.invocation_params.dir / folder


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
