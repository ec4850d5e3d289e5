"""Cells: a suite multiplied out, those that a filter or `--only` means, what no device can do, one cell by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from math import prod
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from archbench import catalog
from archbench.catalog import Entry, counted_by_label
from archbench.device.kind import kind_named
from archbench.model.axes import AS_USUAL, PLAIN, ROLES, TOGGLES, TRAINING_ROLES, DeviceKind, Phase, Scalar, refusal
from archbench.model.cell import Cell, Network, parse_inputs, sides_of
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.suite import AXES, Filter, Section, Setting, Suite
from archbench.suite import selects, suite_from_entry
from archbench.suite.check import canonical

MAX_CELLS = 200_000
"""At three seconds a cell this is a week on one device: above it somebody has crossed axes by mistake."""


@cache
def entry_of(network: Network) -> Entry:
    """What the catalogue says of a network."""
    # Nothing of the user's is run by looking a name up; whether it may run was decided when the suite was read.
    return catalog.resolve(network.name, allow_code=True)


def input_size_of(network: Network) -> int | str | None:
    """The size at which the network is measured, as far as it is known without building it."""
    return network.input_size or (None if network.inputs else entry_of(network).input_size)


TYPICAL = "resnet50"
"""Stands for a network that the catalogue has no counts of."""


class Size(Struct, frozen=True, kw_only=True):
    """What a network's step costs follow from, per image."""

    flops: float
    activations: float
    operators: int
    params: int


@cache
def size_of(network: Network) -> Size:
    """The catalogue's counts, at the network's input size; a typical network's where it has none."""
    table = counted_by_label()
    counted = table.get(network.label) or table.get(network.name) or table[TYPICAL]
    counts = counted.counts
    native = entry_of(network).input_size or counts.input_shape[-1]
    area = prod(sides_of(network.input_size)) / native**2 if network.input_size else 1.0
    return Size(
        flops=counts.flops * area,
        activations=counts.activations * area,
        operators=sum(one.calls for one in counts.uncounted) + counts.depth,
        params=counts.params,
    )


def matches(filter: Filter, cell: Cell) -> bool:
    """Whether every field that the filter gives holds the cell's value."""
    if filter == _EVERYTHING:
        return True
    return all(
        any(selects(pattern, cell.network) for pattern in wanted)
        if name == "architecture"
        else _KEYS[name](cell) in wanted
        for name in Filter.__struct_fields__
        if (wanted := getattr(filter, name))
    )


_EVERYTHING = Filter()

_KEYS: dict[str, Callable[[Cell], object]] = {
    "batch_size": lambda cell: cell.batch_size,
    "input_size": lambda cell: input_size_of(cell.network),
    "phase": lambda cell: cell.phase,
    **{name: attrgetter(name) for name in TOGGLES},
    **{name: attrgetter(f"network.{name}") for name in ROLES},
    "threads": lambda cell: cell.threads,
    "device": lambda cell: cell.device,
    "setting": lambda cell: cell.setting,
    "family": lambda cell: entry_of(cell.network).family,
}


def expand(suite: Suite, device: DeviceKind) -> list[Cell]:
    """Every cell that the suite asks for on `device`, each once, in the order of the file.

    A cell of several sections belongs to the first. Raises `UsageError` beyond `MAX_CELLS`.
    """
    sections = suite.devices.get(device, (Section(),))
    found: dict[str, Cell] = {}
    for section in sections:
        for cell in _cells_of(suite, section, device):
            found.setdefault(cell.cell_id, cell)
    return list(found.values())


def _cells_of(suite: Suite, section: Section, device: DeviceKind) -> Iterator[Cell]:
    networks = [network for network in suite.architectures if _belongs(network, section)]
    phases: tuple[Phase, ...] = section.phase or suite.axes.phase or ("inference",)
    batches = section.batch_size or suite.axes.batch_size or (1,)
    sizes: tuple[int | str | None, ...] = section.input_size or suite.axes.input_size or (None,)
    settings = _settings(suite, section)
    threads: tuple[int | None, ...] = section.threads or suite.axes.threads or (None,)
    roles = _roles(suite, section)
    count = prod(map(len, (networks, phases, settings, sizes, threads, roles, batches)))
    if count > MAX_CELLS:
        what = f"suite {suite.suite} asks for {count:,} cells in one section for {device}; at most {MAX_CELLS:,} are"
        raise UsageError(f"{what} planned: give fewer values an axis, or settings in place of a product")
    every = product(networks, phases, settings, sizes, roles, threads)
    for network, phase, (name, setting), size, role, own_threads in every:
        sized = _in_role(_sized(network, size), role, phase)
        for batch in batches:
            cell = Cell(
                network=sized,
                batch_size=batch,
                phase=phase,
                **asdict(setting.toggles),
                device=device,
                threads=own_threads,
                setting=name,
            )
            if matches(setting.only, cell) and not any(matches(one, cell) for one in suite.exclude):
                yield cell


