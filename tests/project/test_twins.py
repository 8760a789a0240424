"""The two packages mirror each other: same files, functions, arguments, local names and docstrings."""

import ast
import difflib
import inspect
import subprocess
import sys

import pytest
from support import ROOT

# Files that are no twins: loading differs, and what torch decodes with for speed the port does not have.
OTHERS = ("__init__", "model", "static")
TWINS = sorted(p.stem for p in (ROOT / "torch_ref").glob("*.py") if p.stem not in OTHERS)
# Where NumPy spells out what torch has, or torch needs what NumPy does not.
ONLY_IN_ONE = {("npgemma", "ops", "widen"), ("torch_ref", "ops", "at_least_float32")}


def functions(package, module):
    """Public functions and methods of a file: name to (arguments, docstring, local names)."""
    tree = ast.parse((ROOT / package / f"{module}.py").read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (package, module, node.name) not in ONLY_IN_ONE:
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            found[node.name] = [a.arg for a in node.args.args], ast.get_docstring(node), names
    return found


@pytest.mark.parametrize("module", TWINS)
def test_functions_arguments_and_docstrings_are_the_same(module):
    ours, theirs = functions("npgemma", module), functions("torch_ref", module)
    assert list(ours) == list(theirs)
    for name, (arguments, docstring, names) in ours.items():
        assert theirs[name][0] == arguments, name
        if module != "ops":  # there the bodies differ, and what is said of bfloat16 with them
            assert theirs[name][1] == docstring, name
            assert theirs[name][2] == names, name


def test_every_file_of_the_forward_pass_has_a_twin():
    from npgemma.trace import FORWARD

    assert set(FORWARD) | {"ops", "cache", "generate"} == set(TWINS)


@pytest.mark.parametrize("package", ["npgemma", "torch_ref"])
@pytest.mark.parametrize("module", TWINS)
def test_no_forward_function_rebinds_an_argument(package, module):
    """What came in keeps its name to the end, so that a trace holds a block's input beside its output."""
    for function in ast.walk(ast.parse((ROOT / package / f"{module}.py").read_text())):
        if isinstance(function, ast.FunctionDef):
            arguments = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
            names = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            rebound = {name.id for name in names} & arguments
            assert not rebound, f"{package}/{module}.py: {function.name} binds {sorted(rebound)} anew"


@pytest.mark.parametrize("module", [m for m in TWINS if m not in ("ops", "generate", "contrastive")])
def test_the_diff_is_short(module):
    """Layers differ in a few lines only; ops is where the backends really differ."""
    ours, theirs = ((ROOT / package / f"{module}.py").read_text().splitlines() for package in ("npgemma", "torch_ref"))
    changed = [line for line in difflib.unified_diff(ours, theirs, n=0) if line[0] == "+" and line[:3] != "+++"]
    assert len(changed) <= 9, changed


def test_importing_npgemma_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import npgemma; npgemma.load(); print('loaded')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "loaded\n", result.stderr


def test_npgemma_imports_only_what_it_may():
    allowed = {"numpy", "safetensors", "sentencepiece", "PIL", "npgemma", "conversion"} | set(sys.stdlib_module_names)
    for package in ("npgemma", "conversion"):
        for path in (ROOT / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                assert {name.partition(".")[0] for name in names} <= allowed, path


def test_models_have_the_same_methods():
    import npgemma
    import torch_ref

    public = {name for name in dir(npgemma.Model) if not name.startswith("_")}
    assert public == {name for name in dir(torch_ref.Model) if not name.startswith("_")}
    ours, theirs = inspect.signature(npgemma.load).parameters, inspect.signature(torch_ref.load).parameters
    assert [name for name in theirs if name not in ("device", "static")] == list(ours)
