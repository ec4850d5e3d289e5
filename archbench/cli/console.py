"""What the commands share in speaking with a terminal and a shell."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from archbench.model.errors import FitnessWarning
from archbench.model.units import indented_json

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended."""


def print_json(value: object, *, indent: bool = True) -> None:
    """Print one document, for `--json`."""
    print(indented_json(value) if indent else msgspec.json.encode(value).decode() + "\n", end="")


def stop_as_by_ctrl_c() -> None:
    """From now on a scheduler's SIGTERM is as good as Ctrl-C: what is finished is kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print what is warned of about the machine on stderr, one line each, as commands do; other warnings as usual."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: object) -> None:
        if issubclass(category, FitnessWarning):
            print(f"archbench: warning: {message}", file=sys.stderr)
        else:
            usual(message, category, *place)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.simplefilter("always", FitnessWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
