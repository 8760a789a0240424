"""``npgemma diagnose``: name a port's mistake; so far, list the mistakes that are known."""

import json

from npgemma.command.tables import mistakes_table
from npgemma.errors import InputError
from npgemma.tools.mistakes import MISTAKES

SUMMARY = "List the known mistakes of ports."


def add_arguments(parser):
    """Declare the command's arguments."""
    parser.add_argument("--list", action="store_true", help="print every known mistake: what it is, and who made it")


def run(options):
    """Print the library of mistakes."""
    if not options.list:
        raise InputError("diagnose has --list so far: it prints every known mistake")
    report = [
        {"id": mistake.id, "says": mistake.says, "made_by": mistake.made_by, "place": mistake.place}
        for mistake in MISTAKES.values()
    ]
    print(json.dumps(report) if options.json else mistakes_table(report), flush=True)
    return 0
