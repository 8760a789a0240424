"""The command line. Each command is a file here, with a summary, its arguments (``add_arguments``) and its ``run``."""

import importlib
import os
import sys

# The commands; without one of these words a command line is `generate`'s.
COMMANDS = ("generate", "inspect", "trace", "explain", "parity", "compare", "conformance", "diagnose", "bench")
DEFAULT = COMMANDS[0]
STOPPED, BAD_INPUT, PAST_BOUND, PIPE_CLOSED = 130, 2, 1, 141


def main(arguments=None):
    """Run a command line, by default that of the process, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    named = bool(arguments) and arguments[0] in COMMANDS
    # A closed stdout or stderr is None in Python.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    try:
        # A terminal that cannot show a character gets its code instead of an error.
        sys.stdout.reconfigure(errors="backslashreplace")
        from npgemma.command.arguments import parser_of

        # Imported here, so that an interrupt during the imports ends as quietly as any other.
        command = importlib.import_module(f"npgemma.command.{arguments[0] if named else DEFAULT}")
        return run(command, parser_of(command, named).parse_args(arguments[named:]))
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        # Python would try to write the rest once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def run(command, options):
    """Run one command, and return the exit status; an error is printed as one sentence."""
    import numpy as np

    from npgemma.errors import InputError

    try:
        # The model itself looks for what is not finite, and names where it comes from.
        with np.errstate(all="ignore"):
            return command.run(options)
    except InputError as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as problem:
        # Whoever opens a file reports its errors; what is left is the output, on a full disk mostly.
        print(f"error: cannot write {problem.filename or 'the output'}: {problem.strerror}", file=sys.stderr)
    except MemoryError:
        print(
            "error: not enough memory for this model here; --dtype bfloat16 needs half, int8 a quarter", file=sys.stderr
        )
    return BAD_INPUT
