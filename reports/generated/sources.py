"""The source files that documents speak of: their lines of code, and links to them."""

import ast
import importlib.util
import json
import pathlib

from generated import ROOT


def path_of(module):
    """Return the file of a module, such as ``npgemma.gemma``."""
    return pathlib.Path(importlib.util.find_spec(module).origin)


def link(name, function=""):
    """Return a link from docs/ to a module of npgemma, or to a function in it: without its line, which moves."""
    target = path_of(f"npgemma.{name}").relative_to(ROOT)
    return f"[`{name}.{function}`](../{target})" if function else f"[`{name}`](../{target})"


def code(path):
    """Return the lines of a file that are neither blank, comment nor docstring."""
    text = path.read_text()
    hidden = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            hidden |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return [line for i, line in lines if i not in hidden and line.strip() and not line.strip().startswith("#")]


def report(name):
    """Return a measured report, which another program wrote beside this folder."""
    return json.loads((ROOT / "reports" / f"{name}.json").read_text())
