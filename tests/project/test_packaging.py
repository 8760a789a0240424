"""pyproject.toml: the wheel holds every package and every file that the packages read."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
CHECKOUT_ONLY = {"tiny.training"}


def folders():
    """Every package of the checkout, by its dotted name."""
    found = [
        path for name in ("npgemma", "torch_ref", "conversion", "tiny") for path in (ROOT / name).rglob("__init__.py")
    ]
    return {".".join(path.parent.relative_to(ROOT).parts) for path in found}


def test_every_package_is_in_the_wheel():
    assert set(SETUPTOOLS["packages"]) == folders() - CHECKOUT_ONLY | {"npgemma_pytest"}


def test_every_file_that_is_not_python_is_in_the_wheel():
    packed = {path for pattern in SETUPTOOLS["package-data"]["npgemma"] for path in (ROOT / "npgemma").glob(pattern)}
    files = {path for path in (ROOT / "npgemma").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files
    assert files == packed
