"""Peak memory of one step, in a pass of its own: nothing that is timed runs here, nothing here is timed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec import Struct

from archbench.analyze.memory import measured_peak
from archbench.device.health import Probe
from archbench.device.kind import kind_of
from archbench.measure.metrics.metric import Metric
from archbench.measure.state import give_back_memory
from archbench.model.counts import written_lines

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK_RSS = "5"


def _fill(run: CellRun) -> None:
    with run.phase("memory"):
        group = run.group
        group.put_canary_away()
        reading = measure_memory(run.workload.step, group.device, group.baseline_rss, group.probe)
        process = reading.process
        own_memory = kind_of(group.device).allocator(group.device) is not None
        unknown = "process_unknown" if own_memory else "not_on_device"
        if run.cell.is_converted:
            run.row.null("outside_torch", "peak_allocated_bytes")
            if not own_memory:  # this process has converted the network, and holds it besides
                again = run.prepared_again()
                process, unknown = (None, "phase_failed") if again is None else (again.process_bytes, unknown)
        else:
            run.row.set(peak_allocated_bytes=reading.peak_allocated)
        run.row.set(peak_reserved_bytes=reading.peak_reserved, process_bytes=process)
        predict(run)
    if reading.peak_reserved is None:
        run.row.null("not_on_device", "peak_reserved_bytes")
    if process is None:
        run.row.null(unknown, "process_bytes")


def _prepare(run: CellRun) -> None:
    """In a wave predict what the whole group needs now, while others prepare too, and not when it has the device."""
    if run.waits and not run.prepares:
        for cell in run.task.group.cells:
            run.group.memory_model(cell)


MEMORY = Metric(name="memory", prepare=_prepare, fill=_fill)


def predict(run: CellRun) -> None:
    """Enter the predicted peak of an eager step: what a compiled one keeps is the compiler's choice."""
    model = None if run.prepares else run.group.memory_model(run.cell)
    if model is None:
        run.row.null("not_predicted", "predicted_peak_bytes", "predicted_peak_lines")
    else:
        held = run.task.protocol.input_ring
        run.row.set(
            predicted_peak_bytes=model.peak_bytes(run.cell.batch_size, batches_held=held),
            predicted_peak_lines=written_lines(model.peak_lines(held)),
        )


class MemoryReading(Struct, frozen=True, kw_only=True):
    """Bytes; `None` where the device or the system does not tell."""

    peak_allocated: int | None
    peak_reserved: int | None
    process: int | None


def resident_bytes(field: str = "VmRSS") -> int | None:
    """The process's resident memory (`VmRSS`, or its peak `VmHWM`) as the kernel tells it; None without /proc."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def measure_memory(
    step: Callable[[], object], device: torch.device, baseline_rss: int | None, probe: Probe | None = None
) -> MemoryReading:
    """Run `step` once more and return its peaks.

    CUDA: the caching allocator's own peaks, and what the driver says that this process holds, where `probe` can ask
    it. CPU: live tensor bytes from the profiler's memory events, and the peak of resident memory above
    `baseline_rss`, what this process held before it built the network.
    """
    kind = kind_of(device)
    allocator = kind.allocator(device)
    if allocator is not None:
        kind.synchronize(device)
        kind.empty_cache()
        allocator.reset_peaks()
        step()
        kind.synchronize(device)
        return MemoryReading(
            peak_allocated=allocator.peak_allocated(),
            peak_reserved=allocator.peak_reserved(),
            process=None if probe is None else probe.read().own_bytes,
        )
    return MemoryReading(
        peak_allocated=measured_peak(step), peak_reserved=None, process=peak_resident(step, baseline_rss)
    )


def peak_resident(step: Callable[[], object], baseline: int | None) -> int | None:
    """Peak resident memory over `step` less `baseline`, bytes; `None` where the kernel does not tell."""
    give_back_memory()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK_RSS)
    except OSError:
        return None
    step()
    peak = resident_bytes("VmHWM")
    return None if peak is None or baseline is None else max(peak - baseline, 0)
