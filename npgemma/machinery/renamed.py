"""Names that have moved: for one release the old ones work, and warn.

An old module is made when it is imported, of the names of the new one; an old name in a module is looked up there.
"""

import functools
import importlib
import importlib.abc
import importlib.util
import pkgutil
import sys
import warnings

# Modules by their old names.
MODULES = {
    "npgemma.added_tokens": "npgemma.files.added_tokens",
    "npgemma.backend": "npgemma.machinery.backend",
    "npgemma.model": "npgemma.machinery.model",
    "npgemma.sampling": "npgemma.machinery.sampling",
    "npgemma.tokenizer_files": "npgemma.files.tokenizer_files",
    "npgemma.tokenizer_json": "npgemma.files.tokenizer_json",
    "npgemma.tools": "npgemma.porting",
    "npgemma.tools.arrays": "npgemma.porting.arrays",
    "npgemma.tools.bench": "npgemma.benchmarks.speed",
    "npgemma.tools.budgets": "npgemma.porting.bounds",
    "npgemma.tools.compare": "npgemma.porting.backends",
    "npgemma.tools.diagnosis": "npgemma.porting.diagnosis",
    "npgemma.tools.logits": "npgemma.porting.logits",
    "npgemma.tools.manifest": "npgemma.probe.manifest",
    "npgemma.tools.mistakes": "npgemma.porting.mistakes",
    "npgemma.tools.port": "npgemma.porting",
    "npgemma.tools.port.compare": "npgemma.porting",
    "npgemma.tools.port.name_map": "npgemma.porting",
    "npgemma.tools.port.reference": "npgemma.porting",
    "npgemma.tools.tour": "npgemma.explain",
    "npgemma.tools.views": "npgemma.explain.passes",
    "npgemma.trace": "npgemma.probe",
}
# By module: names that it had, and where each is now.
NAMES = {
    "npgemma.answer": {"Found": "npgemma.answer.Detection"},
    "npgemma.contrastive": {"next_token_loss": "npgemma.loss.next_token_loss"},
    "torch_ref.contrastive": {"next_token_loss": "torch_ref.loss.next_token_loss"},
}


def _warn(old, new):
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, stacklevel=3)


class _Renamed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules by their old names, and fills them with the names of the new ones."""

    def find_spec(self, name, path=None, target=None):
        """Return the specification of a module that has moved, or None."""
        return importlib.util.spec_from_loader(name, self, is_package=True) if name in MODULES else None

    def create_module(self, spec):
        """Leave it to Python."""

    def exec_module(self, module):
        """Hand out the names of the new module."""
        new = importlib.import_module(MODULES[module.__name__])
        _warn(module.__name__, new.__name__)
        names = {name: value for name, value in vars(new).items() if not name.startswith("__")}
        vars(module).update(names, __doc__=f"Now `{new.__name__}`.")


def install(package):
    """Let the old names of a package be imported."""
    if not any(isinstance(finder, _Renamed) for finder in sys.meta_path):
        sys.meta_path.append(_Renamed())
    for module, names in ((module, names) for module, names in NAMES.items() if module.startswith(package)):
        importlib.import_module(module).__getattr__ = functools.partial(_look_up, module, names)


def _look_up(module, names, name):
    """Return what stands under a new name."""
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    _warn(f"{module}.{name}", names[name])
    return pkgutil.resolve_name(names[name])
