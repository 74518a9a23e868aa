"""`python -m invertigo` is the command `invertigo`."""

import os
import sys

# `python -m` lets any file of the current folder stand in for a library; only a scenario's factory may name one.
sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]

from invertigo.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
