"""Errors that are the user's to fix, each with the exit code of the command-line contract."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ArchbenchError(Exception):
    """Base of every error that ends a command with one clear line and no traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        """`message`, which may quote what anybody wrote: it must not steer a terminal, nor forge a line of a log."""
        super().__init__(escaped(message))


class UsageError(ArchbenchError):
    """Bad input: the message says what is wrong, where, and what to do (exit 2)."""

    exit_code = 2


class UnfitError(ArchbenchError):
    """The machine, the environment or the data cannot support the answer asked for (exit 3)."""

    exit_code = 3


class UnsupportedError(RuntimeError):
    """The cell asks for what this network, device or library cannot do: an `unsupported` row, never something else."""


class Interrupted(KeyboardInterrupt):
    """Measuring was interrupted; what was finished is kept at `path`, and the same call goes on from there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"interrupted; the same command resumes {path}")
        self.path = path


class FitnessWarning(UserWarning):
    """It can be measured, but something about the machine or the code to measure is not as it should be.

    Commands print it on stderr.
    """


def escaped(text: str) -> str:
    """On one line, with every character that is not printable as Python would write it: `\\x1b`, `\\ud800`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


CALLED_ELSEWHERE: dict[str, str] = {
    "amp-bf16": "amp autocast mixed",
    "architecture": "model network net",
    "architectures": "models networks nets backbones",
    "batch_size": "batch batches bs",
    "bf16": "bfloat16",
    "channels_last": "channels-last nhwc",
    "compile_mode": "compile compiled jit",
    "contiguous": "nchw channels_first",
    "cuda": "gpu nvidia",
    "depth": "layers",
    "devices": "backends hardware",
    "fp16": "float16 half",
    "fp32": "float32 float single",
    "inference": "eval forward predict",
    "input_size": "image_size img_size resolution imgsz",
    "memory_format": "layout data_format",
    "name": "model network net",
    "off": "none eager",
    "params": "parameters weights",
    "phase": "mode stage",
    "precision": "amp autocast dtype data_type",
    "rounds": "repeats repetitions runs",
    "threads": "num_threads cores",
    "training": "train backward",
}
"""By archbench's own word, what others call the thing: no similarity of letters would find it."""


def nearest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Those of `known` that others call `word`; where there are none, those whose letters are near."""
    by_folded = {name.lower(): name for name in known}
    word = word.lower()
    meant = [ours for ours, theirs in CALLED_ELSEWHERE.items() if ours in by_folded and word in theirs.split()]
    near = meant or difflib.get_close_matches(word, by_folded, n=limit, cutoff=0.6)
    return [by_folded[name] for name in near[:limit]]


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return `"; did you mean a, b?"` of `nearest`, or `""` when nothing is near."""
    near = nearest(word, known, limit)
    return f"; did you mean {', '.join(near)}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of what `error` says, or its kind where it says nothing."""
    return (words_of(error).strip().splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException) -> str:
    """`ValueError: no such width`: kind and message, on one line whatever its breaks."""
    return f"{type(error).__name__}: {' '.join(words_of(error).split())}"


def words_of(error: BaseException) -> str:
    """What `error` says; of one of a user's own that cannot even say it, that."""
    try:
        return str(error)[:_LONGEST]
    except Exception:
        return "an error whose text cannot be had"


_LONGEST = 10_000
"""Characters that anybody may ever read of an error."""
