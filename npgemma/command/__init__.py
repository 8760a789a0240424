"""The command line. Each command is a file here, with a summary, its arguments (``add_arguments``) and its ``run``."""

import importlib
import os
import sys

from npgemma.machinery import starting

# The commands; without one of these words a command line is `generate`'s.
COMMANDS = ("generate", "inspect", "trace", "explain", "parity", "compare", "conformance", "diagnose", "bench")
DEFAULT = COMMANDS[0]
STOPPED, BAD_INPUT, PAST_BOUND, PIPE_CLOSED = 130, 2, 1, 141


def main(arguments=None):
    """Run a command line, by default that of the process, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    named = bool(arguments) and arguments[0] in COMMANDS

    def run():
        """Import the command and run it."""
        from npgemma.command.arguments import parser_of

        command = importlib.import_module(f"npgemma.command.{arguments[0] if named else DEFAULT}")
        return command.run(parser_of(command, named).parse_args(arguments[named:]))

    return guarded(run)


def guarded(run):
    """Call ``run`` and return its exit status; an error is printed as one sentence, an interrupt ends quietly."""
    # A closed stdout or stderr is None in Python.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    try:
        starting.stage = "working"
        # Imported here, so that an interrupt during the imports ends as quietly as any other.
        from npgemma.command.streams import escaped_streams

        with escaped_streams():
            return _run(run)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        # Python would try to write the rest once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    finally:
        starting.stage = "ending"


def _run(run):
    import numpy as np

    from npgemma.errors import InputError
    from npgemma.files.foreign import shown
    from npgemma.machinery.loading import check_neighbour

    try:
        check_neighbour("conversion")
        # The model itself looks for what is not finite, and names where it comes from.
        with np.errstate(all="ignore"):
            return run()
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as problem:
        # Whoever opens a file reports its errors; what is left is the output, on a full disk mostly.
        what = shown(problem.filename or "the output")
        print(f"error: cannot write {what}: {problem.strerror}", file=sys.stderr)
    except MemoryError:
        print(
            "error: not enough memory for this model here; --dtype bfloat16 needs half, int8 a quarter", file=sys.stderr
        )
    return BAD_INPUT
