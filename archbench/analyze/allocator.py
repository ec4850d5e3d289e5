"""Measures the peak of live tensor bytes of one real step on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile

MEMORY = "[memory]"
"""What the profiler calls an event of an allocator."""


def measured_peak(step: Callable[[], object]) -> int:
    """Run `step` twice and return the peak of live CPU tensor bytes during the second run, in bytes.

    What was alive before (weights, optimizer state, inputs) is included, as in CUDA's `max_memory_allocated`. The
    figures are the allocator's own, from the profiler's memory events, so compiled and autocast steps count alike;
    a dispatch mode would make torch run a compiled step eagerly. Expect `step` to have run before, else what it keeps
    from its first call is counted as belonging to the second.

    Cost: two steps, a few microseconds an operator, and a walk over all Python objects (about 0.1 s).
    """
    show_allocator(step)
    gc.collect()
    return _standing_bytes() + _rise(step)


def peak_rise(step: Callable[[], object]) -> int:
    """The same above what was alive before `step`, whatever that was, in bytes."""
    show_allocator(step)
    gc.collect()
    return _rise(step)


def show_allocator(step: Callable[[], object]) -> None:
    """Run `step` once for the allocator's reporter to see whatever the next step will free.

    It knows a block's size, when it is freed, only if it saw it being allocated.
    """
    memory_events(step)


def _rise(step: Callable[[], object]) -> int:
    changes: list[int] = [event.nbytes() for event in memory_events(step) if event.name() == MEMORY]
    return max(accumulate(changes, initial=0))


def memory_events(step: Callable[[], object]) -> list[Any]:
    """Run `step` and return its profiler events in order of their start; those called `MEMORY` are the CPU allocator's.

    Their `nbytes()` is positive where bytes were allocated and negative where they were freed.
    `torch.profiler.profile` would do too, but it imports torch's compiler first, which takes four seconds.
    """
    with profile(use_kineto=True, profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.kineto_results.events() if e.name() != MEMORY or e.device_type().name == "CPU"]
    return sorted(events, key=lambda event: event.start_ns())


def _standing_bytes() -> int:
    """Bytes of all CPU storages that Python can reach through a tensor, each once."""
    # type() and not isinstance(): lazy proxies answer isinstance() by doing things.
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
    # A fake tensor says that it lies on the CPU; its storage does not.
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages if storage.device.type == "cpu"}.values())
