"""`python -m archbench`, the same as `archbench`."""

import sys

if not sys.flags.safe_path:
    # `python -m` looks in the current directory first: a file `random.py` there would be run in place of Python's own.
    del sys.path[0]

from archbench.cli import main

main()
