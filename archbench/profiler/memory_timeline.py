"""Where the memory of one step goes: a real step is watched, and every byte that its allocator held is accounted for.

On the CPU the totals are the allocator's own, from the profiler's memory events; on CUDA its peak around each operator.
What tensors account for is told apart by category; what the allocator held beyond them is workspace of the operator
that ran. So the categories add up to the measured bytes. Watching could only change them by changing the step:
`MemoryTimeline.measured_peak_bytes`, of a step that nobody watched, shows whether it did.
"""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from msgspec import structs

from archbench.analyze.memory import MEMORY, memory_events, peak_rise
from archbench.device.kind import Allocator, kind_of
from archbench.measure.workload import Workload
from archbench.model.errors import UnfitError
from archbench.model.profile import CATEGORIES, MemoryHolder, MemoryPoint, MemoryTimeline, SavedBytes, StageMemory
from archbench.profiler.boundaries import Boundaries
from archbench.profiler.rows import stage_of
from archbench.profiler.storage_log import MARK, Block, StorageLog
from archbench.profiler.timing import observe, open_boundaries

MOST_POINTS = 400
"""As many as a chart can show."""
MOST_HOLDERS = 40
"""Allocations that are named one by one."""
COMPILED = (
    "A compiled step does not say what its memory is for: beside weights, optimizer state and inputs all of it is "
    "unattributed. Profile it with compile mode off for the categories."
)


def memory_timeline(
    workload: Workload, stages: Sequence[str] = (), predicted_peak_bytes: int | None = None
) -> MemoryTimeline:
    """Account for the memory of one step of `workload`, which must have done a step before.

    `stages` are the paths of the network's stages, in order. Does three steps. Raises what the step raises:
    `torch.OutOfMemoryError`, or the CPU's RuntimeError, where there is no room.
    """
    boundaries = open_boundaries(workload, lambda: None)
    log = StorageLog(workload.module, workload.device, boundaries)
    log.hold([*workload.module.named_parameters(), *workload.module.named_buffers()], "weights")
    log.hold(workload.optimizer_state(), "optimizer")
    log.hold(workload.ready(), "inputs")
    standing = sum(block.bytes for block in log.blocks)
    measured = _measured_peak(workload, standing)
    if workload.cell.compile_mode == "off":
        points = _points(log, _watch(log, boundaries, workload, standing))
    else:
        points = _unattributed(log, workload)
    peak = max(range(len(points)), key=lambda number: points[number].total)
    alive = [block for block in log.blocks if block.born <= peak and (block.died is None or block.died > peak)]
    saved = [block for block in log.blocks if block.category == "activations"]
    return MemoryTimeline(
        points=_thinned(_changes(points)),
        operators=len(points),
        measured_peak_bytes=measured,
        predicted_peak_bytes=predicted_peak_bytes,
        holders=_holders(alive, stages),
        saved_bytes=sum(block.bytes for block in saved),
        saved_by_operator=_by_operator(saved),
        stages=_by_stage(saved, alive, stages),
        note="" if workload.cell.compile_mode == "off" else COMPILED,
    )


def _measured_peak(workload: Workload, standing: int) -> int:
    """Peak bytes of a step that nobody watches. CPU: above `standing`, the bytes alive before it."""
    allocator = _allocator(workload)
    if allocator is None:
        return standing + peak_rise(workload.step)
    kind = kind_of(workload.device)
    kind.synchronize(workload.device)
    allocator.reset_peaks()
    workload.step()
    kind.synchronize(workload.device)
    return allocator.peak_allocated()


def _allocator(workload: Workload) -> Allocator | None:
    return kind_of(workload.device).allocator(workload.device)


def _watch(log: StorageLog, boundaries: Boundaries[Any], workload: Workload, standing: int) -> list[int]:
    """Do a step under the eyes of `log`; return the most bytes that the allocator held during each operator.

    Follows `_measured_peak`, whose steps have shown the CPU's allocator whatever this one will free.
    """

    def step() -> None:
        with log.watching():
            observe(workload, boundaries)

    if _allocator(workload) is not None:
        step()
        return [operator.inside or 0 for operator in log.operators]
    live = standing
    levels: list[int] = []
    ends_ns = 0
    for event in memory_events(step):
        name = event.name()
        if name.startswith(MARK):
            levels.append(live)
            ends_ns = event.end_ns()
        elif name == MEMORY:
            live += event.nbytes()
            if levels and event.start_ns() <= ends_ns:
                levels[-1] = max(levels[-1], live)
    return levels


