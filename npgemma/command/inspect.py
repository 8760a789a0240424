"""``python cli.py inspect``: print what a checkpoint holds, without loading it."""

import json

from npgemma.command import prepare
from npgemma.command.tables import inspect_table

SUMMARY = "Show a checkpoint's sizes and tensors without loading it."


def add_arguments(parser):
    """Declare the command's arguments: it has none but those of all commands."""


def run(options):
    """Print the checkpoint's contents."""
    from conversion.folder import describe

    report = describe(prepare.checkpoint(options))
    print(json.dumps(report) if options.json else inspect_table(report), flush=True)
    return 0
