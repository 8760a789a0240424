"""The two packages mirror each other: same files, functions, arguments and local names; docstrings are said once."""

import ast
import inspect
import subprocess
import sys

import pytest
from generated.reading_path import changed_lines
from support import ROOT

from npgemma.probe.following import FILES

# Files that are not twins: what is around the functions differs; npgemma has blocks and gradients in other rooms.
OTHERS = ("__init__", "autograd", "backend", "blocks", "static")
TWINS = sorted(p.stem for p in (ROOT / "torch_ref").glob("*.py") if p.stem not in OTHERS)
# What torch needs and NumPy does not.
ONLY_IN_TWIN = "at_least_float32"


def parsed(package, module):
    return ast.parse((ROOT / package / f"{module}.py").read_text())


def definitions(package, module):
    """Classes, functions and methods of a file: name, arguments, local names and lines of the docstring of each."""
    found = []
    for node in ast.walk(parsed(package, module)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name != ONLY_IN_TWIN:
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            arguments = ast.unparse(getattr(node, "args", []))
            found.append((node.name, arguments, names, (ast.get_docstring(node) or "").splitlines()))
    return found


@pytest.mark.parametrize("module", TWINS)
def test_functions_arguments_and_local_names_are_the_same(module):
    kept = 2 if module == "ops" else 3  # there the bodies differ
    ours, theirs = ([each[:kept] for each in definitions(package, module)] for package in ("npgemma", "torch_ref"))
    assert ours == theirs


@pytest.mark.parametrize("module", TWINS)
def test_a_twins_docstring_is_the_references_first_line_and_what_differs(module):
    for (name, *_, ours), (*_, theirs) in zip(*(definitions(package, module) for package in ("npgemma", "torch_ref"))):
        assert theirs[:1] == ours[:1], name
        assert not set(filter(None, theirs[1:])) & set(ours), f"{name}: say once, in the reference, what both do"
    first = ast.get_docstring(parsed("torch_ref", module)).partition("\n")[0]
    assert first == f"The twin of ``npgemma/{module}.py``, which explains what both do."


def test_every_file_of_the_forward_pass_has_a_twin():
    assert {*FILES, "ops", "cache", "generate"} == set(TWINS)


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


@pytest.mark.parametrize("module", [m for m in TWINS if m not in ("ops", "generate")])
def test_the_diff_is_short(module):
    """Layers differ in a few lines of code only; ops is where the backends really differ."""
    changed = changed_lines(f"{module}.py")
    assert len(changed) <= 9, changed


def test_importing_npgemma_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import npgemma; npgemma.load(); print('loaded')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "loaded\n", result.stderr


# The rooms from the bottom up, and what each may import. Above all of them are cli.py, every __main__.py, reports/ and
# tests/: none of them may be imported.
_MODEL = {"npgemma.fast", "npgemma.files", "npgemma", "npgemma.machinery"}
_INSIDE = _MODEL | {"torch_ref", "conversion", "npgemma.probe", "npgemma.backward"}
ROOMS = {
    "npgemma/fast": {"npgemma.fast"},
    "npgemma/files": {"npgemma.files", "npgemma"},
    "npgemma": {"npgemma", "npgemma.fast", "npgemma.files"},
    "npgemma/machinery": _MODEL,
    "npgemma/backward": _MODEL | {"npgemma.backward"},
    "npgemma/probe": _MODEL | {"npgemma.probe"},
    "torch_ref": _MODEL | {"npgemma.probe", "torch_ref"},
    "conversion": _MODEL | {"conversion"},
    "npgemma/porting": _INSIDE | {"npgemma.porting"},
    "npgemma/explain": _INSIDE | {"npgemma.porting", "npgemma.explain"},
    "npgemma/benchmarks": _INSIDE | {"npgemma.benchmarks"},
    "npgemma/command": _INSIDE | {f"npgemma.{room}" for room in ("porting", "explain", "benchmarks", "command")},
    "tiny": _INSIDE | {"npgemma.command", "tiny"},
}
# What each room imports from outside.
LIBRARIES = {"numpy", "safetensors", "sentencepiece", "PIL"} | set(sys.stdlib_module_names)
MORE_LIBRARIES = {"torch_ref": {"torch"}, "tiny": {"torch", "matplotlib"}}
# The exceptions: a loader knows of checkpoints, inside its function; the package hands out what users need.
LOADERS = {("npgemma/machinery", "loading.py"), ("torch_ref", "__init__.py")}
PACKAGE = {("npgemma", "__init__.py"): {"npgemma.machinery", "npgemma.probe"}}
PACKAGE |= {("npgemma/machinery", "generation.py"): {"npgemma.command"}}  # an answer draws as --annotate does


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
    allowed = ROOMS[room] | LIBRARIES | MORE_LIBRARIES.get(room, set())
    found = 0
    for path in (ROOT / room).glob("*.py") if room == "npgemma" else (ROOT / room).rglob("*.py"):
        place = (room, path.name)
        exception = ({"conversion"} if place in LOADERS else set()) | PACKAGE.get(place, set())
        if path.name != "__main__.py":
            rooms = {room_of(name) for name in imported(path)}
            assert rooms <= allowed | exception, f"{path}: {sorted(rooms - allowed - exception)}"
            found += len(rooms)
    assert found > 3


def test_every_folder_is_a_room():
    assert {f"npgemma/{path.parent.name}" for path in (ROOT / "npgemma").glob("*/__init__.py")} < set(ROOMS)


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
