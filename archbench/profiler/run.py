"""One profile from request to result: each part in a pass of its own, so that none disturbs another's figures."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import psutil
from msgspec.structs import replace
from torch import nn

from archbench.analyze.memory import predict_cell
from archbench.catalog.build import build, takes_of
from archbench.device.kind import Clock, find_device, kind_of, open_probe
from archbench.measure import compiler
from archbench.measure.machine_speed import calibrate
from archbench.measure.record_builder import status_of
from archbench.measure.sampling import gc_paused, warm_up
from archbench.measure.state import apply_state, default_threads, keep_freed_memory
from archbench.measure.watch import Watch
from archbench.measure.workload import Workload
from archbench.model.cell import Cell
from archbench.model.counts import GradientHealth, MemoryModel, largest_batch
from archbench.model.errors import UnfitError, UnsupportedError, UsageError, did_you_mean, in_one_line, words_of
from archbench.model.messages import CellStarted, ChildEvent, PhaseStarted, ProfileDone, ProfileFailed, ProfileRequest
from archbench.model.profile import KernelMap, MemoryTimeline, ModuleProfile, Profile, Roofline, RooflinePoint
from archbench.model.protocol import Protocol, protocol_for
from archbench.model.reasons import LOWER_BOUND, verdict_of
from archbench.profiler.boundaries import StepTimes, count_by_module, time_by_module, time_plain
from archbench.profiler.gradient_health import gradient_health
from archbench.profiler.kernels import map_kernels
from archbench.profiler.memory_timeline import memory_timeline, write_snapshot
from archbench.profiler.operators import BLIND, Window, add_module_tracks, watch_operators
from archbench.profiler.rows import Ceilings, Traffic, module_rows, stage_rows, step_parts, watch_traffic

RING = 3
WARMUP_CAP_S = 3.0
"""A profile wants caches and allocators warm, not the last half per cent."""
WHOLE = "all"
Enter = Callable[[str], None]
T = TypeVar("T")


def profile(request: ProfileRequest, send: Callable[[ChildEvent], None]) -> None:
    """Profile what is asked for. Every failure that is a Python exception becomes a message of one line."""
    cell_id = request.cell.cell_id
    phase = "start"

    def enter(name: str) -> None:
        nonlocal phase
        phase = name
        send(CellStarted(cell_id=cell_id, deadline_s=request.silence_s))  # the deadline is of each phase
        send(PhaseStarted(cell_id=cell_id, phase=name))

    try:
        done = profile_cell(request, enter)
    except (UsageError, UnfitError) as error:
        send(ProfileFailed(kind="unfit" if isinstance(error, UnfitError) else "usage", message=str(error)))
    except Exception as error:  # the network's own code, a library's, or the device's
        traceback.print_exc()
        send(_failure(request, phase, error))
    else:
        send(ProfileDone(profile=done))


def _failure(request: ProfileRequest, phase: str, error: Exception) -> ProfileFailed:
    cell = request.cell
    said = " ".join(words_of(error).split()) or "no message"
    if status_of(error) == "oom":
        message = (
            f"{cell.network.label}: out of memory on {request.environment.device} in the phase {phase!r} at batch size "
            f"{cell.batch_size}: {said}; try a smaller --batch-size"
        )
        return ProfileFailed(kind="unfit", message=message)
    if isinstance(error, UnsupportedError):
        return ProfileFailed(kind="usage", message=f"{cell.network.label}: {said}")
    what = f"{cell.network.label} failed in the phase {phase!r}: {type(error).__name__}: {said}"
    return ProfileFailed(kind="usage", message=what)


def profile_cell(request: ProfileRequest, enter: Enter = lambda phase: None) -> Profile:
    """Profile the request's cell; `enter` is told each phase as it begins.

    Raises `UnfitError` where the device has no room, and whatever the network's own code raises.
    """
    return _Run(request, enter).profile()


class _Run:
    """What the passes of one profile share."""

    def __init__(self, request: ProfileRequest, enter: Enter) -> None:
        self._request = request
        self._cell = request.cell
        self._eager = replace(request.cell, compile_mode="off")
        self._enter = enter
        self._device = find_device(request.environment)
        self._kind = kind_of(self._device)
        self._has_kernels = self._kind.activity is not None
        self._threads = request.cell.threads or default_threads(request.environment.cpu_count)
        self._missing: dict[str, str] = {}

    @cached_property
    def _watch(self) -> Watch:
        """Over all that is timed; opened once the device is in use."""
        probe = open_probe(self._request.environment.device, uuid=self._kind.uuid(self._device))
        return Watch(probe, None, self._protocol())

    def _watched(self, timed: Callable[[], T]) -> T:
        self._watch.begin()
        found = timed()
        self._watch.end()
        return found

    def profile(self) -> Profile:
        self._enter("count")
        predicted = self._refuse_if_too_large()
        network, allow_code = self._cell.network, self._request.allow_code
        counted = self._unless_impossible("macs", lambda: count_by_module(network, allow_code=allow_code))
        if counted is not None:
            self._check_stage(counted.paths)
        self._enter("ceilings")
        clock = self._open()
        ceilings = self._ceilings(clock)
        self._enter("build")
        module = self._build()  # by the seed of the state that `_ceilings` leaves
        self._check_stage([path for path, _ in module.named_modules()])
        workload = self._workload(module, self._eager)
        self._enter("first call")
        workload.step()
        self._enter("time")
        times = self._times(workload, clock)
        # Before any session of the profiler: CUPTI slows what its process does afterwards.
        compiled = self._compiled(module, times.plain_s) if self._cell.compile_mode != "off" else None
        self._enter("traffic")
        traffic = watch_traffic(workload)
        self._enter("operators")
        window = self._window(workload, traffic, ceilings, times.plain_s)
        stages = tuple(stage.name for stage in counted.stages) if counted else ()
        memory = self._memory(workload, stages, predicted)
        if self._request.snapshot is not None:
            self._enter("snapshot")
            write_snapshot(workload, Path(self._request.snapshot))
        gradients = self._gradients(stages)
        rows = module_rows(workload, times, counted, traffic, ceilings, window.device_s)
        reasons = self._watch.report().reasons
        if counted and not counted.whole:
            reasons = (*reasons, LOWER_BOUND)
        cache_bytes = self._kind.cache_bytes(self._device)
        return Profile(
            network=self._cell.network.label,
            cell=self._cell,
            device=self._cell.device,
            environment=self._request.environment,
            threads=self._threads,
            verdict=verdict_of(reasons),
            reasons=reasons,
            params=rows[0].params,
            macs=counted.macs if counted else None,
            step_s=times.plain_s,
            observed_step_s=times.observed_s,
            observing_cost=times.observing_cost,
            steps=times.steps,
            modules=rows,
            parts=step_parts(workload, times, traffic),
            stages=tuple(row.path for row in stage_rows(rows)),
            operators=window.operators,
            kernels=window.kernels,
            roofline=_roofline(rows, ceilings, window, times, on_device=self._has_kernels, cache_bytes=cache_bytes),
            compiled=compiled,
            memory=memory,
            gradients=gradients,
            missing=self._missing,
        )

    def _check_stage(self, paths: Sequence[str]) -> None:
        stage = self._request.stage
        if stage and stage not in paths:
            near = did_you_mean(stage, paths)
            raise UsageError(f"--stage {stage}: {self._cell.network.label} runs no module of that name{near}")

    def _refuse_if_too_large(self) -> MemoryModel | None:
        """The predicted memory, where it can be predicted; raises `UnfitError` where the device has not so much."""
        cell = self._cell
        try:
            model = predict_cell(cell, allow_code=self._request.allow_code)
        except UnfitError:
            return None  # its step looks at values: to be found out by running it
        need = model.peak_bytes(cell.batch_size, batches_held=RING)
        free = self._free_bytes()
        if need > free:
            room = largest_batch(model.lines, free)
            remedy = f"batch size {room} would fit" if room else "not even one image would fit"
            raise UnfitError(
                f"{cell.network.label}: no room on {self._device}: a {cell.phase} step of {cell.batch_size} images "
                f"needs about {_gib(need)}, {_gib(free)} are free; {remedy}"
            )
        return model

    def _free_bytes(self) -> int:
        allocator = self._kind.allocator(self._device)
        if allocator is not None:
            return allocator.free()
        limit = self._request.environment.memory_bytes - psutil.Process().memory_info().rss
        return min(int(psutil.virtual_memory().available), limit)

    def _open(self) -> Clock:
        self._kind.use(self._device)
        self._set_state()
        return self._kind.clock(self._device)

    def _set_state(self) -> None:
        keep_freed_memory()
        apply_state(self._cell.precision, self._threads, self._request.seed)

    def _ceilings(self, clock: Clock) -> Ceilings | None:
        """Measured here and now, at the threads of this profile; `None` where the arithmetic has no ceiling here."""
        try:
            found = self._request.calibration or calibrate(self._device, clock, self._threads, soak_s=0.0)
        except Exception as error:  # a small GPU without room for the products
            self._missing["roofline"] = f"the ceilings could not be measured ({in_one_line(error)})"
            return None
        finally:
            self._set_state()
        self._kind.empty_cache()
        ceilings = Ceilings.of(found, self._cell.precision)
        if ceilings is None:
            self._missing["roofline"] = f"no ceiling was measured at {self._cell.precision} on this device"
        return ceilings

    def _build(self) -> nn.Module:
        """Its weights are new each time: the seed is set by whoever draws them."""
        return build(self._cell.network, allow_code=self._request.allow_code)

    def _workload(self, module: nn.Module, cell: Cell) -> Workload:
        given = takes_of(cell.network, module, allow_code=self._request.allow_code)
        workload = Workload(cell, module, given, self._device, ring=RING, seed=self._request.seed)
        workload.require(workload.applied())
        return workload

    def _protocol(self) -> Protocol:
        return protocol_for(self._cell.device, {"warmup_cap_s": WARMUP_CAP_S})

    def _times(self, workload: Workload, clock: Clock) -> StepTimes:
        with gc_paused():
            warm_up(workload.step, clock, self._protocol(), first_cell=True)
            return self._watched(lambda: time_by_module(workload, clock, self._request.timing_s))

    def _window(self, workload: Workload, traffic: Traffic, ceilings: Ceilings | None, step_s: float) -> Window:
        trace = None if self._request.trace is None else Path(self._request.trace)
        window = watch_operators(workload, traffic, ceilings, step_s, trace=trace)
        if trace is not None:
            add_module_tracks(trace)
        if self._has_kernels and not window.kernels:
            self._missing |= {"operators": BLIND, "kernels": BLIND, "modules.device_s": BLIND}
        return window

    def _memory(
        self, workload: Workload, stages: tuple[str, ...], predicted: MemoryModel | None
    ) -> MemoryTimeline | None:
        if not self._request.memory:
            self._missing["memory"] = "left out on request"
            return None
        self._enter("memory")
        peak = None if predicted is None else predicted.peak_bytes(self._cell.batch_size, batches_held=RING)
        return self._unless_impossible("memory", lambda: memory_timeline(workload, stages, peak))

    def _gradients(self, stages: tuple[str, ...]) -> GradientHealth | None:
        if self._cell.phase == "inference":
            self._missing["gradients"] = "there are none at inference; profile a training step"
            return None
        if not self._request.gradients:
            self._missing["gradients"] = "left out on request"
            return None
        self._enter("gradients")
        given = takes_of(self._cell.network, self._build(), allow_code=self._request.allow_code)
        return self._unless_impossible(
            "gradients", lambda: gradient_health(self._build, self._eager, given, self._device, stages=stages)
        )

    def _compiled(self, module: nn.Module, eager_s: float) -> KernelMap | None:
        self._enter("compile")
        clock = self._kind.clock(self._device)

        def time_step(workload: Workload) -> float:
            return self._watched(lambda: time_plain(workload, clock, self._request.timing_s))

        found = self._unless_impossible(
            "compiled", lambda: map_kernels(lambda: self._workload(module, self._cell), clock, eager_s, time_step)
        )
        if found is not None and found.mapped_share is None:
            self._missing["compiled"] = BLIND
        compiler.reset()  # with the pools of its graphs, which are none of the eager step's memory
        return found

    def _unless_impossible(self, part: str, make: Callable[[], T]) -> T | None:
        """The part, or why there is none: what fails here costs no more than itself, unless memory has run out."""
        try:
            return make()
        except Exception as error:  # the network's own code, or a library's
            if status_of(error) == "oom":
                raise
            self._missing[part] = in_one_line(error)
            return None


def _roofline(
    rows: Sequence[ModuleProfile],
    ceilings: Ceilings | None,
    window: Window,
    times: StepTimes,
    *,
    on_device: bool,
    cache_bytes: int | None = None,
) -> Roofline | None:
    if ceilings is None:
        return None
    return Roofline(
        peak_flops=ceilings.flops,
        bandwidth=ceilings.bandwidth,
        points=tuple(
            RooflinePoint(
                name=row.path or WHOLE,
                intensity=row.intensity,
                achieved_flops=row.achieved_flops,
                share=row.achieved_flops / min(ceilings.flops, row.intensity * ceilings.bandwidth),
                time_share=row.share,
            )
            for row in (*stage_rows(rows), rows[0])
            if row.intensity and row.achieved_flops
        ),
        device_busy_s=window.busy_s,
        # Kernels last as long under the profiler as without it, the host does not: the gap is that of the plain step.
        launch_gap_s=None if window.busy_s is None else max(0.0, times.plain_s - window.busy_s),
        # The profiler slows the host, so its own window would overstate this; operators are slowed a little as well.
        host_s=None if on_device else max(0.0, times.plain_s - window.operators_s),
        cache_bytes=cache_bytes,
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
