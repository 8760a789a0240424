"""The two packages mirror each other: same files, functions, arguments, local names and docstrings."""

import ast
import difflib
import inspect
import re
import subprocess
import sys

import pytest
from support import ROOT

from npgemma.axes import suffix

# Files that are not twins: what is around the functions differs, npgemma has its blocks in fast/, and no static shapes.
OTHERS = ("__init__", "backend", "blocks", "static")
TWINS = sorted(p.stem for p in (ROOT / "torch_ref").glob("*.py") if p.stem not in OTHERS)
# Where NumPy spells out what torch has, or torch needs what NumPy does not.
ONLY_IN_ONE = {("torch_ref", "ops", "at_least_float32")}


def functions(package, module):
    """Public functions and methods of a file: name to (arguments, docstring, local names)."""
    tree = ast.parse((ROOT / package / f"{module}.py").read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (package, module, node.name) not in ONLY_IN_ONE:
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            found[node.name] = [a.arg for a in node.args.args], ast.get_docstring(node), names
    return found


def without_examples(docstring):
    """A docstring without its examples: those are NumPy's, and run there."""
    return docstring and re.sub(r"\n\nExamples\n-+\n.*", "", docstring, flags=re.S)


@pytest.mark.parametrize("module", TWINS)
def test_functions_arguments_and_docstrings_are_the_same(module):
    ours, theirs = functions("npgemma", module), functions("torch_ref", module)
    assert list(ours) == list(theirs)
    for name, (arguments, docstring, names) in ours.items():
        assert theirs[name][0] == arguments, name
        if module != "ops":  # there the bodies differ, and what is said of bfloat16 with them
            assert theirs[name][1] == without_examples(docstring), name
            assert theirs[name][2] == names, name


def recorded(package):
    """Files of a package that `npgemma.record` follows and that have functions of named arrays."""
    found = set()
    for path in (ROOT / package).glob("*.py"):
        tree = ast.parse(path.read_text())
        skipped = any(isinstance(n, ast.Assign) and ast.unparse(n) == "RECORDED = False" for n in tree.body)
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        if not skipped and any(suffix(a.arg) for function in functions for a in function.args.args):
            found.add(path.stem)
    return found


def test_every_file_of_the_forward_pass_has_a_twin_and_is_recorded():
    """Whoever adds a file of the model gets both by default; what is not to be recorded says so in the file."""
    assert recorded("npgemma") == recorded("torch_ref")
    assert recorded("npgemma") | {"ops", "cache", "generate"} == set(TWINS)
    assert len(recorded("npgemma")) >= 9


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


# The rooms from the bottom up, and what each may import; cli.py and every __main__.py are above all of them.
_MODEL = {"npgemma.fast", "npgemma.files", "npgemma", "npgemma.machinery"}
_INSIDE = _MODEL | {"torch_ref", "conversion", "npgemma.probe"}
ROOMS = {
    "npgemma/fast": {"npgemma.fast"},
    "npgemma/files": {"npgemma.files", "npgemma"},
    "npgemma": {"npgemma", "npgemma.fast", "npgemma.files"},
    "npgemma/machinery": _MODEL,
    "npgemma/probe": _MODEL | {"npgemma.probe"},
    "torch_ref": _MODEL | {"npgemma.probe", "torch_ref"},
    "conversion": _MODEL | {"conversion"},
    "npgemma/porting": _INSIDE | {"npgemma.porting"},
    "npgemma/explain": _INSIDE | {"npgemma.porting", "npgemma.explain"},
    "npgemma/benchmarks": _INSIDE | {"npgemma.benchmarks"},
    "npgemma/command": _INSIDE | {f"npgemma.{room}" for room in ("porting", "explain", "benchmarks", "command")},
}
# What each room imports from outside.
LIBRARIES = {"numpy", "safetensors", "sentencepiece", "PIL"} | set(sys.stdlib_module_names)
# The exceptions: a loader knows of checkpoints, inside its function; the package hands out what users need.
LOADERS = {("npgemma/machinery", "loading.py"), ("torch_ref", "__init__.py")}
PACKAGE = {("npgemma", "__init__.py"): {"npgemma.machinery", "npgemma.probe"}}


def imported(path):
    """Yield the full name of every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """Return the room of a module: ``npgemma.fast`` for ``npgemma.fast.int8.quantize``."""
    parts = name.split(".")
    inner = parts[0] == "npgemma" and "/".join(parts[:2]) in ROOMS
    return ".".join(parts[: 2 if inner else 1])


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    allowed = ROOMS[room] | LIBRARIES | ({"torch"} if room == "torch_ref" else set())
    found = 0
    for path in (ROOT / room).glob("*.py") if room == "npgemma" else (ROOT / room).rglob("*.py"):
        place = (room, path.name)
        exception = ({"conversion"} if place in LOADERS else set()) | PACKAGE.get(place, set())
        if path.name != "__main__.py":
            rooms = {room_of(name) for name in imported(path)}
            assert rooms <= allowed | exception, f"{path}: {sorted(rooms - allowed - exception)}"
            found += len(rooms)
    assert found > 3


def test_the_loaders_import_conversion_inside_their_function():
    for folder, name in LOADERS:
        top = ast.parse((ROOT / folder / name).read_text()).body
        names = [ast.unparse(node) for node in top if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert not [line for line in names if "conversion" in line]


def test_both_backends_are_loaded_alike():
    import npgemma
    import torch_ref

    ours, theirs = inspect.signature(npgemma.load), inspect.signature(torch_ref.load)
    assert ours == theirs
    kinds = {name: parameter.kind for name, parameter in ours.parameters.items()}
    assert kinds.pop("path") == inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}
