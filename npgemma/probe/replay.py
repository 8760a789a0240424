"""Run the reference with another program's arrays in place of its own, operation by operation.

While a replay runs, every statement of the forward pass that binds a named array is followed by a question: which array
should be used from here on? Whoever asks for the replay sees what the reference has calculated, may compare it with the
other program's array, and hands back either. Handing back the other program's array means that the next operation is
calculated from that program's own input, so that errors do not add up over the layers.

The functions of the forward pass stay as they are: for the time of the replay their modules hold copies, made from
their source, with these questions in.
"""

import ast
import contextlib
import copy
import functools
import importlib
import inspect
from unittest import mock

from npgemma.axes import suffix
from npgemma.probe.exchange import changed

# The files of the forward pass, as `npgemma.record` follows them.
FILES = ("paligemma", "siglip", "projector", "gemma", "gemma2", "attention", "mask", "rope")


@contextlib.contextmanager
def replaying(choose, changes=()):
    """Ask which array to use, wherever the NumPy reference binds a named one inside a ``with`` block.

    Parameters
    ----------
    choose : callable
        ``choose(name, computed, inside)`` returns the array to go on with. Names are those of `npgemma.record`.
        ``inside`` is None but for the result of an exchanged function: what the right function made, inside of the
        wrong one.
    changes : sequence of npgemma.porting.mistakes.injection.Changes, optional
        Mistakes to make meanwhile. What a function that is exchanged returns is asked for as the wrong function returns
        it, and not as the right one inside of it does.
    """
    exchanged = {name for each in changes for name in each}
    calls = _Calls(choose, {name.rpartition(".")[2] for name in exchanged})
    modules = [importlib.import_module(f"npgemma.{file}") for file in FILES]
    copies = {}
    for module in modules:
        for name, function in _copies(module, calls).items():
            copies[getattr(module, name)] = function
    with contextlib.ExitStack() as stack:
        for module in modules:
            # Also where another file has imported the function.
            for name, value in list(vars(module).items()):
                if inspect.isfunction(value) and value in copies:
                    stack.enter_context(mock.patch.object(module, name, copies[value]))
        results = {name: _result(tree) for module in modules for name, tree in _functions(module.__name__).items()}
        for each in changes:
            stack.enter_context(changed(each))
        for path in exchanged:
            file, _, function = path.partition(".")
            if file in FILES and results.get(function):
                module = importlib.import_module(f"npgemma.{file}")
                wrong = getattr(module, function)
                stack.enter_context(
                    mock.patch.object(module, function, calls.around(wrong, function, results[function]))
                )
        yield


def _result(function):
    """Return the name of the array that a function's syntax tree returns, or None."""
    last = function.body[-1]
    name = last.value.id if isinstance(last, ast.Return) and isinstance(last.value, ast.Name) else ""
    return name if suffix(name) else None


# Marks a call whose result is asked for outside.
_RESULT = "result"


class _Calls:
    """The open calls, for the names of their arrays."""

    def __init__(self, choose, exchanged):
        self.choose, self.exchanged, self.open = choose, exchanged, [("", {}, set())]
        self.inside = {}

    @contextlib.contextmanager
    def call(self, function):
        """Name what is bound inside after a call of a function."""
        path, counts, _ = self.open[-1]
        counts[function] = counts.get(function, -1) + 1
        inside = {_RESULT} if function in self.exchanged else set()
        self.open.append((f"{path}{function}.{counts[function]}/", {}, inside))
        try:
            yield
        finally:
            self.open.pop()

    def around(self, wrong, function, variable):
        """Return a function that asks for what an exchanged function returns."""

        def asking(*arguments, **named):
            result = wrong(*arguments, **named)
            path, counts, _ = self.open[-1]
            # One that never calls the right function has no call of that name.
            name = f"{path}{function}.{counts.get(function, 0)}/{variable}"
            return self.choose(name, result, self.inside.pop(name, None))

        return asking

    def bound(self, variable, value, result=False):
        """Ask for an array; a name that a loop binds again was asked for already."""
        path, _, known = self.open[-1]
        if result and _RESULT in known:
            self.inside[path + variable] = value
            return value
        if variable in known or not hasattr(value, "shape"):
            return value
        known.add(variable)
        return self.choose(path + variable, value, None)


def _copies(module, calls):
    """Return copies of a file's functions that report to ``calls``, by name."""
    made = {}
    exec(_makers(module.__name__), vars(module), made)
    return {name: make(calls.call, calls.bound) for name, make in made.items()}


@functools.cache
def _makers(module_name):
    """Return code that defines for each function of a file one that makes its copy.

    A copy's globals are the module's own, so that it calls whatever stands there: other copies, and what else is put
    in their place. One maker for all copies would not do, for in it they would call each other.
    """
    makers = []
    for name, node in _functions(module_name).items():
        [make] = ast.parse(f"def {name}(_call, _bound): return {name}").body
        make.body.insert(0, _Reporting().of(node))
        makers.append(make)
    tree = ast.Module(makers, type_ignores=[])
    return compile(ast.fix_missing_locations(tree), importlib.import_module(module_name).__file__, "exec")


@functools.cache
def _functions(module_name):
    """Return the syntax trees of a file's public functions, by name."""
    nodes = ast.parse(inspect.getsource(importlib.import_module(module_name))).body
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


class _Reporting(ast.NodeTransformer):
    """Puts a report behind every statement that binds named arrays."""

    def of(self, function):
        """Return a copy of a function that reports its arguments and what it binds."""
        function, self.result = copy.deepcopy(function), _result(function)
        arguments = [each.arg for each in function.args.args if suffix(each.arg)]
        body = self.reports(arguments)
        for statement in function.body[1:] if ast.get_docstring(function) else function.body:
            changed = self.visit(statement)
            body += changed if isinstance(changed, list) else [changed]
        [opened] = ast.parse(f"with _call('{function.name}'): pass").body
        opened.body = body
        function.body = [opened]
        return function

    def visit_Assign(self, node):
        """Report what an assignment binds."""
        [target] = node.targets
        names = [getattr(each, "id", "") for each in getattr(target, "elts", [target])]
        return [node, *self.reports([name for name in names if suffix(name)])]

    def reports(self, names):
        """Return a statement for each name that lets it be asked for."""
        texts = [f"{name} = _bound('{name}', {name}, {name == self.result})" for name in names]
        return ast.parse("\n".join(texts)).body
