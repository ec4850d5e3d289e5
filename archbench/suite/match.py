"""Which cells a filter or an `--only` pattern means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache

from msgspec import Struct

from archbench import catalog
from archbench.catalog import Entry
from archbench.model.cell import Cell, Network
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.suite import Filter
from archbench.suite import selects


@cache
def _entry(name: str) -> Entry:
    # Nothing of the user's is run by looking a name up; whether it may run was decided when the suite was read.
    return catalog.resolve(name, allow_code=True)


def entry_of(network: Network) -> Entry:
    """What the catalogue says of a network."""
    return _entry(network.name)


def input_size_of(network: Network) -> int | None:
    """The side at which the network is measured, as far as it is known without building it."""
    return network.input_size or entry_of(network).input_size


def matches(filter: Filter, cell: Cell) -> bool:
    """Whether every field that the filter gives holds the cell's value."""
    if filter == _EVERYTHING:
        return True
    network = cell.network
    return (
        (not filter.architecture or any(selects(pattern, network) for pattern in filter.architecture))
        and (not filter.family or entry_of(network).family in filter.family)
        and (not filter.setting or cell.setting in filter.setting)
        and (not filter.batch_size or cell.batch_size in filter.batch_size)
        and (not filter.input_size or input_size_of(network) in filter.input_size)
        and (not filter.phase or cell.phase in filter.phase)
        and (not filter.precision or cell.precision in filter.precision)
        and (not filter.compile_mode or cell.compile_mode in filter.compile_mode)
        and (not filter.memory_format or cell.memory_format in filter.memory_format)
        and (not filter.device or cell.device in filter.device)
    )


_EVERYTHING = Filter()

_KEYS: dict[str, Callable[[Cell], object]] = {
    "batch_size": lambda cell: cell.batch_size,
    "input_size": lambda cell: input_size_of(cell.network),
    "phase": lambda cell: cell.phase,
    "precision": lambda cell: cell.precision,
    "compile_mode": lambda cell: cell.compile_mode,
    "memory_format": lambda cell: cell.memory_format,
    "device": lambda cell: cell.device,
    "setting": lambda cell: cell.setting,
    "family": lambda cell: entry_of(cell.network).family,
}


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
    name, _, rest = text.partition("@")
    conditions = []
    for word in rest.split(",") if rest else ():
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not value:
            raise UsageError(f"--only {text!r}: {word!r} is not KEY=VALUE; write for example {name}@batch_size=1")
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"; the keys are {', '.join(_KEYS)}"
            raise UsageError(f"--only {text!r}: unknown key {key!r}{hint}")
        conditions.append((key, value))
    if not name and not conditions:
        raise UsageError(f"--only {text!r} is empty; name a network, or @KEY=VALUE")
    return Only(text, _known_as(name), tuple(conditions))


def select_only(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells that any pattern matches. Raises `UsageError` for a pattern that matches none, with what is near."""
    wanted = [parse_only(text) for text in patterns]
    for one in wanted:
        if not any(one.matches(cell) for cell in cells):
            raise UsageError(f"--only {one.text!r} matches no cell of the suite{_remedy(one, cells)}")
    return [cell for cell in cells if any(one.matches(cell) for one in wanted)]


def _known_as(name: str) -> str:
    """The catalogue's name for an alias; anything else unchanged."""
    try:
        return _entry(name).name
    except UsageError:
        return name


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
