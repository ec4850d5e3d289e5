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
from glob import escape, glob
from os.path import isdir
from typing import Annotated

import msgspec
import typer

from archbench.model.errors import FitnessWarning, UsageError, escaped
from archbench.model.units import indented_json


def completing(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What completes the last of several words, as in `fp32,amp` or `top1 >= 76 and ye`."""

    def complete(incomplete: str) -> list[str]:
        last = re.split(r"[\s,(]", incomplete)[-1]
        before = incomplete.removesuffix(last)
        return [before + word for word in words() if word.startswith(last)]

    return complete


def network_names() -> Iterator[str]:
    """Of the catalogue."""
    from archbench.catalog import entries

    for entry in entries().values():
        yield from (entry.name, *entry.aliases)


def column_names() -> Iterable[str]:
    """As conditions and goals may name them."""
    from archbench.model.derived import judged_names

    return judged_names()


def networks_and_suites(incomplete: str) -> list[str]:
    """Networks, suite files, and folders that may hold some."""
    found = sorted(glob(f"{escape(incomplete)}*"))
    files = [path for path in found if path.endswith((".yaml", ".yml"))] + [f"{path}/" for path in found if isdir(path)]
    return [name for name in network_names() if name.startswith(incomplete)] + files


def device_words() -> Iterable[str]:
    """Without looking which are there."""
    from archbench.model.axes import DEVICE_KINDS

    return ("auto", *DEVICE_KINDS)


NetworkArgument = Annotated[
    str,
    typer.Argument(
        help="A catalogue name, torchvision:NAME, timm:NAME or module:function.",
        autocompletion=completing(network_names),
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N", autocompletion=completing(device_words))
]
HeadOption = Annotated[str | None, typer.Option("--head", help="classifier, none: the last map, features: pyramid.")]
DeployOption = Annotated[
    str | None, typer.Option("--deploy", metavar="true", help="Folded for inference: true, false.")
]
TrainOption = Annotated[str | None, typer.Option("--train", help="full, head, frozen-bn")]
OptimizerOption = Annotated[str | None, typer.Option("--optimizer", help="sgd, adamw")]
CheckpointingOption = Annotated[
    str | None, typer.Option("--checkpointing", metavar="true", help="Blocks run again in the backward pass.")
]
InputsOption = Annotated[
    str | None,
    typer.Option("--inputs", metavar="16/int64/0..1000", help="What it takes: in short, or as a suite has it."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Cells to keep: resnet*, resnet50@batch_size=1, @setting=amp."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="3/16", help="One of so many parts of the suite; `archbench merge` unites them."),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Accept module:function architectures.")]
Force = Annotated[bool, typer.Option("--force", help="Measure on a machine that the preflight calls unfit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended."""


def print_json(value: object, *, indent: bool = True) -> None:
    """Print one document, for `--json`."""
    print(indented_json(value) if indent else msgspec.json.encode(value).decode() + "\n", end="")


def stop_as_by_ctrl_c() -> None:
    """From now on a scheduler's SIGTERM is as good as Ctrl-C: what is finished is kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


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
