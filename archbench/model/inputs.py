"""What a network takes, as a value: shape, dtype, range and place of each argument; and image sizes, square or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from archbench.model.errors import UsageError

Side = Annotated[int, Meta(ge=1, le=1_000_000)]
Size = Side | Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,5}x[1-9][0-9]{0,5}$")]
"""Of an image, in pixels: the side of a square one, or `HEIGHTxWIDTH`."""
Shape = Annotated[tuple[Side, ...], Meta(extra_json_schema={"uniqueItems": False})]
"""Sides, of which some may be alike; none at all: one number."""
Dtype = Literal[
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"
]
ArgumentName = Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.\w+)?$", max_length=80)]


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One argument of a network's forward."""

    shape: Shape = ()
    """Of one sample, without the batch axis; empty: one number a sample."""
    dtype: Dtype = "float32"
    low: float | None = None
    """The smallest value; of whole numbers 0 unless said."""
    high: float | None = None
    """Above the largest value; of whole numbers 2 unless said. Reals without either are standard normal."""
    name: ArgumentName | None = None
    """The argument's; `batch.pixels`: of a dictionary `batch` its entry `pixels`. `None`: by position."""
    batched: bool = True
    """False: the tensor has no batch axis, and is the same at every batch size."""

    @property
    def is_whole(self) -> bool:
        """Whether its values are integers."""
        return "int" in self.dtype

    @property
    def text(self) -> str:
        """`ids=77/int64/0..30000`: all of it, without a comma or a space, as `parse_inputs` reads it."""
        words = ["x".join(map(str, self.shape)) or "scalar"]
        words += [self.dtype] * (self.dtype != "float32") + ["unbatched"] * (not self.batched)
        if self.low is not None or self.high is not None:
            words.append(f"{_number(self.low)}..{_number(self.high)}")
        return f"{self.name}=" * (self.name is not None) + "/".join(words)


def text_of(inputs: Iterable[Input]) -> str:
    """All arguments, joined by `+`."""
    return "+".join(one.text for one in inputs)


_INPUT = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*(?:\.\w+)?)=)?(?P<shape>scalar|\d+(?:x\d+)*)(?:/(?P<dtype>[a-z]+\d*(?<!unbatched)))?"
    r"(?P<unbatched>/unbatched)?(?:/(?P<low>-?[\d.e-]*?)\.\.(?P<high>-?[\d.e-]*))?"
)
HOW = "write SHAPE[/DTYPE][/LOW..HIGH] for each argument and + between them, as in 3x224x160+ids=77/int64/0..30000"


def parse_inputs(text: str) -> list[dict[str, Any]]:
    """`3x224x160+ids=77/int64/0..30000` as a suite would write it, for whoever checks suites. Raises `UsageError`."""
    return [_parsed(word, text) for word in text.split("+")]


def _parsed(word: str, text: str) -> dict[str, Any]:
    found = _INPUT.fullmatch(word)
    if found is None:
        raise UsageError(f"inputs {text!r}: {word!r} says no shape; {HOW}")
    said: dict[str, Any] = {key: found[key] for key in ("name", "dtype") if found[key]}
    if found["shape"] != "scalar":
        said["shape"] = [int(side) for side in found["shape"].split("x")]
    if found["unbatched"]:
        said["batched"] = False
    try:
        return said | {end: float(found[end]) for end in ("low", "high") if found[end]}
    except ValueError:
        raise UsageError(f"inputs {text!r}: {word!r} has no numbers in its range; {HOW}") from None


def inputs_problem(inputs: Sequence[Input]) -> str | None:
    """What contradicts itself, and the remedy; `None` where nothing does."""
    names = [one.name for one in inputs if one.name is not None]
    if twice := next((name for name in names if names.count(name) > 1), None):
        return f"the argument {twice} is given twice; keep one of them"
    if any(one.name is None and before.name is not None for before, one in pairwise(inputs)):
        return "an argument by position stands behind one by name; name it, or put it first"
    for one in inputs:
        low, high = one.low or 0.0, one.high if one.high is not None else 2.0 if one.is_whole else 1.0
        if (one.low is not None or one.high is not None) and high <= low:
            return f"the range {one.text.rpartition('/')[2]} is empty; `high` is above the largest value"
        if one.is_whole and not (low.is_integer() and high.is_integer()):
            return f"a range of {one.dtype} has whole ends; {one.text.rpartition('/')[2]} has not"
        if one.dtype in ("bool", "complex64") and (one.low is not None or one.high is not None):
            return f"{one.dtype} has no range; leave low and high out"
    return None


def sides_of(size: int | str) -> tuple[int, int]:
    """Height and width of an image size."""
    height, _, width = str(size).partition("x")
    return int(height), int(width or height)


def size_of(height: int, width: int) -> int | str:
    """The size of an image of these sides, as `Size` has it."""
    return height if height == width else f"{height}x{width}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"
