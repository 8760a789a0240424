"""A function of the forward pass, rewritten so that it tells of every named array that it binds.

The copy is made from the function's source, once. It calculates what the function does, on the lines of the same file,
so that a debugger, a profiler or coverage sees the file as it is. Behind every statement that binds a named array, and
at the start for arguments, stands one that tells of it; a call of a function that may be followed tells where it
stands. Of

    def block(x_BTD, p):
        out_BTD = x_BTD + geglu(x_BTD, p)
        return out_BTD

the copy is

    def block(x_BTD, p):
        x_BTD = _bind(0, x_BTD, locals())
        out_BTD = x_BTD + _site(0, geglu, locals())(x_BTD, p)
        out_BTD = _bind(1, out_BTD, locals())
        return out_BTD

and its arrays are recorded as ``block.0/x_BTD``, ``block.0/geglu.0/...`` and ``block.0/out_BTD``.
"""

import ast
import copy
import functools
import inspect
import pathlib
from dataclasses import dataclass, field

import npgemma
from npgemma.axes import suffix

ROOT = pathlib.Path(npgemma.__file__).parent.parent


@dataclass(frozen=True)
class Binding:
    """Where a function binds a named array.

    Parameters
    ----------
    variable : str
    statement : ast.AST or None
        None for what a loop runs through, and for an argument: that is written where the function is called.
    expression : ast.expr or None
        Of several names in one statement, the part that belongs to this one where the statement tells.
    is_argument : bool
    """

    variable: str
    statement: ast.AST | None = None
    expression: ast.expr | None = None
    is_argument: bool = False


@dataclass
class Source:
    """What the source of a function says of it.

    Parameters
    ----------
    name : str
    file : str
        From the folder above the package on: ``npgemma/gemma.py``.
    arguments : list of str
    result : str or None
        The name of the array that it returns, if it is a named one.
    assigned : dict of str to ast.expr
        What each local variable is bound to first.
    bindings : list of Binding
    sites : list of ast.Call
        The calls in it that may be followed.
    """

    name: str
    file: str
    arguments: list[str]
    result: str | None
    assigned: dict[str, ast.expr]
    bindings: list[Binding] = field(default_factory=list)
    sites: list[ast.Call] = field(default_factory=list)


@functools.cache
def rewritten(function, followed, bind, site):
    """Return the rewritten copy of a function.

    Parameters
    ----------
    function : function
        Of a module; it may be decorated.
    followed : frozenset of str
        Names of the functions whose calls are told.
    bind : callable
        ``bind(i, value, scope)`` is told of binding i, and returns the array to go on with.
    site : callable
        ``site(i, function, scope)`` is told of call i, and returns the function to call.

    Returns
    -------
    callable
        Its globals are the function's own, so that it calls what stands there.
    Source

    Raises
    ------
    RuntimeError
        If the source is not at hand.
    """
    code = inspect.unwrap(function).__code__
    node = _functions(code.co_filename).get(code.co_firstlineno)
    if node is None:
        raise RuntimeError(f"{function.__name__} cannot be followed without its source in '{code.co_filename}'")
    writer = _Rewriter(_source(node, code.co_filename), followed)
    [make] = ast.parse(f"def make(_bind, _site): return {node.name}").body
    make.body.insert(0, writer.function(node))
    names = {}
    exec(compile(ast.Module([make], []), code.co_filename, "exec"), inspect.unwrap(function).__globals__, names)
    return names["make"](bind, site), writer.source


@functools.cache
def _functions(filename):
    """Return the syntax trees of a file's functions, by the first line of their code."""
    tree = ast.parse(pathlib.Path(filename).read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    # A decorator counts as the first line of the code.
    return {min([node.lineno, *(each.lineno for each in node.decorator_list)]): node for node in nodes}


def _source(node, filename):
    path = pathlib.Path(filename)
    file = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
    result = returned[-1].id if returned and isinstance(returned[-1], ast.Name) else ""
    assigned = {}
    for each in ast.walk(node):
        for name, value in _parts(each) if isinstance(each, ast.Assign) else ():
            assigned.setdefault(name, value)
    return Source(node.name, file, [each.arg for each in node.args.args], result if suffix(result) else None, assigned)


class _Rewriter(ast.NodeTransformer):
    """Adds what is told, and notes in ``source`` what it is told of."""

    def __init__(self, source, followed):
        self.source, self.followed = source, followed

    def function(self, node):
        """Return a copy of a function that tells of its arguments and of what it binds."""
        node = copy.deepcopy(node)
        body = node.body[1:] if ast.get_docstring(node) else node.body
        told = self.told([Binding(name, is_argument=True) for name in self.source.arguments if suffix(name)], node)
        node.body = told + [each for statement in body for each in _listed(self.visit(statement))]
        return node

    def visit_Assign(self, node):
        """Tell of the named arrays that an assignment binds."""
        # Kept as it is written: what is printed is the file's own text.
        whole = copy.deepcopy(node)
        found = [Binding(name, whole, part) for name, part in _parts(whole) if suffix(name)]
        return [self.generic_visit(node), *self.told(found, node)]

    def visit_For(self, node):
        """Tell of the named arrays that a loop runs through, at the start of its body."""
        found = [Binding(name) for name in _names(node.target) if suffix(name)]
        self.generic_visit(node)
        node.body[:0] = self.told(found, node)
        return node

    def visit_Call(self, node):
        """Tell where a function is called that may be followed."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in self.followed:
            return self.generic_visit(node)
        self.source.sites.append(copy.deepcopy(node))
        site = _placed(f"_site({len(self.source.sites) - 1}, None, locals())", node).value
        self.generic_visit(node)
        site.args[1], node.func = node.func, site
        return node

    def told(self, bindings, place):
        """Return the statements that tell of some bindings, on the line of the statement that makes them."""
        statements = []
        for binding in bindings:
            self.source.bindings.append(binding)
            text = f"{binding.variable} = _bind({len(self.source.bindings) - 1}, {binding.variable}, locals())"
            statements.append(_placed(text, place))
        return statements


def _placed(text, place):
    """Return a statement with the line of another node."""
    [statement] = ast.parse(text).body
    for node in ast.walk(statement):
        ast.copy_location(node, place)
    return statement


def _listed(found):
    return found if isinstance(found, list) else [found]


def _parts(assignment):
    """Return each name that an assignment binds, with its own part of the value where the text has one for each."""
    names = [name for target in assignment.targets for name in _names(target)]
    values = getattr(assignment.value, "elts", [])
    return list(zip(names, values if len(values) == len(names) > 1 else [assignment.value] * len(names)))


def _names(target):
    """Return the names that a target of an assignment binds."""
    return [each.id for each in ast.walk(target) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
