"""``python -m tiny train`` makes the embedded checkpoint again; ``python -m tiny evaluate`` measures one."""

import pathlib
import sys

from npgemma import InputError, embedded_checkpoint
from npgemma.arguments import BAD_INPUT, Parser
from tiny.evaluate import evaluate, table, write_card


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = Parser(prog="python -m tiny", description="The embedded checkpoint: make it, measure it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    summary = "make the whole checkpoint: draw, train, measure, write the model card"
    command = commands.add_parser(
        "train", help=summary, description=f"{summary}. Takes about 35 minutes on one processor core; needs PyTorch."
    )
    _add_folder(command, "folder to make; by default the embedded checkpoint is replaced")
    summary = "measure a checkpoint on held-out pictures and print the table"
    rule = "In a folder that 'train' made, the model card is written anew. Takes two minutes."
    command = commands.add_parser("evaluate", help=summary, description=f"{summary}. {rule}")
    _add_folder(command, "folder in the hub's layout; by default the embedded checkpoint")
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


def run(command, folder):
    """Train or not, then evaluate.

    Parameters
    ----------
    command : str
        ``"train"`` or ``"evaluate"``.
    folder : pathlib.Path

    Raises
    ------
    InputError
        If the folder is no checkpoint, or training would overwrite one that was not made by training.
    """
    made_here = folder / "training.json"
    if command == "train":
        if (folder / "config.json").exists() and not made_here.exists():
            raise InputError(f"'{folder}' holds a checkpoint that was not made here: name another folder")
        _train(folder)
    evaluation = evaluate(folder)
    if made_here.exists():
        write_card(folder, evaluation)
    print(table(evaluation))


def _train(folder):
    """Train where PyTorch is installed."""
    try:
        from tiny.train import train
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise InputError("training needs PyTorch: pip install torch") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"cannot make the folder '{folder}': {problem.strerror}") from None
    train(folder)


def _add_folder(command, meaning):
    command.add_argument("--checkpoint", metavar="DIR", type=pathlib.Path, default=embedded_checkpoint(), help=meaning)


if __name__ == "__main__":
    sys.exit(main())
