"""A step in a process that cannot have more than so much memory: whether it fits, and what it takes."""

from __future__ import annotations

import ctypes
import gc
import os

import torch
from msgspec.structs import replace

from archbench.analyze.memory import measured_peak
from archbench.catalog.build import build, takes_of
from archbench.device.kind import kind_of, resolve_device
from archbench.measure.cell_run import status_of
from archbench.measure.state import apply_state, default_threads
from archbench.measure.workload import Workload
from archbench.model.cell import Cell

_MALLOPT = {-8: 1, -3: 64 << 10, -1: 64 << 10}
"""M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of glibc: tensors are mapped one by one, the freed ones go back."""
_WARM = 2
"""Images of the step before the limit: threads, libraries and their buffers are not the step's."""
_KERNELS = 256 << 20
"""What libraries compile for one batch size and keep is not the step's either: oneDNN's for hrnet_w18 takes 25 MiB."""


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
    try:
        for more in (_KERNELS, 0):
            workload = None
            gc.collect()
            kind.limit_memory(device, limit_bytes - held + more)
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
    allocator = kind.allocator(device)
    return measured_peak(workload.step) if allocator is None else allocator.peak_allocated()
