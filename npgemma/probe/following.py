"""Follow the forward pass of either backend: who is called, what is bound, and what stands in its place.

While a `Probe` or an exchange is in force, the names of the forward functions in their modules hold a `Slot` each. A
slot asks a context variable: in the thread that asked for it (in its context) it runs the rewritten copy of the
function, or what the function was exchanged for; in any other thread it runs the function itself. When the last one
ends, the functions are back in their places, and nothing is left that would cost anything.
"""

import contextlib
import functools
import importlib
import inspect
import sys
import threading
import types
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from npgemma.fast.blocks import whole_arrays
from npgemma.probe.calls import Call, Naming, Probe, Statement
from npgemma.probe.rewriting import rewritten

PACKAGES = ("npgemma", "torch_ref")
BACKWARD = "npgemma.backward"  # has functions NAME_backward, in files of the same names
# The files of the forward pass, in both packages. What stands before it (image, tokenizer) and after it (generate,
# answer) is not followed; operations (ops) take arrays of any axes, without a name.
FILES = (
    "attention", "mask", "rope", "siglip", "projector", "gemma", "gemma2", "paligemma", "contrastive", "segmentation",
    "loss",
)  # fmt: skip


@dataclass(frozen=True)
class _State:
    """What is in force in a context."""

    probes: tuple[Probe, ...] = ()  # the innermost first
    exchanges: Mapping["Slot", tuple[Callable, ...]] = field(default_factory=dict)

    @functools.cached_property
    def asking(self):
        """The probes that ask for arrays."""
        return tuple(probe for probe in self.probes if type(probe).on_bind is not Probe.on_bind)


_state: ContextVar[_State | None] = ContextVar("state", default=None)
_open: ContextVar[Call | None] = ContextVar("open call", default=None)


class Slot:
    """Stands in a module, or a class, under the name of one of its functions."""

    def __init__(self, owner, name):
        self.owner, self.name, self.function = owner, name, inspect.getattr_static(owner, name)
        functools.update_wrapper(self, self.function)

    def __get__(self, instance, owner=None):
        """Be a method where a class holds this slot."""
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *arguments, **named):
        """Run what stands here in this context."""
        return self.called_from(None, *arguments, **named)

    def called_from(self, site, /, *arguments, **named):
        """Run what stands here, called from a place in a followed function."""
        state = _state.get()
        if state is None:
            return self.function(*arguments, **named)
        chosen = functools.partial(self._follow, site) if _is_followed(self.function) else self.function
        exchanges = state.exchanges.get(self, ())
        for wrong in exchanges:
            chosen = wrong(self.owner, chosen)
        result = chosen(*arguments, **named)
        return self._exchanged(result, state.asking) if exchanges and _is_followed(self.function) else result

    def _follow(self, site, *arguments, **named):
        """Run the rewritten copy of the function."""
        copy, source = rewritten(self.function, _followed_names(), _bind, _site)
        caller = _open.get()
        call = Call(source, caller, site)
        for probe in _state.get().probes:
            naming = call.namings[probe] = Naming(caller.naming(probe).enter(source.name))
            probe.on_call(naming.path[:-1], source)
        before = _open.set(call)
        try:
            return copy(*arguments, **named)
        finally:
            _open.reset(before)

    def _exchanged(self, value, probes):
        """Ask what the result of an exchanged function is to be, under the name that the right one's result has."""
        _, source = rewritten(self.function, _followed_names(), _bind, _site)
        if source.result is None:
            return value
        caller = _open.get()
        for probe in probes:
            naming = caller.naming(probe)
            # A wrong function that never calls the right one has no call of its own.
            path = f"{naming.path}{source.name}.{naming.counts.get(source.name, 0)}/"
            value = probe.on_exchanged(path + source.result, value, source)
        return value


def _bind(i, value, scope):
    """Ask the probes what a named array is to be."""
    call = _open.get()
    call.scope, binding = scope, call.source.bindings[i]
    if not hasattr(value, "shape"):
        return value
    for probe in _state.get().asking:
        naming = call.naming(probe)
        if binding.variable not in naming.known:
            naming.known.add(binding.variable)
            value = probe.on_bind(naming.path + binding.variable, value, Statement(call, binding, probe))
    return value


