"""Does a test fail where the code is wrong? ``python reports/code_mutants.py [--count N] [--seed S] [--near]``.

Changes one operator, number, bound or returned value of the source at a time, in a copy of the checkout, and runs
tests there until one fails: those near the change, then all. Half of the mutants are in the forward pass, half outside.
Tests that compare the text of the source are left out, since any change fails them.
"""

import argparse
import ast
import itertools
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FORWARD = ("npgemma/*.py", "torch_ref/*.py")
OUTSIDE = ("conversion/*.py", "npgemma/[!b]*/**/*.py")  # without benchmarks
TEXT = ("test_twins.py", "test_generated.py", "test_readme.py", "test_exercises.py")
SECONDS = 600
PAIRS = ("< <=", "> >=", "== !=", "+ -", "* /", "and or", "min max", "minimum maximum")
SWAPS = {one: other for pair in map(str.split, PAIRS) for one, other in (pair, pair[::-1])}
SWAPS |= {"is": "is not", "is not": "is", "in": "not in", "not in": "in", "//": "*"}
OPERATOR = re.compile(rb"\*\*|<<|>>|is not|not in|<=|>=|==|!=|//|\b(?:is|in|and|or)\b|[<>+*/%@&|^-]")


def mutants(path):
    """Return path, line, start and end in bytes, old text and new text of every mutant of a file, in order."""
    source = path.read_bytes()
    lines = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]

    def span(node):
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    changes = [change for node in behaviour(ast.parse(source)) for change in changed(node, source, span)]
    texts = sorted((start, end, source[start:end].decode(), new) for start, end, new in changes)
    return [(path, source.count(b"\n", 0, text[0]) + 1, *text) for text in texts if text[2] != text[3]]


def behaviour(node):
    """Yield the nodes of a tree without messages, types and ``__all__``."""
    yield node
    names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    for child in [] if names or isinstance(node, (ast.JoinedStr, ast.Raise)) else ast.iter_child_nodes(node):
        if child not in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            yield from behaviour(child)


def changed(node, source, span):
    """Yield start, end and new text of what can be changed at a node."""
    match node:
        case ast.Compare() | ast.BinOp() | ast.BoolOp():
            operands = getattr(node, "values", None) or [node.left, *getattr(node, "comparators", ())]
            operands = operands + ([node.right] if isinstance(node, ast.BinOp) else [])
            for before, after in itertools.pairwise(operands):
                found = OPERATOR.search(source, span(before)[1], span(after)[0])
                yield *found.span(), SWAPS.get(found[0].decode(), found[0].decode())
        case ast.Constant(value=bool() | int() | float() as value):
            more = value + 1 if isinstance(value, int) else value * 1.5 or 1.0
            yield *span(node), repr(not value if isinstance(value, bool) else more)
        case ast.UnaryOp(op=ast.Not()):
            yield *span(node), f"bool({ast.unparse(node.operand)})"
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in ("min", "max", "minimum", "maximum"):
            yield span(node)[1] - len(name), span(node)[1], SWAPS[name]
        case ast.Return(value=ast.expr()):
            yield *span(node.value), "None"
        case ast.Slice():
            for bound in filter(None, (node.lower, node.upper)):
                yield *span(bound), f"({ast.unparse(bound)}) + 1"


def near_tests(path):
    """Return a file's own examples, the tests that import it, the project's left out, and those of its room."""
    name = path.relative_to(ROOT)
    room = name.parts[1] if len(name.parts) > 2 else name.parts[0]
    imports = re.compile(rf"^ *(?:from|import) .*\b{re.escape(path.stem)}\b", re.MULTILINE)
    tests = [test for test in sorted(ROOT.glob("tests/**/test_*.py")) if test.parent.name != "project"]
    importing = [test for test in tests if imports.search(test.read_text())]
    importing.sort(key=lambda test: (path.stem not in test.name, test.parent.name != room))
    room = "tests" if room in ("npgemma", "torch_ref", "machinery") else room
    near = dict.fromkeys(importing + [test for test in tests if test.parent.name == room])
    own = f"tests/project/test_doctests.py::test_examples_work_as_pasted[{name}]"
    return [own] * (b">>> " in path.read_bytes()) + [test.relative_to(ROOT).as_posix() for test in near]


def failing(copy, tests):
    """Return the first test that fails in the copy, or an empty string."""
    left_out = ["-m", "not slow and not full_size", *(f"--ignore=tests/project/{name}" for name in TEXT)]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *left_out, *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "no end"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return (failed[1] if failed else "an error") if done.returncode else ""


def main():
    """Print what becomes of each mutant, then how many were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=28)
    parser.add_argument("--near", action="store_true", help="end with the tests near the change")
    parser.add_argument("--only", metavar="FILE", help="all mutants are of this file")
    parser.add_argument("--numbers", type=int, nargs="+", help="run these of the sample")
    options = parser.parse_args()
    parts = {options.only: (options.only,)} if options.only else {"forward pass": FORWARD, "outside": OUTSIDE}
    draw, numbers, killers = random.Random(options.seed), itertools.count(1), set()
    with tempfile.TemporaryDirectory() as folder:
        ignore = shutil.ignore_patterns(".git", "__pycache__")
        copy = shutil.copytree(ROOT, pathlib.Path(folder) / "copy", ignore=ignore)
        for part, patterns in parts.items():
            paths, killed = sorted({path for pattern in patterns for path in ROOT.glob(pattern)}), []
            found = [mutant for path in paths for mutant in mutants(path)]
            chosen = sorted(draw.sample(found, min(len(found), options.count // len(parts))))
            for (path, line, start, end, old, new), number in zip(chosen, numbers):
                if number in (options.numbers or [number]):
                    name, source = path.relative_to(ROOT), path.read_bytes()
                    (copy / name).write_bytes(source[:start] + new.encode() + source[end:])
                    killer = failing(copy, near_tests(path)) or ("" if options.near else failing(copy, ["tests"]))
                    (copy / name).write_bytes(source)
                    killed.append(killer)
                    old = " ".join(old.split())[:60]
                    print(f"| {number} | {name}:{line} | `{old}` -> `{new}` | {killer or '**survived**'} |", flush=True)
            print(f"{part}: {sum(map(bool, killed))} of {len(killed)} killed", flush=True)
            killers |= {killer for killer in killed if "::" in killer}
        print("without a mutant:", (killers and failing(copy, sorted(killers))) or "all of these tests pass")


if __name__ == "__main__":
    main()
