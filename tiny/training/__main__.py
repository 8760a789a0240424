"""``python -m tiny.training train`` makes the embedded checkpoint; ``evaluate`` measures one, ``gallery`` shows it."""

import pathlib
import sys

from npgemma import InputError, embedded_checkpoint
from npgemma.command.arguments import BAD_INPUT, Parser
from tiny.training import gallery
from tiny.training.card import RECORD, overlap_table, table, write_card
from tiny.training.evaluate import evaluate

COMMANDS = {
    "train": (
        "make the whole checkpoint: draw, train, measure, write the model card",
        "Took 372 minutes on one to two processor cores; needs PyTorch. Goes on where it was stopped.",
        "folder to make; by default the embedded checkpoint is replaced",
    ),
    "evaluate": (
        "measure a checkpoint on held-out pictures and print the tables",
        "In a folder that 'train' made, the model card is written anew. Takes about two minutes.",
        "folder in the hub's layout; by default the embedded checkpoint",
    ),
    "gallery": (
        "write the example picture, and some pictures with the model's real answers",
        "One of the answers is a wrong one.",
        "folder that 'train' made; by default the embedded checkpoint",
    ),
}


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = Parser(prog="python -m tiny.training", description="Make, measure and show the embedded checkpoint.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (summary, more, folder) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary}. {more}")
        command.add_argument(
            "--checkpoint", metavar="DIR", type=pathlib.Path, default=embedded_checkpoint(), help=folder
        )
    options = parser.parse_args(arguments)
    try:
        run(options.command, options.checkpoint)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def run(command: str, folder: pathlib.Path):
    """Run one of the commands; training is followed by the others.

    InputError if the folder is no checkpoint, or training would overwrite one that was not made by training.
    """
    made_here = (folder / RECORD).exists()
    if command == "train":
        if (folder / "config.json").exists() and not (made_here or _begun(folder)):
            raise InputError(f"'{folder}' holds a checkpoint that was not made here: name another folder")
        _train(folder)
    if command == "gallery" and not made_here:
        raise InputError(f"'{folder}' was not made by 'train': its pictures would not be the model's world")
    if command in ("train", "gallery"):
        gallery.make(folder)
    if command in ("train", "evaluate"):
        evaluation = evaluate(folder)
        if (folder / RECORD).exists():
            write_card(folder, evaluation)
        print(table(evaluation), overlap_table(evaluation), sep="\n\n")


def _begun(folder):
    """Say whether a training was begun in a folder and not ended."""
    return (folder / "training_log.jsonl").exists()


def _train(folder):
    """Train where PyTorch is installed."""
    try:
        from tiny.training.train import train
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise InputError("training needs PyTorch: pip install torch") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"cannot make the folder '{folder}': {problem.strerror}") from None
    train(folder)


if __name__ == "__main__":
    sys.exit(main())
