"""Puts what was timed, counted and moved for each module into rows that add up; of a suite's cell, those of stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import torch
from msgspec import Struct
from msgspec.structs import replace
from torch import nn

from archbench.analyze.counts import decomposed_attention, device_of, evaluating, on_module
from archbench.analyze.forward_trace import ForwardTrace, StageRecorder
from archbench.analyze.step import settled
from archbench.catalog.build import takes_of
from archbench.catalog.inputs import Takes
from archbench.device.kind import Clock
from archbench.measure.workload import Workload
from archbench.model.axes import Precision
from archbench.model.cell import Network
from archbench.model.counts import Stage
from archbench.model.environment import Calibration
from archbench.model.profile import Bound, ModuleProfile, StageProfile, StepPart
from archbench.profiler.boundaries import PARTS, Boundaries, Owner, StepTimes, between, time_by_module
from archbench.profiler.traffic import Traffic, watch_traffic

TIMING_S = 2.0
"""Of a suite's cell: stages are told to a per cent or two, and a suite has hundreds of cells."""


class ModuleCounts(Struct, frozen=True, kw_only=True):
    """Per image, of one forward pass in evaluation mode."""

    macs: int
    own_macs: Counter[str]
    """By path, without the modules inside; adds up to `macs`."""
    stages: tuple[Stage, ...]
    paths: tuple[str, ...]
    """Of every module that ran, and of those that hold one."""
    whole: bool
    """No operator with products was left out; else `macs` is a lower bound."""


def count_by_module(network: Network, *, allow_code: bool = False) -> ModuleCounts:
    """Count without data; where the network's forward looks at values, with data.

    Raises whatever the network's own code raises on real tensors.
    """
    given = takes_of(network, allow_code=allow_code)
    return on_module(network, lambda module: _count(module, given), allow_code=allow_code)


def _count(module: nn.Module, given: Takes) -> ModuleCounts:
    device = device_of(module)
    batch = given.blank(1, device)
    trace = ForwardTrace(module, batch.tensors)

    def macs() -> int:
        return trace.macs

    boundaries = Boundaries(module, macs)
    recorder = StageRecorder(module, macs)
    with evaluating(module), decomposed_attention(), torch.inference_mode(), device, recorder, boundaries, trace:
        settled(batch(module))
    boundaries.end()
    had = between(boundaries.marks, lambda before, after: after - before)
    own = Counter({owner.path: int(count) for owner, count in had.items() if count})
    ran = [owner.path.split(".") for owner in had]
    paths = dict.fromkeys(".".join(path[: depth + 1]) for path in ran for depth in range(len(path)))
    return ModuleCounts(
        macs=trace.macs, own_macs=own, stages=recorder.stages(), paths=tuple(paths), whole=trace.is_whole
    )


class Ceilings(Struct, frozen=True, kw_only=True):
    """Measured: FLOP/s of a product at the cell's arithmetic, bytes per second of a copy."""

    flops: float
    bandwidth: float

    @classmethod
    def of(cls, calibration: Calibration, precision: Precision) -> Ceilings | None:
        """Those of an arithmetic; `None` where it was not calibrated on this device."""
        peak = calibration.peak(precision)
        return None if peak is None else cls(flops=peak, bandwidth=calibration.copy_bytes_per_s)


