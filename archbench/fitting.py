"""How many images fit into a memory: by the network's predicted memory, and, where it is asked for, by trying."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from archbench.asked import one_cell
from archbench.device import resolve_device
from archbench.device.kind import kind_named, named_kind
from archbench.model.cell import Cell
from archbench.model.counts import MemoryModel, largest_batch
from archbench.model.errors import UnfitError, UsageError
from archbench.model.record import columns
from archbench.model.units import GIB, figure
from archbench.options import FitsOptions, keywords
from archbench.query.quantity import stored_value

NARROW = 0.01
"""How far apart the largest batch that ran and the smallest that did not may stay, as a share."""


class Edge(Struct, frozen=True, kw_only=True):
    """Real steps in processes that had no more than the memory asked about."""

    ran: int
    """The largest batch size that ran; 0 for none."""
    failed: int | None
    """The smallest that ran out of memory; `None` where twice the predicted one still ran."""
    peak_bytes: int | None
    """Live tensors at the peak of the largest that ran, measured."""
    tries: int


class Fits(Struct, frozen=True, kw_only=True):
    """The largest batch of one network, under its settings, in one memory. Bytes are of live tensors."""

    network: str
    cell: Cell
    """Of one image."""
    memory_bytes: int
    largest_batch: int
    """Predicted; 0 where not even one image fits."""
    peak_bytes: int | None
    """Predicted at that batch; `None` at 0."""
    next_peak_bytes: int
    """Predicted with one image more."""
    edge: Edge | None
    """What was tried, where that was asked for."""


@keywords(FitsOptions)
def fits(name: str, options: FitsOptions) -> Fits:
    """The largest batch of one network whose step fits into a memory, by the network's predicted memory.

    - `name`: as for `show`; `memory`: bytes, or as `"8GiB"`. `device`: also one that is not in this machine.
    - `phase`, `precision`, `memory_format`, `input_size` (pixels), `inputs`: as of `run`, one value each; steps are
      eager.
    - `verify`: run steps around the edge, in processes that have no more memory than that.

    Raises `UsageError`, and `UnfitError` where memory cannot be predicted or tried.
    """
    allow_code = options.allow_code
    axes = {axis: getattr(options, axis) for axis in ("phase", "precision", "memory_format", "input_size")}
    memory_bytes = _bytes(options.memory)
    kind = named_kind(options.device) or kind_named(resolve_device(options.device).partition(":")[0])
    cell, _ = one_cell(name, axes, kind.name, inputs=options.inputs, allow_code=allow_code)
    if options.verify:
        _refuse_to_try(cell, memory_bytes)
    from archbench.analyze.fresh import PREDICTING_S, FreshProcessError, FreshProcesses
    from archbench.analyze.memory import predict_cell
    from archbench.measure.metrics.footprint import peak_within

    aside = FreshProcesses()
    try:
        model: MemoryModel = aside.call_within(PREDICTING_S, predict_cell, cell, allow_code=allow_code)
    except FreshProcessError as error:
        raise UnfitError(f"{cell.network.label}: memory is not predicted: {error}") from error

    def peak(batch_size: int) -> int | None:
        try:
            return aside.call(peak_within, replace(cell, batch_size=batch_size), memory_bytes, allow_code=allow_code)
        except FreshProcessError as error:
            raise UnfitError(f"{cell.network.label}: cannot be tried at batch {batch_size}: {error}") from error

    largest = largest_batch(model.lines, memory_bytes)
    return Fits(
        network=cell.network.label,
        cell=cell,
        memory_bytes=memory_bytes,
        largest_batch=largest,
        peak_bytes=model.peak_bytes(largest) if largest else None,
        next_peak_bytes=model.peak_bytes(largest + 1),
        edge=found_edge(largest, peak) if options.verify else None,
    )


def found_edge(predicted: int, peak: Callable[[int], int | None]) -> Edge:
    """Try batch sizes from the predicted one outwards, then between, until `NARROW` tells where `peak` is `None`."""
    ran, failed, at, tries = 0, inf, None, 0
    step = max(1, round(predicted * NARROW))
    batch, stride = max(1, predicted), step
    while failed - ran > step and batch <= max(2, 2 * predicted):
        tries += 1
        found = peak(batch)
        if found is None:
            failed = batch
        else:
            ran, at = batch, found
        if ran and failed < inf:
            batch = (ran + int(failed)) // 2
        else:
            batch = max(1, batch + stride if ran else batch - stride)
            stride *= 2
    return Edge(ran=ran, failed=None if failed == inf else int(failed), peak_bytes=at, tries=tries)


def _bytes(memory: str | int) -> int:
    try:
        size = stored_value(str(memory), columns()["weight_bytes"], unit_known=isinstance(memory, int))
    except ValueError as error:
        raise UsageError(f"--memory {memory}: {str(error).replace('weight_bytes', 'it')}") from None
    if not 1 <= size < 2**63:
        raise UsageError(f"--memory {memory}: must be a size of memory, such as 8GiB")
    return int(size)


def _refuse_to_try(cell: Cell, memory_bytes: int) -> None:
    """A process that is given more than there is would be killed, and others with it."""
    from archbench.session import describe

    environment = describe(cell.device)
    room = kind_named(cell.device).room(environment)
    if room is not None and memory_bytes > room:
        raise UnfitError(
            f"--verify takes the {figure(memory_bytes, GIB)} GiB that --memory names, and only {figure(room, GIB)} GiB "
            "are free here; leave --verify out, or name less"
        )
