"""The command line: one thin function a command. `main` turns every user error into one line and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from archbench.cli import looking, measuring
from archbench.cli.console import check_words, warnings_in_one_line
from archbench.model.axes import COMPILE_MODES, DEVICE_KINDS, MEMORY_FORMATS, PHASES, PRECISIONS
from archbench.model.errors import CALLED_ELSEWHERE, ArchbenchError, UnfitError, UsageError, did_you_mean, nearest

COMMANDS = (
    *("run", "plan", "merge", "export", "list", "show", "fits", "report", "site", "profile", "pick", "compare"),
    *("gate", "duel", "history", "claims", "train-probe", "doctor", "schema"),
)
"""In the order in which `--help` lists them; each is a `NAME_command` of `looking` or `measuring`."""

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


for _name in COMMANDS:
    app.command(_name)((vars(looking) | vars(measuring))[f"{_name.replace('-', '_')}_command"])


_VALUES = {
    "--phase": PHASES,
    "--precision": PRECISIONS,
    "--compile-mode": COMPILE_MODES,
    "--memory-format": MEMORY_FORMATS,
    "--device": DEVICE_KINDS,
}
"""Options whose values people take for options."""
_Misuse: Any = typer.BadParameter.__mro__[1]
"""What the parser raises for bad words. Some versions of typer have a click of their own: this is its name in all."""


def _in_one_line(error: Any, words: Sequence[str]) -> str:
    """`run: no option --batchsize; did you mean --batch-size?`, of what the parser says in four lines."""
    command = next((word for word in words if word in COMMANDS), "")
    lead, usage = (f"{command}: ", f"`archbench {command} --help`") if command else ("", "`archbench --help`")
    if type(error).__name__ == "NoSuchOption":
        known = {one for each in error.ctx.command.params for one in (*each.opts, *each.secondary_opts)}
        word = error.option_name.lstrip("-")
        options = nearest(word.replace("-", "_"), (name.lstrip("-").replace("-", "_") for name in known), 1)
        near = [f"--{name.replace('_', '-')}" for name in options]
        meant = [
            f"{option} {value}"
            for option, values in _VALUES.items()
            if option in known
            for value in nearest(word, values, 1)
            if not near or option in near or word in CALLED_ELSEWHERE.get(value, "").split()
        ] or near
        return f"{lead}no option {error.option_name}; " + (
            f"did you mean {', '.join(meant)}?" if meant else f"{usage} lists them"
        )
    said = " ".join(error.format_message().split()).rstrip(".")
    if found := re.match(r"No such command '(.*?)'", said):
        return f"no command {found[1]}{did_you_mean(found[1], COMMANDS) or '; `archbench --help` lists them'}"
    return f"{lead}{said[:1].lower()}{said[1:]}; {usage} says more"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 a regression or failed cells, 2 bad input, 3 machine unfit."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with warnings_in_one_line():
            check_words(words)
            code = app(args=words, prog_name="archbench", standalone_mode=False)
        sys.exit(code or 0)
    except _Misuse as error:
        if "\n" in error.format_message():  # all of the help, where no word was given
            error.show()
        else:
            print(f"archbench: {UsageError(_in_one_line(error, words))}", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    except ArchbenchError as error:
        print(f"archbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a file that may not be read: of the machine, and nothing to debug
        told = UnfitError(f"{error.filename or 'a file'}: {error.strerror or error}")
        print(f"archbench: {told}", file=sys.stderr)
        sys.exit(UnfitError.exit_code)
