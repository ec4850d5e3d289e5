"""Errors that are the user's to fix, each with the exit code of the command-line contract."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ArchbenchError(Exception):
    """Base of every error that ends a command with one clear line and no traceback."""

    exit_code = 1


class UsageError(ArchbenchError):
    """Bad input: the message says what is wrong, where, and what to do (exit 2)."""

    exit_code = 2


class UnfitError(ArchbenchError):
    """The machine, the environment or the data cannot support the answer asked for (exit 3)."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """Measuring was interrupted; what was finished is kept at `path`, and the same call goes on from there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"interrupted; the same command resumes {path}")
        self.path = path


class FitnessWarning(UserWarning):
    """It can be measured, but something about the machine or the code to measure is not as it should be.

    Commands print it on stderr.
    """


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return `"; did you mean a, b?"` for the nearest of `known`, or `""` when nothing is near."""
    by_folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_folded, n=limit, cutoff=0.6)
    return f"; did you mean {', '.join(by_folded[name] for name in near)}?" if near else ""
