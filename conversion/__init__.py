"""Checkpoints of any published layout to our tree of weights and back; nothing here knows what the weights do."""

import npgemma.machinery.starting  # noqa: F401, before what takes long

# isort: split
from conversion.folder import read_checkpoint, read_folder
from conversion.source import Source
from conversion.write import random_params, save, stand_in_params, write_folder

__all__ = ["Source", "random_params", "read_checkpoint", "read_folder", "save", "stand_in_params", "write_folder"]
