"""The source of the functions that ran, and of their twins, with the lines in which they differ."""

import ast
import difflib
import importlib.util
import pathlib
import textwrap

import npgemma
from npgemma.axes import suffix
from npgemma.explain.highlighting import highlighted

PACKAGES = ("npgemma", "torch_ref")
# Of functions that are not recorded, those that a section of the page is about.
AROUND = (("generate", "generate"), ("generate", "greedy"), ("generate", "sample"), ("answer", "find_objects"))


def functions(calls):
    """Return every function that ran, in the order in which they were called first, and those around them.

    Parameters
    ----------
    calls : dict of str to (str, str)
        The file and the function of each path of calls: those of `npgemma.explain.inference.Recording`.

    Returns
    -------
    list of dict
        ``file``, ``name``, ``paths`` (of the calls), ``doc``; ``rebound``, the names that a loop binds again, each with
        the call and that call's result; and ``reference`` and ``twin``: ``line`` (the first line's number), ``lines``
        (`npgemma.explain.highlighting.highlighted`), ``changed`` (numbers of the lines that the other does not have).
    """
    paths = {}
    for path, where in calls.items():
        paths.setdefault(where, []).append(path)
    return [_function(*where, paths.get(where, [])) for where in [*paths, *AROUND]]


def _function(file, name, paths):
    """Return what the page shows of one function."""
    reference, twin = (_source(package, file, name) for package in PACKAGES)
    marked = changed(reference["code"], twin["code"]) if twin else ([], [])
    return {
        "file": file,
        "name": name,
        "paths": paths,
        "doc": reference["doc"],
        "rebound": reference["rebound"],
        "reference": _side(reference, marked[0]),
        "twin": twin and _side(twin, marked[1]),
    }


def _side(source, changed):
    """Return the code of one package, and the numbers of its lines that the other does not have."""
    return {"line": source["line"], "lines": [highlighted(line) for line in source["code"]], "changed": changed}


def _source(package, file, name):
    """Return a function's docstring and code lines, without importing its file; None if there is no such function."""
    folder = _folder(package)
    path = folder and folder / f"{file}.py"
    if not path or not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    functions = {n.name: n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)}
    if name not in functions:
        return None
    node, lines = functions[name], text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    code = lines[first - 1 : node.end_lineno]
    doc = ast.get_docstring(node) or ""
    if doc:
        string = node.body[0]
        code = lines[first - 1 : string.lineno - 1] + lines[string.end_lineno : node.end_lineno]
    code = textwrap.dedent("\n".join(code)).splitlines()
    return {"line": first, "code": code, "doc": doc, "rebound": _rebound(node, functions)}


def _rebound(node, functions):
    """Return the arrays that a function's loops bind to the results of calls: name to call and result.

    A recording keeps the first value of a name; the later ones are the results of these calls.
    """
    found = {}
    loops = (loop for loop in ast.walk(node) if isinstance(loop, ast.For))
    for statement in (each for loop in loops for each in loop.body if isinstance(each, ast.Assign)):
        target, call = statement.targets[0], getattr(statement.value, "func", None)
        last = functions[call.id].body[-1] if getattr(call, "id", None) in functions else None
        result = getattr(getattr(last, "value", None), "id", "")
        if suffix(getattr(target, "id", "")) and suffix(result):
            found[target.id] = [call.id, result]
    return found


def _folder(package):
    """Return the folder of a package, without importing it."""
    if package == "npgemma":
        return pathlib.Path(npgemma.__file__).parent
    spec = importlib.util.find_spec(package)
    return pathlib.Path(spec.origin).parent if spec and spec.origin else None


def changed(lines, others):
    """Align two lists; return, for each, which of its items the other does not have, by place."""
    apart = ([], [])
    for kind, *ends in difflib.SequenceMatcher(None, lines, others, autojunk=False).get_opcodes():
        if kind != "equal":
            apart[0].extend(range(ends[0], ends[1]))
            apart[1].extend(range(ends[2], ends[3]))
    return apart
