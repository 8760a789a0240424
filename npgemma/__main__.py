"""``python -m npgemma``: the command line, as ``python cli.py`` runs it."""

import sys

from npgemma.command import main

if __name__ == "__main__":
    sys.exit(main())
