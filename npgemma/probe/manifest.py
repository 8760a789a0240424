"""The manifest of a trace: what every array is and what it was made from, told by the source that made it.

An array's formula is the statement that bound it. The statement's syntax tree says which operations it has, and the
objects themselves say which recorded arrays and which weights went in. So nothing here is a second description of the
model, which could go stale.
"""

import ast
import dataclasses
import hashlib
import json
import math
import pathlib
import re
import weakref
from typing import Any

import npgemma
from npgemma.axes import suffix
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.machinery.backend import to_numpy
from npgemma.params import leaves

ROOT = pathlib.Path(npgemma.__file__).parent.parent
FORMAT = 1
OPERATORS = {"Add": "add", "Sub": "subtract", "Mult": "multiply", "Div": "divide", "BitAnd": "and", "BitOr": "or"}
# What an array says of itself is nothing that another array is made from.
ABOUT = ("dtype", "shape", "ndim", "device")
# No array of ours has more.
MOST_AXES = 6
# How two right programs may differ in an array of this name.
GAUGES = {
    "position_BT": "origin: scores depend on differences only, so positions may be counted from 0 or from 1",
    "angle_BTh": "origin: as the positions",
    "masked_BKGTS": "fill: a masked score may be any number whose exponential is 0",
    "ids_BT": "dtype: any kind of whole number",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the manifest says of one array.

    Parameters
    ----------
    name, axes : str
    shape : tuple of int
    op : str
        The outermost operation: ``einsum``, ``rms_norm``, ``add``. ``input`` for what comes from outside the forward
        pass, ``same`` for another name of one array, ``opaque`` where the source does not tell.
    ops : tuple of str
        All operations, from the inside out.
    inputs : tuple of str
        Names of the recorded arrays that it was made from.
    weights : tuple of str
        Names of weights, as `npgemma.params.leaves` gives them.
    file : str
        With the line: ``npgemma/gemma.py:128``.
    formula : str
        The statement; for an argument, what the caller wrote in its place.
    same_as : str or None
        The first name of the very same array.
    gauge : str or None
        How it may differ in a right program.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    op: str
    ops: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    file: str = ""
    formula: str = ""
    same_as: str | None = None
    gauge: str | None = None

    def as_json(self):
        """Return it as it stands in a trace."""
        return {("from" if key == "inputs" else key): value for key, value in dataclasses.asdict(self).items()}


# The shape (`npgemma.files.shapes.check`) of a manifest, as far as it is read again.
ENTRY = {
    **dict.fromkeys(("name", "axes", "op", "file", "formula"), str), **dict.fromkeys(("same_as", "gauge"), (str, None)),
    "shape": [int], "ops": [str], "from": [str], "weights": [str],
}  # fmt: skip
SHAPE = {"format": int, "checkpoint": str, "dtype": str, "ids": [int], "answer": [int], "arrays": [ENTRY]}
NAME = re.compile(r"(\w{1,80}\.\d{1,9}/){1,12}\w{1,80}", re.ASCII)


def read_entries(listed: list[dict[str, Any]], shapes: dict[str, tuple[int, ...]], source: str) -> dict[str, Entry]:
    """Return the entries of a manifest by name; InputError, which names the ``source``, if one is none that `Manifest`
    writes of the arrays of these ``shapes``, or there are two of a name. A trace need not hold all arrays: what is told
    of others, or of later ones, is left out.
    """
    entries: dict[str, Entry] = {}
    for each in listed:
        name, axes, shape = each["name"], each["axes"], tuple(each["shape"])
        ours = NAME.fullmatch(name) and suffix(name.rpartition("/")[2]) == axes
        fits = len(set(axes)) == len(shape) == len(axes) <= MOST_AXES and 0 not in shape and shapes.get(name) == shape
        if not ours or not fits or name in entries:
            found = f"{shown(name, 80)} with axes {shown(axes, 40)} and shape {shown(shape, 80)}"
            raise InputError(f"{source} has an entry that does not fit the file, {found}: write the trace again")
        first = {
            other: entries[other].same_as or other for other in [*each["from"], each.get("same_as")] if other in entries
        }
        told = {key: tuple(value) if isinstance(value, list) else value for key, value in each.items() if key in ENTRY}
        told["inputs"] = tuple(first[other] for other in told.pop("from") if other in first)
        entries[name] = Entry(**told | {"same_as": first.get(told.get("same_as"))})
    return entries


class Manifest:
    r"""Collects an `Entry` for each array of a run: pass `watch` to `npgemma.record`.

    Parameters
    ----------
    params : npgemma.params.Params
        Weights of the model that runs.

    Examples
    --------
    >>> import npgemma
    >>> model = npgemma.load()
    >>> manifest = Manifest(model.params)
    >>> with npgemma.record(watch=manifest.watch) as trace:
    ...     answer = model.generate(npgemma.example_image(), "caption en", max_new_tokens=1)
    >>> entry = manifest.entries["prefill.0/run_blocks.0/block.1/mid_BTD"]
    >>> print(entry.formula, entry.op, *entry.inputs, sep="\n")
    mid_BTD = x_BTD + attn_out_BTD
    add
    prefill.0/run_blocks.0/block.0/out_BTD
    prefill.0/run_blocks.0/block.1/grouped_query_attention.0/out_BTD
    """

    def __init__(self, params):
        self.entries = {}
        # The tree is kept: an id stands for an object only as long as that object lives.
        self.params, self.weight_names = params, {id(leaf): name for name, _, leaf in leaves(params)}
        self.known = {}  # id of an array: a weak reference to it, and its first name
        self.results = {}  # path of a call: the name of the array that it returns
        self.newest = {}  # (path of a caller, function): path of its newest call

    def watch(self, name, value, statement):
        """Take an array as it is recorded."""
        path, _, variable = name.rpartition("/")
        self._enter(path, statement.source)
        entry = Entry(name, suffix(variable), tuple(value.shape), "input", gauge=GAUGES.get(variable))
        if statement.written:
            entry = dataclasses.replace(entry, file=statement.file, formula=statement.formula)
        same_as = self.name_of(value)
        if same_as:
            entry = dataclasses.replace(entry, op="same", inputs=(same_as,), same_as=same_as)
        elif statement.expression:
            made = _Made(self, statement)
            made.visit(statement.expression)
            op = made.ops[-1] if made.ops else "opaque"
            parts = {"ops": made.ops, "inputs": made.inputs, "weights": made.weights}
            entry = dataclasses.replace(entry, op=op, **{key: tuple(dict.fromkeys(all)) for key, all in parts.items()})
        self.entries[name] = entry
        if same_as is None:
            self.known[id(value)] = weakref.ref(value), name

    def name_of(self, value):
        """Return the first name of an array, or None if it is not a recorded one."""
        reference, name = self.known.get(id(value), (None, None))
        # An id is used again when its object is gone.
        return name if reference and reference() is value else None

    def _enter(self, path, source):
        """Note a call, when the first of its arrays comes."""
        if path not in self.results:
            self.results[path] = f"{path}/{source.result}"
            caller, _, call = path.rpartition("/")
            self.newest[caller, call.partition(".")[0]] = path

    def as_json(self, words, budget_of, **about):
        """Return the whole manifest as text.

        Parameters
        ----------
        words : dict of str to str
            The dtype of each array in the file, such as ``F32``.
        budget_of : callable
            ``budget_of(entry, equal)`` says how far a port's array may be off: `npgemma.porting.bounds.budget_of`.
        **about
            What is to stand in front.
        """
        arrays, offset = [], 0
        for name, word in words.items():
            entry = self.entries[name]
            equal = word[0] not in "FB" or word == "BOOL"
            arrays.append(entry.as_json() | {"dtype": word, "offset": offset, "budget": budget_of(entry, equal)})
            offset += math.prod(entry.shape) * BYTES[word]
        return json.dumps({"format": FORMAT, **about, "arrays": arrays})


BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def checkpoint_hash(params):
    """Return a hash by which two programs can tell whether they hold the same weights.

    SHA-256 over each weight's name, shape and, as little-endian float32, at most 4096 evenly spaced numbers.

    Parameters
    ----------
    params : npgemma.params.Params

    Returns
    -------
    str
    """
    digest = hashlib.sha256()
    for name, _, leaf in leaves(params):
        flat = to_numpy(leaf).reshape(-1)
        digest.update(f"{name} {tuple(leaf.shape)}".encode())
        digest.update(flat[:: -(-flat.size // 4096)].astype("<f4").tobytes())
    return f"sha256:{digest.hexdigest()}"


class _Made(ast.NodeVisitor):
    """What an expression is made from, in the call that evaluates it."""

    def __init__(self, manifest, statement):
        self.manifest, self.scope, self.path = manifest, statement.scope, statement.path
        self.assigned = statement.place.assigned
        self.ops, self.inputs, self.weights, self.expanded = [], [], [], set()

    def visit_Call(self, node):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        called = self.manifest.newest.get((self.path, function))
        if called:
            self.inputs.append(self.manifest.results[called])
            return
        if isinstance(node.func, ast.Attribute):
            self.visit(node.func.value)
        for argument in [*node.args, *(word.value for word in node.keywords)]:
            self.visit(argument)
        if function:
            self.ops.append(function)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        self.ops.append(OPERATORS.get(type(node.op).__name__, type(node.op).__name__.lower()))

    def visit_Subscript(self, node):
        self.generic_visit(node)
        self.ops.append("select")

    def visit_Compare(self, node):
        self.generic_visit(node)
        self.ops.append("compare")

    def visit_IfExp(self, node):
        # The test chooses between arrays and is not one of them.
        self.visit(node.body)
        self.visit(node.orelse)

    def visit_Attribute(self, node):
        value = _value(node, self.scope)
        if id(value) in self.manifest.weight_names:
            self.weights.append(self.manifest.weight_names[id(value)])
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [self.manifest.weight_names.get(id(leaf)) for _, _, leaf in leaves(value)]
            self.weights += [name for name in names if name]
        elif node.attr not in ABOUT:
            self.visit(node.value)

    def visit_Name(self, node):
        value = self.scope.get(node.id)
        known = self.manifest.name_of(value)
        if known:
            self.inputs.append(known)
        elif suffix(node.id) and f"{self.path}/{node.id}" in self.manifest.entries:
            self.inputs.append(f"{self.path}/{node.id}")
        elif node.id not in self.expanded:
            self.expanded.add(node.id)
            if node.id in self.assigned:
                self.visit(self.assigned[node.id])


def _value(node, scope):
    """Return what a chain of attributes stands for, or None."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, scope), node.attr, None)
    return None
