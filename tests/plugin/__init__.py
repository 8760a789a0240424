"""Declares the tests' own options to pytest, which loads this module by its entry point in ``pyproject.toml``.

The options cannot be declared in ``tests/conftest.py``: until an option is known, pytest takes the DIR of
``--checkpoint DIR`` for a test path, looks beside DIR for its configuration, and never reads ``tests/conftest.py``.
Modules with an entry point are loaded earlier than that file, but still later than the configuration. So a command line
with an option and its value in two words is run a second time with both in one word, ``--checkpoint=DIR``, which
pytest cannot take for a path.

Nothing of the project is imported here: pytest loads this module in every project of the same environment, and before
it is decided which copy of the project is tested. (PYTEST_DONT_REWRITE: there is no ``assert`` here for pytest to
rewrite, and at the second run it would warn that it came too late.)
"""

OPTIONS = {
    "--checkpoint": ("DIR", "run the checkpoint tests on this folder instead of the embedded checkpoint"),
    "--report": ("FILE", "moved: python cli.py parity --checkpoint DIR --report FILE"),
}


def pytest_addoption(parser):
    """Declare the options."""
    group = parser.getgroup("npgemma")
    for option, (metavar, purpose) in OPTIONS.items():
        group.addoption(option, metavar=metavar, help=purpose)


def pytest_load_initial_conftests(early_config):
    """Keep a command line that will be run a second time from loading the tests' files with the wrong configuration."""
    if _in_one_word(early_config.invocation_params.args):
        early_config.known_args_namespace.noconftest = True


def pytest_cmdline_main(config):
    """Run a command line that has an option and its value in two words a second time; return the exit status."""
    arguments = _in_one_word(config.invocation_params.args)
    if arguments:
        import pytest

        return pytest.main(arguments, config.invocation_params.plugins)
    return None


def _in_one_word(arguments):
    """Join each of the options with the value behind it; return None if there is nothing to join."""
    words, joined = list(map(str, arguments)), []
    while words:
        word = words.pop(0)
        joined.append(f"{word}={words.pop(0)}" if word in OPTIONS and words else word)
    return joined if len(joined) < len(arguments) else None
