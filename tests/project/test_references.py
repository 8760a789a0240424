"""Names and paths in docstrings, comments and documents lead somewhere."""

import ast
import importlib
import pkgutil
import re

import pytest
from support import ROOT

PACKAGES = [p for name in ("npgemma", "torch_ref", "conversion") for p in sorted((ROOT / name).rglob("*.py"))]
FILES = {
    "packages": PACKAGES,
    "documents": [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    # Tests of the project name files that must not be there.
    "tests": [path for path in sorted((ROOT / "tests").rglob("*.py")) if path.parent.name != "project"],
}
NAME = re.compile(r"(?<![\w/.-])((?:npgemma|torch_ref|conversion)(?:\.(?!py\b)[A-Za-z_]\w*)+)")
OLD = "renamed.py"  # lists the names that have moved
PATH = re.compile(r"(?<![\w/.-])((?:npgemma|torch_ref|conversion|tests|docs|examples|fast|tiny)/[\w/.-]*[\w/])")


def resolves(name):
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.filterwarnings("error:.*the old name goes:DeprecationWarning")
@pytest.mark.parametrize("files", FILES)
def test_dotted_names(files):
    found = [(path, name) for path in FILES[files] for name in NAME.findall(path.read_text()) if path.name != OLD]
    assert len(found) > 10
    assert not [(path, name) for path, name in found if not resolves(name)]


def test_bare_names():
    """A name in single backticks is one of the module itself, or of a class in it."""
    stale = []
    for path in PACKAGES:
        if path.name == "__main__.py":
            continue
        own = vars(importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
        known = {*own, *(name for each in own.values() if isinstance(each, type) for name in vars(each))}
        for node in ast.walk(ast.parse(path.read_text())):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            text = (documented and ast.get_docstring(node)) or ""
            stale += [(path, name) for name in re.findall(r"(?<!`)`(\w+)`(?!`)", text) if name not in known]
    assert not stale


@pytest.mark.parametrize("files", FILES)
def test_paths(files):
    found = [(path, name) for path in FILES[files] for name in PATH.findall(path.read_text())]
    assert len(found) > 10
    assert not [(path, name) for path, name in found if not (ROOT / name).exists() | (ROOT / "npgemma" / name).exists()]