def _belongs(network: Network, section: Section) -> bool:
    if section.architectures is not None and not any(selects(one, network) for one in section.architectures):
        return False
    return section.family is None or entry_of(network).family in section.family


def _settings(suite: Suite, section: Section) -> list[tuple[str | None, Setting]]:
    """Toggles that the section crosses itself go before the suite's settings, and these before the suite's axes."""
    crossed = any(getattr(section, name) is not None for name in TOGGLES)
    if suite.settings and not crossed:
        names = suite.settings if section.settings is None else section.settings
        return [(name, suite.settings[name]) for name in names]
    axes = suite.axes
    values = [getattr(section, name) or getattr(axes, name) or (getattr(PLAIN, name),) for name in TOGGLES]
    return [(None, Setting(**dict(zip(TOGGLES, toggles, strict=True)))) for toggles in product(*values)]


def _roles(suite: Suite, section: Section) -> list[dict[str, Scalar]]:
    """Every combination of the roles that are axes."""
    values = {name: getattr(section, name) or getattr(suite.axes, name) for name in ROLES}
    given = {name: several for name, several in values.items() if several}
    return [dict(zip(given, one, strict=True)) for one in product(*given.values())]


def _in_role(network: Network, role: dict[str, Scalar], phase: Phase) -> Network:
    """The network in a role of the axes. Its own goes first; how it would be trained says nothing at inference."""
    changed = {name: value for name, value in role.items() if name not in network.roles}
    if phase == "inference":
        changed |= {name: getattr(AS_USUAL, name) for name in TRAINING_ROLES}
    return msgspec.structs.replace(network, **changed) if changed else network


def _sized(network: Network, size: int | str | None) -> Network:
    """The network at a size of the axis. Its own size goes first; its native size is not worth a name of its own."""
    if size is None or network.input_size is not None or network.inputs or size == entry_of(network).input_size:
        return network
    return msgspec.structs.replace(network, input_size=size)


# What cannot run whatever the network, known without torch. Everything else is for the worker to try. On the CPU, seen
# by running torch 2.15: fp16, bf16, amp-fp16 (with its loss scaler) and amp-bf16 all run forward and backward.
# `reduce-overhead` and `max-autotune` compile to the code of `default` and `max-autotune-no-cudagraphs`, and inductor
# counts a `cudagraph_skips`: such a cell would bear a name that it does not deserve, so it is refused.


def unsupported(cell: Cell) -> str | None:
    """Why `cell` cannot be what it says; `None` where nothing speaks against it."""
    if (reason := unsupported_toggle(cell)) is not None:
        return reason
    if cell.network.deploy and cell.phase == "training":
        return "deploy is the form for inference: it has no batch norm to train; measure it there"
    if cell.threads is not None and not kind_named(cell.device).is_host:
        return "threads are those of the CPU; leave them to the section `devices: {cpu: ...}`"
    shape = entry_of(cell.network).input_shape
    if cell.network.input_size is not None and shape is not None and len(shape) != 3:
        return f"{cell.network.name} takes vectors, which have no input_size"
    return None


def unsupported_toggle(cell: Cell) -> str | None:
    """Which of the cell's toggles its device cannot do, whatever the network; `None` where it can do all."""
    return kind_named(cell.device).refuses(cell.precision, cell.compile_mode) or refusal(cell, cell.phase, cell.device)


_LONGEST_PATTERN = 2000


class Only(Struct, frozen=True):
    """A pattern over cells, written as cells are: `resnet*`, `resnet50@batch_size=1,phase=training`, `@setting=amp`."""

    text: str
    name: str
    conditions: tuple[tuple[str, str], ...]

    def matches(self, cell: Cell) -> bool:
        """Whether the name (a shell pattern, over names and labels) and every condition fit the cell."""
        return (not self.name or selects(self.name, cell.network)) and all(
            _holds(key, value, cell) for key, value in self.conditions
        )


