"""Every test asserts, itself or by a function of tests/ that it calls; none is expected to fail."""

import ast

from support import ROOT

FUNCTIONS = [
    node
    for path in (ROOT / "tests").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef)
]


def called(function):
    """Return the names of the functions that a function calls; ``assert`` is one, also for NumPy's and torch's."""
    nodes = list(ast.walk(function))
    names = {ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)}
    asserts = any(name.startswith("assert") for name in names) or any(isinstance(node, ast.Assert) for node in nodes)
    return names | {"assert"} if asserts else names


def test_every_test_asserts():
    asserting, before = {"assert", "raises", "warns", "fail"}, set()
    while asserting != before:
        before = asserting
        asserting = before | {each.name for each in FUNCTIONS if called(each) & before}
    assert {each.name for each in FUNCTIONS if each.name.startswith("test_")} <= asserting


def test_no_test_is_expected_to_fail():
    assert not [each.name for each in FUNCTIONS if "xfail" in called(each)]
