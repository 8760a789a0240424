"""``python cli.py inspect``: print what a checkpoint holds, without loading it."""

import json

from npgemma.command import prepare
from npgemma.command.tables import inspect_table, summary_table

SUMMARY = "Show what a checkpoint is, and its tensors, without loading it."


def add_arguments(parser):
    """Declare the command's arguments."""
    parser.add_argument("--tensors", action="store_true", help="list every tensor too: name, axes, and the hub's name")


def run(options):
    """Print the checkpoint's contents."""
    from conversion.folder import describe
    from conversion.summary import summarize

    source = prepare.checkpoint(options)
    report = describe(source) | {"summary": summarize(source)}
    table = summary_table(report) + ("\n\n" + inspect_table(report) if options.tensors else "")
    print(json.dumps(report) if options.json else table, flush=True)
    return 0