def _points(log: StorageLog, levels: Sequence[int]) -> list[MemoryPoint]:
    """One point for each operator: what tensors account for, and the rest of the allocator's level as workspace."""
    changes: dict[int, Counter[str]] = defaultdict(Counter)
    for block in log.blocks:
        changes[max(block.born, 0)][block.category] += block.bytes
        if block.died is not None:
            changes[block.died][block.category] -= block.bytes
    held: Counter[str] = Counter(dict.fromkeys(CATEGORIES, 0))
    points = []
    for number, (operator, level) in enumerate(zip(log.operators, levels, strict=True)):
        for category, change in changes[number].items():
            held[category] += change
        held["workspace"] = 0
        held["workspace"] = max(level - held.total(), 0)
        points.append(MemoryPoint(section=operator.section, module=operator.module, operator=operator.name, **held))
    return points


def _changes(points: Sequence[MemoryPoint]) -> list[MemoryPoint]:
    """Those that differ from the one before in more than the operator's name: an optimizer's hundreds do not."""
    before = [None, *points]
    return [
        point
        for point, last in zip(points, before, strict=False)
        if last is None or (point.section, point.by_category) != (last.section, last.by_category)
    ]


def _unattributed(log: StorageLog, workload: Workload) -> list[MemoryPoint]:
    """The same of a compiled step, from its allocator alone, a point for each allocation."""
    held: Counter[str] = Counter(dict.fromkeys(CATEGORIES, 0))
    for block in log.blocks:
        held[block.category] += block.bytes
    start = MemoryPoint(section="compiled", module="", operator="", **held)
    if _allocator(workload) is not None:
        extra = [_measured_peak(workload, 0) - start.total]
    else:
        extra = list(accumulate(e.nbytes() for e in memory_events(workload.step) if e.name() == MEMORY))
    return [start, *(structs.replace(start, unattributed=max(more, 0)) for more in extra)]


def _thinned(points: Sequence[MemoryPoint]) -> tuple[MemoryPoint, ...]:
    """The largest of each stretch, the peak among them."""
    stretch = -(-len(points) // MOST_POINTS)
    starts = range(0, len(points), stretch)
    return tuple(max(points[start : start + stretch], key=lambda point: point.total) for start in starts)


def _holders(alive: Sequence[Block], stages: Sequence[str]) -> tuple[MemoryHolder, ...]:
    largest = sorted(alive, key=lambda block: -block.bytes)[:MOST_HOLDERS]
    return tuple(
        MemoryHolder(
            category=block.category,
            path=block.path,
            stage=stage_of(block.path, stages),
            operator=block.operator,
            shape=block.shape,
            dtype=block.dtype,
            bytes=block.bytes,
        )
        for block in largest
    )


def _by_operator(saved: Sequence[Block]) -> tuple[SavedBytes, ...]:
    kinds: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for block in saved:
        kinds[block.operator, tuple(sorted(block.needed_by))].append(block.bytes)
    found = [
        SavedBytes(made_by=made_by, needed_by=needed_by, tensors=len(sizes), bytes=sum(sizes))
        for (made_by, needed_by), sizes in kinds.items()
    ]
    return tuple(sorted(found, key=lambda kind: -kind.bytes))


def _by_stage(saved: Sequence[Block], alive: Sequence[Block], stages: Sequence[str]) -> tuple[StageMemory, ...]:
    kept: Counter[str] = Counter()
    standing: Counter[str] = Counter()
    for block in saved:
        kept[stage_of(block.path, stages)] += block.bytes
    for block in alive:
        standing[stage_of(block.path, stages)] += block.bytes
    return tuple(
        StageMemory(stage=stage, saved_bytes=kept[stage], peak_bytes=standing[stage])
        for stage in (*stages, "")
        if kept[stage] or standing[stage]
    )


def write_snapshot(workload: Workload, path: Path) -> None:
    """Do one step and write CUDA's memory snapshot of it, which https://pytorch.org/memory_viz shows.

    Raises `UnfitError` on other devices, and where `path` cannot be written.
    """
    allocator = _allocator(workload)
    if allocator is None:
        raise UnfitError("a memory snapshot is CUDA's; the memory timeline says the same of the CPU")
    snapshot = allocator.snapshot(workload.step)
    try:
        path.write_bytes(pickle.dumps(snapshot))
    except OSError as error:
        raise UnfitError(f"cannot write the memory snapshot {path}: {error.strerror}; give another place") from error
