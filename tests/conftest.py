"""What all tests share: small models with every axis of another size, and the checkpoint the suite runs on."""

import pytest
import torch

import npgemma


def pytest_addoption(parser):
    parser.addoption(
        "--checkpoint", metavar="DIR", help="run the checkpoint tests on this folder, not the embedded one"
    )


def pytest_collection_modifyitems(config, items):
    """Leave slow tests out unless they are asked for by name."""
    if "slow" in config.getoption("-m") or any("::" in argument for argument in config.args):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="full size: run with -m slow"))


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
    return request.config.getoption("--checkpoint") or str(npgemma.embedded_checkpoint())


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return request.param
