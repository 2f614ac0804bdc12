"""``python -m nasrun``: the command line without its script."""

import sys

from nasrun.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
