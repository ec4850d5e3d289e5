"""What is measured: a network with what it takes, the toggles it runs under, one cell, and the groups of a process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from archbench.model.axes import DeviceKind, Phase, Roles, Scalar, Toggled
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


PositiveInt = Annotated[int, Meta(ge=1, le=1_000_000)]
Threads = Annotated[int, Meta(ge=1, le=1024)]


Percent = Annotated[float, Meta(ge=1.0, le=100.0)]
"""From 1 %: less is a share of 1 by mistake."""
Words = Annotated[str, Meta(min_length=1, max_length=200)]


class StatedAccuracy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An accuracy in percent that a suite's author states of a network; it is believed, not measured."""

    top1: Percent
    top5: Percent | None = None
    source: Words
    """Whose figure it is: `our training, run 17`."""
    dataset: Words
    """What it is of, `ImageNet`; figures of different data sets are never ranked together."""


class Network(Roles, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One buildable network: a catalogue name (`resnet50`), `torchvision:NAME`, `timm:NAME` or `module:function`.

    `None` means the network's own default (its native input size, its published number of classes).
    """

    name: str
    options: dict[str, Scalar] = {}
    num_classes: PositiveInt | None = None
    in_channels: PositiveInt | None = None
    input_size: Size | None = None
    inputs: tuple[Input, ...] = ()
    """Empty: what its own code says, else one image."""
    weights: str | None = None
    """Trained ones: a file, or a tag of the library that publishes them; `None`: random ones."""
    accuracy: StatedAccuracy | None = None
    """Goes before what is published. It changes nothing that is measured, so it is in no label and no id."""

    def __post_init__(self) -> None:
        # Sorted, so that two spellings of the same options are the same network, with the same id.
        msgspec.structs.force_setattr(self, "options", dict(sorted(self.options.items())))

    def __hash__(self) -> int:
        return hash((self.name, self.input_size))  # what tells most from each other; a label takes longer to make

    @property
    def weights_file(self) -> Path | None:
        """The file that weights are named by; `None` where they are named by a tag, or are random."""
        file = Path(self.weights or "")
        return file if file.suffix in (".pth", ".pt", ".safetensors", ".bin") else None

    def require_weights(self) -> None:
        """Raise `UsageError` where weights are named by a file that is not there."""
        if self.weights_file is not None and not self.weights_file.is_file():
            raise UsageError(f"{self.label}: there are no weights at {self.weights_file}; mend the path, or copy them")

    @cached_property
    def label(self) -> str:
        """The network in one word: its name, and whatever departs from its defaults in square brackets."""
        fields = ("num_classes", "in_channels", "input_size")
        departures = self.options | {name: value for name in fields if (value := getattr(self, name)) is not None}
        if self.inputs:
            departures["inputs"] = text_of(self.inputs)
        departures |= self.roles
        if self.weights is not None:
            departures["weights"] = re.split(r"[/\\]", self.weights)[-1]
        inside = ",".join(f"{key}={_plain(value)}" for key, value in departures.items())
        return f"{self.name}[{inside}]" if inside else self.name


class Cell(Toggled, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One point of a suite: a network at one batch size, phase and set of toggles, on one kind of device."""

    network: Network
    batch_size: PositiveInt
    phase: Phase = "inference"
    device: DeviceKind = "cpu"
    threads: Threads | None = None
    """Of one operator, on the CPU; `None`: what the machine has by default (`archbench.measure.state`)."""
    setting: str | None = None
    """Name of the suite's bundle of toggles; a label only, not part of the cell's identity."""

    @cached_property
    def cell_id(self) -> str:
        """Readable and complete, equal on every machine and in every suite; `--only` accepts it."""
        return f"{self.network.label}@batch_size={self.batch_size},{self._conditions}"

    @cached_property
    def group_id(self) -> str:
        """The cell without its batch size: what one worker process measures in turn."""
        return f"{self.network.label}@{self._conditions}"

    @property
    def _conditions(self) -> str:
        """Axes that came later only where they are given: cells stored before there was a choice keep their ids."""
        younger = "" if self.runtime == "torch" else f"runtime={self.runtime},"
        younger += "" if self.quantize == "off" else f"quantize={self.quantize},"
        younger += "" if self.threads is None else f"threads={self.threads},"
        toggles = f"precision={self.precision},compile_mode={self.compile_mode},memory_format={self.memory_format}"
        return f"phase={self.phase},{toggles},{younger}device={self.device}"


_USUAL = frozenset({"phase=inference", "precision=fp32", "compile_mode=off", "memory_format=contiguous"})
"""Conditions of a cell's id that say nothing: they are what a cell has unless told otherwise."""


def short_id(cell_id: str) -> str:
    """`resnet50@batch_size=4` of a whole id: without its device and what is as usual; `--only` takes it, too."""
    network, at, conditions = cell_id.rpartition("@")
    if not at:
        return cell_id
    kept = [one for one in conditions.split(",") if one not in _USUAL and not one.startswith("device=")]
    return f"{network}@{','.join(kept)}"


def network_of(cell_id: str) -> str:
    """The part of a cell's id that says which network it is of."""
    return cell_id.rpartition("@")[0] or cell_id


def without_threads(cell_id: str) -> str:
    """The id of the same cell at the machine's default number of threads."""
    network, at, conditions = cell_id.rpartition("@")
    return network + at + ",".join(one for one in conditions.split(",") if not one.startswith("threads="))


def is_user_code(name: str) -> bool:
    """Whether a network's name is a `module:function` of the user's, which runs only where `--allow-code` says so."""
    module, colon, _ = name.partition(":")
    return bool(colon) and module not in ("torchvision", "timm")


def is_passed(name: str) -> bool:
    """Whether a network's name (`TinyNet#3f2a91bc`) is that of an object that Python code passed to `archbench.run`."""
    return _PASSED.fullmatch(name) is not None


_PASSED = re.compile(r"[^\W\d]\w*#[0-9a-f]{8}")


def file_stem(cell_id: str) -> str:
    """A short name for a cell's files, safe in any file system, whatever the network is called."""
    return hashlib.sha256(cell_id.encode()).hexdigest()[:20]


def process_key(cell: Cell) -> str:
    """The group that measures `cell`: eager TF32 and AMP cells join the fp32 ones, whose weights they share."""
    joins = cell.is_eager and cell.precision not in ("bf16", "fp16")
    return msgspec.structs.replace(cell, precision="fp32").group_id if joins else cell.group_id


class Group(Struct, frozen=True, kw_only=True, dict=True):
    """Cells of one network under one set of toggles, batch sizes ascending; measured by one process.

    Eager precisions that keep the weights in fp32 count as one there: they run the same weights, each under switches of
    its own.

    `visit` tells apart several visits of one round (the twin is measured first, in between and last); 0 elsewhere.
    """

    cells: tuple[Cell, ...]
    visit: int = 0

    @cached_property
    def group_id(self) -> str:
        """What all of its cells have in common, readable: see `Cell.group_id`. It says fp32 for TF32 and AMP too."""
        return process_key(self.cells[0])


class Skip(Struct, frozen=True, kw_only=True):
    """A cell that will not be measured, and why."""

    cell: Cell
    reason: str


class Shard(Struct, frozen=True, kw_only=True):
    """A part of a plan that is measured by itself, on any machine."""

    number: int
    """From 1."""
    of: int
    split: str = ""
    """Hash of which groups are in which shard: equal in shards that belong together."""
    rows: int = 0
    """Rows that it has once it is finished."""

    @property
    def word(self) -> str:
        """`3/16`, as `--shard` takes it."""
        return f"{self.number}/{self.of}"


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that a run will do: for each round its groups in the order in which they will run."""

    suite: str
    device: DeviceKind
    seed: int
    rounds: tuple[tuple[Group, ...], ...]
    skipped: tuple[Skip, ...] = ()
    short: bool = False
    """Rounds after the first only take times, of the smallest cell of each group that need not be compiled for it."""
    predicted_s: float | None = None
    """How long the run is expected to take, from the command to its report; `None` where nobody asked."""
    predicted_from: str | None = None
    """What that is known by: stored rows of this class of hardware, or constants."""
    shard: Shard | None = None
    """The part of the suite that this is; `None`: all of it."""

    @property
    def visits(self) -> int:
        """Cells, each as often as it is measured."""
        return sum(len(group.cells) for groups in self.rounds for group in groups)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Each distinct cell once, in the order of the first round."""
        return tuple(dict.fromkeys(cell for group in self.rounds[0] for cell in group.cells)) if self.rounds else ()


def _plain(value: Scalar) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
