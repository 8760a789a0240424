"""Declares the tests' own options to pytest, which loads this module by its entry point in ``pyproject.toml``.

The options cannot be declared in ``tests/conftest.py``: until an option is known, pytest takes the DIR of
``--checkpoint DIR`` for a test path, looks beside DIR for its configuration, and never reads ``tests/conftest.py``.
Modules with an entry point are loaded earlier than that file, but still later than the configuration. So a command line
with an option and its value in two words is run anew with both in one word, ``--checkpoint=DIR``, which pytest cannot
take for a path.

pytest loads this module in every project of the same environment: where it does not run the tests of this checkout,
nothing is declared. Nothing of the project is imported here, since it is not decided yet which copy is tested.
(PYTEST_DONT_REWRITE: pytest would warn that it came too late.)
"""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent
OPTIONS = {
    "--checkpoint": ("DIR", "run the checkpoint tests on this folder instead of the embedded checkpoint"),
    "--report": ("FILE", "moved: python cli.py parity --checkpoint DIR --report FILE"),
}


def pytest_addoption(parser, pluginmanager):
    """Declare the options if a test path, or the current folder where there is none, is of this checkout."""
    call = pluginmanager.get_plugin("pytestconfig").invocation_params
    words = _in_one_word(call.args)
    paths = [call.dir / path.partition("::")[0] for path in parser.parse_known_args(words).file_or_dir]
    if any(map(_is_ours, list(filter(os.path.exists, paths)) or [call.dir])):
        declare(parser)
        if len(words) < len(call.args):
            sys.exit(pytest.main(words, call.plugins))


def declare(parser):
    """Declare the options."""
    group = parser.getgroup("npgemma")
    for option, (metavar, purpose) in OPTIONS.items():
        group.addoption(option, metavar=metavar, help=purpose)


def _is_ours(path):
    """Say whether a path is this checkout or one of its tests; what is installed from a wheel has none."""
    path = path.resolve()
    return (ROOT / "pyproject.toml").exists() and (path == ROOT or path.is_relative_to(ROOT / "tests"))


def _in_one_word(arguments):
    """Join each of the options with the value behind it."""
    words, joined = list(map(str, arguments)), []
    while words:
        word = words.pop(0)
        joined.append(f"{word}={words.pop(0)}" if word in OPTIONS and words else word)
    return joined
