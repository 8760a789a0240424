"""The command line: ``python cli.py --help``. Its commands are in ``npgemma/command/``."""

import sys

from npgemma.command import main

if __name__ == "__main__":
    sys.exit(main())
