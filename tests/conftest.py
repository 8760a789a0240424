"""What all tests share: small models with every axis of another size, and the checkpoint the suite runs on."""

import dataclasses
import pathlib
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

# The rooms of tests/ are named like the packages they test: the packages come first.
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / folder) for folder in (".", "tests", "reports")]

import plugin
from support import CONFIGS

import conversion
import npgemma
from conversion.vocabulary import write_tokenizer


def pytest_addoption(parser, pluginmanager):
    """Declare the options where the project is not installed; `--checkpoint DIR` must be one word, with `=`, then."""
    if not pluginmanager.has_plugin("npgemma"):
        plugin.pytest_addoption(parser)


def pytest_configure(config):
    """Refuse a folder that is none before any test is run."""
    folder = config.getoption("--checkpoint")
    if folder is not None and not (config.invocation_params.dir / folder).is_dir():
        raise pytest.UsageError(f"--checkpoint should name a checkpoint's folder; at '{folder}' there is none")


def pytest_collection_modifyitems(config, items):
    """Leave slow tests out unless they are asked for by name."""
    if "slow" in config.getoption("-m") or any("::" in argument for argument in config.args):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long: run with -m slow"))


def pytest_terminal_summary(terminalreporter):
    """Say aloud what was not proved here, and why."""
    reasons = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
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
    folder = tmp_path_factory.mktemp("random")
    sentences = ["a small red circle and a large blue square", "answer en how many objects", "caption en"] * 5
    pieces = write_tokenizer(folder / "tokenizer.model", sentences)
    config = CONFIGS["two key/value heads"]
    text = dataclasses.replace(config.text, vocabulary=pieces + 13, context_length=96)
    config = dataclasses.replace(config, text=text, image_token=pieces)
    conversion.save(folder, conversion.random_params(config, 0), config)
    return folder


@pytest.fixture
def copied(random_folder, tmp_path):
    """The same folder, to be damaged."""
    return shutil.copytree(random_folder, tmp_path / "copied")


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    """A picture file."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)).save(path)
    return path