def _site(i, function, scope):
    """Let a followed function know from where it is called."""
    call = _open.get()
    call.scope = scope
    return functools.partial(function.called_from, call.source.sites[i]) if isinstance(function, Slot) else function


@functools.cache
def _is_followed(function):
    """Say whether a function is one of the forward pass."""
    function = inspect.unwrap(function)
    if not inspect.isfunction(function) or function.__name__.startswith(("_", "<")) or function.__code__.co_freevars:
        return False
    package, _, file = function.__globals__.get("__name__", "").rpartition(".")
    return package in (*PACKAGES, BACKWARD) and file in FILES


@functools.cache
def _followed_names():
    """Return the names of all functions of the forward pass; the two packages have the same."""
    held = [value for file in FILES for value in vars(importlib.import_module(f"npgemma.{file}")).values()]
    functions = [value.function if isinstance(value, Slot) else value for value in held]
    return frozenset(each.__name__ for each in functions if inspect.isfunction(each) and _is_followed(each))


_lock = threading.RLock()
_slots: dict[tuple[Any, str], Slot] = {}
_users = 0


def slot_of(owner, name):
    """Return the slot under a name of a module or class; while anything is in force, it stands there."""
    with _lock:
        if (owner, name) not in _slots:
            slot = _slots[owner, name] = Slot(owner, name)
            setattr(owner, name, slot)
        return _slots[owner, name]


def catch_up():
    """Put slots into the modules that were imported since; does nothing while nothing is in force."""
    if _users:
        for module in [module for name, module in sys.modules.items() if _is_of_the_path(name)]:
            for name, value in list(vars(module).items()):
                if inspect.isfunction(value) and _is_followed(value):
                    slot_of(module, name)


def _is_of_the_path(module_name):
    if not module_name.startswith(PACKAGES):  # nearly all are others
        return False
    package, _, file = module_name.rpartition(".")
    return package in (*PACKAGES, BACKWARD) and file.isidentifier()


@contextlib.contextmanager
def in_force(probes=(), exchanges=()):
    """Put probes and exchanges in force inside a ``with`` block, beside those that are in force already.

    Parameters
    ----------
    probes : sequence of Probe
    exchanges : sequence of (owner, str, callable)
        A module or class, the name of a function of it, and ``wrong(owner, right)``, which returns what to run in its
        place; an exchange of the same function that is in force already is its ``right``.
    """
    with _slots_in_place():
        state = _state.get() or _State()
        table = dict(state.exchanges)
        for owner, name, wrong in exchanges:
            slot = slot_of(owner, name)
            table[slot] = (*table.get(slot, ()), wrong)
        now = _State((*probes, *state.probes), table)
        # The outermost call has no function: what is called from outside is counted in it.
        asked, root = _state.set(now), _open.set(_open.get() or Call())
        try:
            with whole_arrays() if now.asking else contextlib.nullcontext():
                yield
        finally:
            _open.reset(root)
            _state.reset(asked)


@contextlib.contextmanager
def _slots_in_place():
    """Hold the slots in the modules until the last one who needs them ends."""
    global _users
    with _lock:
        _users += 1
        catch_up()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _take_away()


def probing(*probes):
    """Put probes in force inside a ``with`` block. While one asks for arrays, layers take all tokens at once."""
    return in_force(probes)


def _take_away():
    """Put all functions back; what somebody else has put there meanwhile stays."""
    for (owner, name), slot in _slots.items():
        if vars(owner).get(name) is slot:
            setattr(owner, name, slot.function)
    _slots.clear()


def sees_arrays():
    """Say whether anything in force in this context asks for arrays or exchanges functions."""
    state = _state.get()
    return state is not None and bool(state.asking or state.exchanges)


def enclosing(variable):
    """Return a local variable of the innermost followed call that has one of this name.

    For exchanged functions that need to know where they are called: the image tokens of the pass, the width of the
    residual stream.

    Parameters
    ----------
    variable : str

    Returns
    -------
    object or None
        None if no open call has it.
    """
    call = _open.get()
    while call is not None:
        if variable in call.scope:
            return call.scope[variable]
        call = call.caller
    return None
