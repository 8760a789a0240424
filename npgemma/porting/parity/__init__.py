"""The checks of a checkpoint in both backends: all dtypes, several images and prompts, with the cache and without.

``python cli.py parity --report FILE`` makes them and writes what was measured; ``tests/project/test_checkpoint.py``
asserts their outcomes.
"""

from npgemma.porting.parity.checks import CHECKS, Parity
from npgemma.porting.parity.document import document, summary

__all__ = ["CHECKS", "Parity", "document", "summary"]
