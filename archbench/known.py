"""What is known of one network without timing it: all of it, and how many images fit into a memory.

From the catalogue's tables, or by counting and predicting here and now; where it is asked for, the edge of a memory is
found by trying. The only place where the parent side imports torch: nothing is timed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from archbench.catalog import Counted, Entry, resolve
from archbench.catalog.card import Shown, card, stored
from archbench.device import resolve_device
from archbench.device.kind import kind_named, named_kind
from archbench.model.axes import PHASES, Head, Scalar
from archbench.model.cell import Cell, Network
from archbench.model.counts import MemoryModel, largest_batch
from archbench.model.errors import UnfitError, UsageError
from archbench.model.record import columns
from archbench.model.units import GIB, figure
from archbench.options import FitsOptions, ShowOptions, keywords, several
from archbench.query.quantity import stored_value
from archbench.session import describe, one_cell
from archbench.suite import suite_from_names

_SECOND_COUNT_LIMIT_BYTES = 2**30
"""Heavier networks are not put into memory for a second count unless that is asked for."""
NARROW = 0.01
"""How far apart the largest batch that ran and the smallest that did not may stay, as a share."""


@keywords(ShowOptions)
def show(name: str, options: ShowOptions) -> Shown:
    """All that is known of one network without timing it, each figure with its source.

    `name`: of the catalogue, `torchvision:NAME`, `timm:NAME` or `module:function`. `inputs`: as in a suite, or as
    `"3x224x160+ids=77/int64/0..30000"`; `option`: `{"aux_logits": True}` or `"aux_logits=true"`. A network that no
    table knows, or whose memory is asked for, is built on tensors without data. Raises `UsageError`.
    """
    if options.head not in get_args(Head):
        raise UsageError(f"--head {options.head}: must be {' or '.join(get_args(Head))}")
    entry = resolve(name, allow_code=options.allow_code)
    option, size = options.option, options.input_size
    texts: list[str] = [] if isinstance(option, Mapping) else several(option)
    said = {
        "options": dict(option) if isinstance(option, Mapping) else dict(map(_option, texts)),
        "num_classes": options.num_classes,
        "in_channels": options.in_channels,
        "head": options.head,
        "deploy": options.deploy or None,
        "input_size": int(str(size)) if str(size).isdecimal() else size,
        "inputs": options.inputs,
    }
    common = {key: value for key, value in said.items() if value not in (None, {})}
    (network,) = suite_from_names([name], common=common, allow_code=options.allow_code).architectures
    if options.build or options.batch_size is not None or stored(network) is None:
        return _built(entry, network, options)
    return card(entry, network, stored(network))


def _built(entry: Entry, network: Network, options: ShowOptions) -> Shown:
    """Count the network here and now."""
    from archbench.analyze.counts import count, second_opinion
    from archbench.analyze.fresh import COUNTING_S, PREDICTING_S, FreshProcessError, FreshProcesses, call_apart
    from archbench.analyze.memory import predict_cell
    from archbench.catalog.build import feature_width

    batch_size, allow_code = options.batch_size or 1, options.allow_code
    aside = FreshProcesses() if entry.source == "user code" else None
    try:
        counts = call_apart(aside, COUNTING_S, count, network, allow_code=allow_code)
        width = call_apart(aside, COUNTING_S, feature_width, network, allow_code=allow_code)
    except FreshProcessError as error:
        raise UsageError(f"{network.label}: cannot be counted: {error}") from None
    second, no_second = None, None
    if options.build or counts.weight_bytes <= _SECOND_COUNT_LIMIT_BYTES:
        try:
            second = call_apart(aside, COUNTING_S, second_opinion, network, counts, allow_code=allow_code)
        except (UsageError, FreshProcessError) as error:  # no reason to show nothing; likewise below
            no_second = str(error)
    peaks: dict[str, int] = {}
    unpredicted = None
    for phase in PHASES:
        cell = Cell(network=network, batch_size=batch_size, phase=phase)
        try:
            model = call_apart(aside, PREDICTING_S, predict_cell, cell, allow_code=allow_code)
            peaks[phase] = model.peak_bytes(batch_size)
        except (UnfitError, FreshProcessError) as error:
            unpredicted = unpredicted or f"memory of {phase} is not predicted: {error}"
    return card(
        entry,
        network,
        Counted(counts=counts, feature_width=width),
        batch_size=batch_size,
        predicted_inference_peak_bytes=peaks.get("inference"),
        predicted_training_peak_bytes=peaks.get("training"),
        unpredicted=unpredicted,
        second_opinion=second,
        no_second_opinion=no_second,
    )


def _option(text: str) -> tuple[str, Scalar]:
    """`aux_logits=true` as ("aux_logits", True): numbers, true, false and null as in a suite, all else as text."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--option {text}: must be KEY=VALUE, as in --option aux_logits=true")
    try:
        return key, msgspec.json.decode(value, type=Scalar)
    except (msgspec.DecodeError, RecursionError):
        return key, value


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

    `name`: as for `show`; `memory`: bytes, or as `"8GiB"`; `device`: also one that is not in this machine. Steps are
    eager.

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
        model: MemoryModel = aside.call(PREDICTING_S, predict_cell, cell, allow_code=allow_code)
    except FreshProcessError as error:
        raise UnfitError(f"{cell.network.label}: memory is not predicted: {error}") from error

    def peak(batch_size: int) -> int | None:
        try:
            return aside.call(
                None, peak_within, replace(cell, batch_size=batch_size), memory_bytes, allow_code=allow_code
            )
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
    environment = describe(cell.device)
    room = kind_named(cell.device).room(environment)
    if room is not None and memory_bytes > room:
        raise UnfitError(
            f"--verify takes the {figure(memory_bytes, GIB)} GiB that --memory names, and only {figure(room, GIB)} GiB "
            "are free here; leave --verify out, or name less"
        )
