"""The command line: one thin file a command. `main` turns every user error into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import typer

from archbench.cli.console import check_words, warnings_in_one_line
from archbench.model.errors import ArchbenchError, UnfitError

COMMANDS = {
    "run": "run_command",
    "plan": "plan_command",
    "merge": "run_command",
    "list": "looking",
    "show": "looking",
    "report": "report_command",
    "profile": "profile_command",
    "pick": "looking",
    "compare": "comparing",
    "gate": "comparing",
    "duel": "comparing",
    "history": "comparing",
    "doctor": "looking",
    "schema": "looking",
}
"""Where each `NAME_command` is, by module of this package; in the order in which `--help` lists them."""

app = typer.Typer(
    name="archbench",
    help="Which network, with which settings, on my machine?",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help costs 0.2 s of import
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Which network, with which settings, on my machine?"""
    if version:
        import archbench

        print(archbench.__version__)
        raise typer.Exit


for _name, _module in COMMANDS.items():
    app.command(_name)(getattr(importlib.import_module(f"archbench.cli.{_module}"), f"{_name}_command"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 a regression or failed cells, 2 bad input, 3 machine unfit."""
    try:
        with warnings_in_one_line():
            check_words(sys.argv[1:] if argv is None else argv)
            app(args=None if argv is None else list(argv), prog_name="archbench")
    except ArchbenchError as error:
        print(f"archbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a file that may not be read: of the machine, and nothing to debug
        print(f"archbench: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(UnfitError.exit_code)