def parse_only(text: str) -> Only:
    """Read one `--only`. Raises `UsageError` for what is no pattern."""
    if len(text) > _LONGEST_PATTERN:  # the square of it is what a pattern of brackets takes
        raise UsageError(f"--only {text[:20]!r}...: {len(text):,} characters are no pattern of any cell")
    name, _, rest = text.partition("@")
    conditions = []
    for key, value in _pairs(rest, f"--only {text!r}", name):
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"; the keys are {', '.join(_KEYS)}"
            raise UsageError(f"--only {text!r}: unknown key {key!r}{hint}")
        conditions.append((key, value))
    if not name and not conditions:
        raise UsageError(f"--only {text!r} is empty; name a network, or @KEY=VALUE")
    return Only(text, canonical(name), tuple(conditions))


def select_only(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells that any pattern matches. Raises `UsageError` for a pattern that matches none, with what is near."""
    wanted = [parse_only(text) for text in patterns]
    for one in wanted:
        if not any(one.matches(cell) for cell in cells):
            raise UsageError(f"--only {one.text!r} matches no cell of the suite{_remedy(one, cells)}")
    return [cell for cell in cells if any(one.matches(cell) for one in wanted)]


def _remedy(one: Only, cells: Sequence[Cell]) -> str:
    named = [cell for cell in cells if not one.name or selects(one.name, cell.network)]
    if not named:
        labels = dict.fromkeys(cell.network.label for cell in cells)
        return did_you_mean(one.name, labels) or f"; it has {', '.join(list(labels)[:8])}{', ...' * (len(labels) > 8)}"
    for key, value in one.conditions:
        if not any(_holds(key, value, cell) for cell in named):
            there = dict.fromkeys(str(_KEYS[key](cell)) for cell in named)
            return f"; {key} is {', '.join(there)} there"
    return "; each condition matches some cell, but no cell matches all of them"


def _holds(key: str, pattern: str, cell: Cell) -> bool:
    return fnmatchcase(str(_KEYS[key](cell)), pattern)


_OWN = ("num_classes", "in_channels", *ROLES, "input_size", "inputs", "weights")
"""What a label's brackets may hold besides the network's own options."""
_LABEL = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<inside>[^\[\]]*)\])?")


def parse_cell(text: str, device: DeviceKind, *, inputs: Any = None, allow_code: bool = False) -> Cell:
    """The cell that `resnet50@batch_size=1,precision=amp-bf16` means on a device; what it leaves out has its default.

    The whole id of a stored cell is understood too, brackets included. `inputs`: as a suite has them, for a network
    that does not say them itself. Raises `UsageError`, quoting the text, for what
    names no cell or one of another device, and for one that cannot be what it says on this device.
    """
    label, _, rest = text.strip().rpartition("@") if "@" in text else (text.strip(), "", "")
    found = _LABEL.fullmatch(label)
    if found is None:
        raise UsageError(f"{text!r} is no cell; write for example resnet50@batch_size=1,precision=amp-bf16")
    values = _given(rest, text)
    wanted = values.pop("device", device)
    if wanted != device:
        raise UsageError(f"{text!r}: is a cell of {wanted}, and this duel is on {device}; see --device")
    for key in values:
        if key not in AXES:
            raise UsageError(
                f"{text!r}: unknown key {key!r}{did_you_mean(key, AXES) or '; the keys are ' + ', '.join(AXES)}"
            )
    entry: dict[str, Any] = {"name": found["name"], **({"inputs": inputs} if inputs else {})}
    for key, value in _given(found["inside"] or "", text).items():
        if key == "inputs":
            entry[key] = parse_inputs(value)
        elif key in _OWN:
            entry[key] = _scalar(value)
        else:
            entry.setdefault("options", {})[key] = _scalar(value)
    axes = {key: [_scalar(value)] for key, value in values.items()}
    try:
        (cell,) = expand(suite_from_entry(entry, axes, allow_code=allow_code), device)
    except UsageError as error:
        raise UsageError(f"{text!r}: {error}") from None
    reason = unsupported(cell)
    if reason is not None:
        raise UsageError(f"{text!r}: {reason}")
    return cell


def _pairs(text: str, of: str, example: str) -> Iterator[tuple[str, str]]:
    """`KEY=VALUE,KEY=VALUE`, in order; `of` and `example` are for the error where it is something else."""
    for word in text.split(",") if text else ():
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not value:
            raise UsageError(f"{of}: {word!r} is not KEY=VALUE; write for example {example}@batch_size=1")
        yield key, value


def _given(text: str, whole: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _pairs(text, repr(whole), "resnet50"):
        if key in found:
            raise UsageError(f"{whole!r}: gives {key} twice")
        found[key] = value
    return found


def _scalar(text: str) -> Scalar:
    """A value as labels print it: JSON where it is a number, a flag or null, else the text itself."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) or value is None else text
