"""pyproject.toml: the wheel holds every file that the packages read."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]


@pytest.mark.parametrize("package", ["npgemma", "conversion", "torch_ref"])
def test_every_file_that_is_not_python_is_in_the_wheel(package):
    packed = {path for pattern in DATA[package] for path in (ROOT / package).glob(pattern)}
    files = {path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert ROOT / package / "py.typed" in files
    assert files == packed
