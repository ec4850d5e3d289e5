"""What the commands share: options and what completes them, and how they speak with a terminal and a shell."""

from __future__ import annotations

import io
import logging
import re
import signal
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from glob import escape, glob
from inspect import Parameter, Signature, signature
from os.path import isdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import msgspec
import typer

from archbench import options
from archbench.model.errors import FitnessWarning, Interrupted, UsageError, escaped
from archbench.model.units import indented_json
from archbench.options import Option

if TYPE_CHECKING:
    from archbench.model.comparison import Comparison
    from archbench.rendering.content import Report

Found = TypeVar("Found")


def completing(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What completes the last of several words, as in `fp32,amp` or `top1 >= 76 and ye`."""

    def complete(incomplete: str) -> list[str]:
        last = re.split(r"[\s,(]", incomplete)[-1]
        before = incomplete.removesuffix(last)
        return [before + word for word in words() if word.startswith(last)]

    return complete


def network_names() -> Iterator[str]:
    """Names and aliases of the catalogue, for completion."""
    from archbench.catalog import entries

    for entry in entries().values():
        yield from (entry.name, *entry.aliases)


def networks_and_suites(incomplete: str) -> list[str]:
    """Networks, suite files, and folders that may hold some."""
    found = sorted(glob(f"{escape(incomplete)}*"))
    files = [path for path in found if path.endswith((".yaml", ".yml"))] + [f"{path}/" for path in found if isdir(path)]
    return [name for name in network_names() if name.startswith(incomplete)] + files


def argument(help: str, metavar: str | None = None, **more: Any) -> Any:
    """What typer is told of an argument."""
    return typer.Argument(help=help, metavar=metavar, **more)


def option(help: str, metavar: str | None = None, *flags: str, **more: Any) -> Any:
    """What typer is told of an option; its flag is the parameter's name where `flags` say nothing else."""
    return typer.Option(*flags, help=help, metavar=metavar, **more)


def switch(flag: str, help: str) -> Any:
    """What typer is told of an option without a value and without a `--no-`."""
    return typer.Option(flag, help=help)


def told(about: Option, *flags: str) -> Any:
    """What typer is told of an option of `archbench.options`."""
    complete = completing(about.words) if about.words else None
    return option(about.help, about.metavar, *flags, autocompletion=complete, min=about.least)


_A_NETWORK = "A catalogue name, torchvision:NAME, timm:NAME or module:function."
NetworkArgument = Annotated[str, argument(_A_NETWORK, autocompletion=completing(network_names))]
WhatArgument = Annotated[
    list[str], argument("A suite file, or networks.", "SUITE_OR_NAMES...", autocompletion=networks_and_suites)
]


DeviceOption = Annotated[str, told(options.DEVICE)]
AsJson = Annotated[bool, switch("--json", "Print one JSON document.")]
Strict = Annotated[
    bool, switch("--strict", "Exit with 3 where a cell is undecided or invalid, or failed on both sides.")
]

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended."""


def taking(asked: Callable[..., object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a class of `archbench.options`; its last parameter gets those that were set.

    So what a function does without one is for the function to say.
    """
    fields = signature(asked).parameters
    shown = [_parameter(fields[name], *told) for name, told in options.declared(asked).items()]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        *own, _ = signature(command, eval_str=True).parameters.values()
        arguments = [one for one in own if one.default is one.empty]

        @wraps(command)
        def called(**values: Any) -> None:
            given = {one.name: values.pop(one.name) for one in shown}
            command(**values, **{name: value for name, value in given.items() if value not in (None, [], ())})

        rest = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own[len(arguments) :]]
        called.__signature__ = Signature([*arguments, *shown, *rest])  # type: ignore[attr-defined]
        return called

    return decorate


def _parameter(one: Parameter, kind: Any, about: Option) -> Parameter:
    """A field as typer is to see it: a switch, a whole number, or text for everything else."""
    flag, default = f"--{one.name.replace('_', '-')}", one.default
    shape: Any = kind
    if about.repeatable:
        shape, default = list[str] | None, None
    elif kind is bool:
        flag = f"{flag}/--no-{one.name}" if default else flag
    elif set(get_args(kind) or [kind]) - {int, type(None)}:
        shape, default = (str | None, None) if default in (None, ()) else (str, default)
        default = str(default) if isinstance(default, int) else default
    return one.replace(annotation=Annotated[shape, told(about, flag)], default=default)


def print_json(value: object, *, indent: bool = True) -> None:
    """Print one document on stdout, for `--json`."""
    print(indented_json(value) if indent else msgspec.json.encode(value).decode() + "\n", end="")


def answer(found: Found, report_of: Callable[[Found], Report], as_json: bool, *, indent: bool = True) -> None:
    """Print what was found, as one document or as the report that is made of it."""
    if as_json:
        print_json(found, indent=indent)
    else:
        from archbench.rendering.text import print_report

        print_report(report_of(found))


def show_comparison(comparison: Comparison, format: str, out: Path | None) -> None:
    """Print it; or where it goes to files, their places."""
    from archbench.rendering.comparison_formats import render_comparison, write_comparison
    from archbench.rendering.comparison_report import text_report
    from archbench.rendering.text import print_report

    if out is not None:
        for place in write_comparison(comparison, format, out):
            print(place)
    elif format == "text":
        print_report(text_report(comparison))
    else:
        print(render_comparison(comparison, format), end="")


def stop_as_by_ctrl_c() -> None:
    """From now on a scheduler's SIGTERM is as good as Ctrl-C: what is finished is kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Until the block ends a scheduler's SIGTERM is as good as Ctrl-C, and what was finished is said to be kept."""
    stop_as_by_ctrl_c()
    try:
        yield
    except Interrupted as interrupted:
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def check_words(words: Sequence[str]) -> None:
    """Raises `UsageError` for what no name, path or condition holds, and what a terminal would obey."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r}: is not text in UTF-8; rename what it names") from None
        if any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in word):
            raise UsageError(f"{word!r}: holds a control character; remove it")


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print what is warned of about the machine on stderr, one line each, as commands do; other warnings as usual.

    Likewise what is logged; and a terminal of few characters has the others escaped.
    """
    usual = warnings.showwarning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_one_line)
    logging.getLogger("archbench").addHandler(handler)

    def show(message: Warning | str, category: type[Warning], *place: object) -> None:
        if issubclass(category, FitnessWarning):
            print(f"archbench: warning: {escaped(str(message))}", file=sys.stderr)
        else:
            usual(message, category, *place)  # type: ignore[arg-type]

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", FitnessWarning)
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        logging.getLogger("archbench").removeHandler(handler)


def _one_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), ()
    return True
