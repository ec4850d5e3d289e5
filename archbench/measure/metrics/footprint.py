"""What a network is made of and what a step of it holds: counted, predicted, measured, and tried within a limit.

Peak memory is taken in a pass of its own: nothing that is timed runs here, nothing here is timed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec import Struct
from msgspec.structs import replace
from torch import nn

from archbench.analyze.step import WHOLE_MODEL, cast
from archbench.catalog.build import build, takes_of
from archbench.catalog.inputs import Taken, Takes, takes
from archbench.catalog.roles import in_mode
from archbench.device.health import Probe
from archbench.device.kind import kind_of, resolve_device
from archbench.measure import compiler
from archbench.measure.record_builder import status_of
from archbench.measure.state import apply_state, default_threads, give_back_memory, step_contexts
from archbench.measure.workload import Workload
from archbench.model.cell import Cell
from archbench.model.counts import written_lines
from archbench.model.reasons import LOWER_BOUND
from archbench.model.record import columns_of

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK_RSS = "5"
_MALLOPT = {-8: 1, -3: 64 << 10, -1: 64 << 10}
"""M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of glibc: tensors are mapped one by one, the freed ones go back."""
_WARM = 2
"""Images of the step before the limit: threads, libraries and their buffers are not the step's."""
_KERNELS = 256 << 20
"""What libraries compile for one batch size and keep is not the step's either: oneDNN's for hrnet_w18 takes 25 MiB."""


def count(run: CellRun) -> None:
    """What is counted, and never measured."""
    counts = run.group.counts
    run.row.set(**{column: getattr(counts, column) for column in columns_of("static")})
    if counts.folds:
        run.row.flag("training_form")
    if counts.unknown_products:
        run.row.flag(LOWER_BOUND)


def foresee(run: CellRun) -> None:
    """The further figures that need no step, for the rows of a suite that asks for nothing else."""
    with run.phase("predict"):
        _predict(run)
    if run.compiles:
        with run.phase("trace"):
            run.note_compiled(traced_counts(run.cell, run.group.takes, allow_code=run.task.allow_code))


def traced_counts(cell: Cell, given: Taken, *, allow_code: bool = False) -> compiler.CompileCounts:
    """Trace one forward pass of `cell` on what it takes and return what dynamo counted.

    Graph breaks without generating any code: the network is traced as torch.compile traces it, and that is all.
    Tracing is the same on every device, so this needs none: tensors have no data, unless the network looks at values;
    then it runs once on the CPU. A second or two a network. Raises what the network, or dynamo over it, raises.
    """
    from archbench.analyze.counts import on_module

    return on_module(cell.network, lambda module: _trace(module, cell, takes(given)), allow_code=allow_code)


def _trace(module: nn.Module, cell: Cell, given: Takes) -> compiler.CompileCounts:
    device = next((parameter.device for parameter in module.parameters()), None)
    dtype = WHOLE_MODEL.get(cell.precision)
    batch = given.drawn(cell.batch_size, device).map(lambda t: t.to(dtype or t.dtype) if t.is_floating_point() else t)
    cast(in_mode(module, training=cell.phase == "training"), dtype)
    compiler.reset()
    # The backward pass is traced by autograd, not by dynamo: it has no breaks of its own.
    with step_contexts(torch.device("cpu"), cell.phase, cell.precision)():
        batch(compiler.trace_module(module))
    return compiler.counts()


def predict_in_company(run: CellRun) -> None:
    """In a wave predict what the whole group needs now, while others prepare too, and not when it has the device."""
    if run.waits and not run.prepares:
        for cell in run.task.group.cells:
            run.group.memory_model(cell)


def _predict(run: CellRun) -> None:
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


def fill_memory(run: CellRun) -> None:
    """Peak memory of one step, and what was predicted of it."""
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
        _predict(run)
    if reading.peak_reserved is None:
        run.row.null("not_on_device", "peak_reserved_bytes")
    if process is None:
        run.row.null(unknown, "process_bytes")


class MemoryReading(Struct, frozen=True, kw_only=True):
    """Bytes; `None` where the device or the system does not tell."""

    peak_allocated: int | None
    peak_reserved: int | None
    process: int | None


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
    from archbench.analyze.memory import measured_peak  # on a CPU alone, and after everything that is timed

    return MemoryReading(
        peak_allocated=measured_peak(step), peak_reserved=None, process=peak_resident(step, baseline_rss)
    )


def resident_bytes(field: str = "VmRSS") -> int | None:
    """The process's resident memory (`VmRSS`, or its peak `VmHWM`) as the kernel tells it; None without /proc."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


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


def peak_within(cell: Cell, limit_bytes: int, *, allow_code: bool = False) -> int | None:
    """Do steps of `cell` in this process, whose weights, inputs and step have `limit_bytes`, and give their peak.

    `None` where it runs out of memory. To be called in a process of its own, whose malloc it changes for good. Raises
    what the network raises, and `UnfitError` for a device whose processes cannot be limited.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the profiler tells of itself
    libc = ctypes.CDLL(None)
    workload: Workload | None
    for option, value in _MALLOPT.items():
        libc.mallopt(option, value)
    device = torch.device(resolve_device(cell.device))
    kind = kind_of(device)
    apply_state(cell.precision, cell.threads or default_threads(torch.get_num_threads()), 0)
    module = build(cell.network, allow_code=allow_code).to(device)
    given = takes_of(cell.network, module, allow_code=allow_code)
    warm = Workload(replace(cell, batch_size=_WARM), module, given, device, ring=1, seed=0)
    warm.step()
    kind.synchronize(device)
    del warm
    gc.collect()
    held = sum(tensor.untyped_storage().nbytes() for tensor in (*module.parameters(), *module.buffers()))
    allocator = kind.allocator(device)
    try:
        for more in (_KERNELS, 0):
            workload = None
            gc.collect()
            kind.limit_memory(device, limit_bytes - held + more)
            if allocator is not None:
                allocator.reset_peaks()  # of the step before the limit, which may have had more images
            workload = Workload(cell, module, given, device, ring=1, seed=0)
            workload.step()
            workload.step()  # only now an optimizer's state stands beside everything else
            kind.synchronize(device)
    except Exception as error:
        if status_of(error) == "oom":
            return None
        raise
    finally:
        kind.limit_memory(device, None)
    assert workload is not None
    from archbench.analyze.memory import measured_peak

    return measured_peak(workload.step) if allocator is None else allocator.peak_allocated()
