"""A suite's sections, axes and settings multiplied out into cells for one device."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import msgspec
from msgspec import Struct

from archbench.model.axes import CompileMode, DeviceKind, MemoryFormat, Phase, Precision
from archbench.model.cell import Cell, Network
from archbench.model.errors import UsageError
from archbench.model.suite import Filter, Section, Suite
from archbench.suite import selects
from archbench.suite.match import entry_of, matches

MAX_CELLS = 200_000
"""At three seconds a cell this is a week on one device: above it somebody has crossed axes by mistake."""


class _Bundle(Struct, frozen=True):
    """One set of toggles, whether a setting names it or a product of axes holds it."""

    setting: str | None
    precision: Precision
    compile_mode: CompileMode
    memory_format: MemoryFormat
    only: Filter = Filter()


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
    sizes: tuple[int | None, ...] = section.input_size or suite.axes.input_size or (None,)
    bundles = _bundles(suite, section)
    count = prod(map(len, (networks, phases, bundles, sizes, batches)))
    if count > MAX_CELLS:
        what = f"suite {suite.suite} asks for {count:,} cells in one section for {device}; at most {MAX_CELLS:,} are"
        raise UsageError(f"{what} planned: give fewer values an axis, or settings in place of a product")
    for network, phase, bundle, size in product(networks, phases, bundles, sizes):
        sized = _sized(network, size)
        for batch in batches:
            cell = Cell(
                network=sized,
                batch_size=batch,
                phase=phase,
                precision=bundle.precision,
                compile_mode=bundle.compile_mode,
                memory_format=bundle.memory_format,
                device=device,
                setting=bundle.setting,
            )
            if matches(bundle.only, cell) and not any(matches(one, cell) for one in suite.exclude):
                yield cell


def _belongs(network: Network, section: Section) -> bool:
    if section.architectures is not None and not any(selects(one, network) for one in section.architectures):
        return False
    return section.family is None or entry_of(network).family in section.family


def _bundles(suite: Suite, section: Section) -> list[_Bundle]:
    """Toggles that the section crosses itself go before the suite's settings, and these before the suite's axes."""
    crossed = any(toggle is not None for toggle in (section.precision, section.compile_mode, section.memory_format))
    if suite.settings and not crossed:
        names = suite.settings if section.settings is None else section.settings
        return [
            _Bundle(name, one.precision, one.compile_mode, one.memory_format, one.only)
            for name in names
            for one in (suite.settings[name],)
        ]
    axes = suite.axes
    return [
        _Bundle(None, *toggles)
        for toggles in product(
            section.precision or axes.precision or ("fp32",),
            section.compile_mode or axes.compile_mode or ("off",),
            section.memory_format or axes.memory_format or ("contiguous",),
        )
    ]


def _sized(network: Network, size: int | None) -> Network:
    """The network at a size of the axis. Its own size goes first; its native size is not worth a name of its own."""
    if size is None or network.input_size is not None or size == entry_of(network).input_size:
        return network
    return msgspec.structs.replace(network, input_size=size)
