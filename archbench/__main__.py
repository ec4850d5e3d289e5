"""`python -m archbench` is the `archbench` command."""

from archbench.cli import main

main()