class Tally(Struct):
    """Sums over a module, or over it and all inside."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    device_s: float = 0.0
    macs: int = 0
    flops: int = 0
    bytes_moved: int = 0
    written: int = 0
    saved: int = 0
    compute_s: float = 0.0
    """Least time of the modules that the product's ceiling limits."""
    memory_s: float = 0.0
    """Least time of those that the bandwidth limits."""

    def add(self, other: Tally) -> None:
        """Every figure of another one on top."""
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))

    @property
    def total_s(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.backward_s


def module_rows(
    workload: Workload,
    times: StepTimes,
    counted: ModuleCounts | None,
    traffic: Traffic,
    ceilings: Ceilings | None,
    device_s: Mapping[str, float] | None = None,
) -> tuple[ModuleProfile, ...]:
    """The network's row first, then its modules in the order of their first call, each before those inside it.

    `device_s`: time of the kernels of each module's own operators, where it is known.
    `counted`: `None` for a network that cannot be counted; its rows have no MACs, and at inference no FLOP.
    """
    own = _own_tallies(workload, times, counted, traffic, ceilings)
    for path, seconds in (device_s or {}).items():
        own.setdefault(path, Tally()).device_s = seconds
    tree = _children(own)
    modules = dict(workload.module.named_modules(remove_duplicate=False))
    rows: list[ModuleProfile] = []

    def write(path: str, depth: int) -> Tally:
        """The row of a module, then those inside it; return their sum."""
        place, alone, inside = len(rows), own.get(path, Tally()), Tally()
        inside.add(alone)
        for child in tree.get(path, ()):
            inside.add(write(child, depth + 1))
        row = _row(workload, path, depth, modules[path], alone, inside, times, counted)
        if device_s is not None:
            row = replace(row, device_s=inside.device_s, own_device_s=alone.device_s)
        rows.insert(place, row)
        return inside

    write("", 0)
    return tuple(rows)


def step_parts(workload: Workload, times: StepTimes, traffic: Traffic) -> tuple[StepPart, ...]:
    """What belongs to no module."""
    training = workload.cell.phase == "training"
    parts = []
    for name in PARTS:
        ahead, back = Owner(name, backward=False), Owner(name, backward=True)
        if ahead in times.by_owner or back in times.by_owner:
            forward_s, backward_s = times.by_owner.get(ahead, 0.0), times.by_owner.get(back)
            work = traffic.work_of(name)
            part = StepPart(
                name=name.strip("()"),
                forward_s=forward_s,
                backward_s=backward_s if training else None,
                share=(forward_s + (backward_s or 0.0)) / times.observed_s,
                flops=work.flops,
                bytes_moved=work.bytes_moved,
            )
            parts.append(part)
    return tuple(parts)


def _own_tallies(
    workload: Workload, times: StepTimes, counted: ModuleCounts | None, traffic: Traffic, ceilings: Ceilings | None
) -> dict[str, Tally]:
    """By path, without what modules inside do."""
    training = workload.cell.phase == "training"
    own: dict[str, Tally] = {}
    paths = [owner.path for owner in (*times.by_owner, *traffic.by_owner)]
    own_macs = Counter[str]() if counted is None else counted.own_macs
    for path in dict.fromkeys([*times.kinds, *paths, *own_macs]):
        if path in PARTS:
            continue
        ahead, back = Owner(path, backward=False), Owner(path, backward=True)
        work, macs = traffic.work_of(path), own_macs[path]
        # In inference mode operators arrive whole (`linear`), for which the counter of FLOP has no formula; in training
        # they arrive in parts, and the counts are those of what really runs, backward and auxiliary heads included.
        flops = work.flops if training else 2 * macs * workload.cell.batch_size
        tally = own[path] = Tally(
            forward_s=times.by_owner.get(ahead, 0.0),
            backward_s=times.by_owner.get(back, 0.0),
            macs=macs,
            flops=flops,
            bytes_moved=work.bytes_moved,
            written=traffic.written[ahead],
            saved=traffic.saved[path],
        )
        if ceilings is not None and (training or counted is not None):
            compute_s, memory_s = flops / ceilings.flops, tally.bytes_moved / ceilings.bandwidth
            if compute_s > memory_s:
                tally.compute_s = compute_s
            else:
                tally.memory_s = memory_s
    return own


def _children(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths right under each path, containers that are never called included, in the order of first calls."""
    children: dict[str, list[str]] = {}
    for path in paths:
        below = path
        while below:
            above = below.rpartition(".")[0]
            siblings = children.setdefault(above, [])
            if below in siblings:
                break
            siblings.append(below)
            below = above
    return children


def _row(
    workload: Workload,
    path: str,
    depth: int,
    module: nn.Module,
    own: Tally,
    inside: Tally,
    times: StepTimes,
    counted: ModuleCounts | None,
) -> ModuleProfile:
    training = workload.cell.phase == "training"
    least_s = inside.compute_s + inside.memory_s
    bound: Bound = "compute" if inside.compute_s > inside.memory_s else "memory"
    total_s = inside.total_s
    flops = inside.flops if counted is not None or training else None
    return ModuleProfile(
        path=path,
        kind=type(module).__name__,
        depth=depth,
        stage=None if counted is None else stage_of(path, [stage.name for stage in counted.stages]) or None,
        output_shape=times.shapes.get(path),
        calls=times.calls.get(path, 0),
        forward_s=inside.forward_s,
        backward_s=inside.backward_s if training else None,
        own_s=own.total_s,
        share=total_s / times.observed_s,
        params=sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        macs=None if counted is None else inside.macs,
        own_macs=None if counted is None else own.macs,
        flops=flops,
        activation_bytes=inside.written,
        saved_bytes=inside.saved if training else None,
        own_saved_bytes=own.saved if training else None,
        bytes_moved=inside.bytes_moved,
        own_bytes=own.bytes_moved,
        intensity=flops / inside.bytes_moved if flops is not None and inside.bytes_moved else None,
        achieved_flops=flops / total_s if flops is not None and total_s else None,
        least_s=least_s or None,
        roofline_share=least_s / total_s if least_s and total_s else None,
        bound=bound if least_s else None,
    )


def stage_of(path: str, stages: Sequence[str]) -> str:
    """The stage that the module or parameter at `path` belongs to; empty where to none."""
    return max((s for s in stages if path == s or path.startswith(f"{s}.")), key=len, default="")


def stage_rows(rows: Iterable[ModuleProfile]) -> tuple[ModuleProfile, ...]:
    """The rows that are the network's stages, in order."""
    return tuple(row for row in rows if row.stage == row.path)


def profile_stages(
    workload: Workload,
    clock: Clock,
    calibration: Calibration | None,
    *,
    round: int,
    visit: int,
    allow_code: bool = False,
) -> StageProfile:
    """Profile the eager step of a warmed-up `workload`; shares of the roofline need the device's `calibration`.

    Takes `TIMING_S`, or a dozen steps where they are longer. Raises whatever the step raises.
    """
    cell = workload.cell
    times = time_by_module(workload, clock, TIMING_S)
    traffic = watch_traffic(workload)
    counted = None
    with suppress(Exception):  # the network's own code, without data: its times are worth storing without its MACs
        counted = count_by_module(cell.network, allow_code=allow_code)
    ceilings = Ceilings.of(calibration, cell.precision) if calibration else None
    rows = module_rows(workload, times, counted, traffic, ceilings)
    return StageProfile(
        cell_id=cell.cell_id,
        round=round,
        visit=visit,
        step_s=times.plain_s,
        observed_step_s=times.observed_s,
        observing_cost=times.observing_cost,
        steps=times.steps,
        whole=rows[0],
        stages=stage_rows(rows),
        parts=step_parts(workload, times, traffic),
    )
