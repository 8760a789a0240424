"""All that is generated in README.md, docs/ and tiny/README.md, a file for each document: `documents` has the list."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
