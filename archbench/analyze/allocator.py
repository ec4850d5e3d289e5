"""Measures the peak of live tensor bytes of one real step on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.profiler import profile


def measured_peak(step: Callable[[], object]) -> int:
    """Run `step` twice and return the peak of live CPU tensor bytes during the second run, in bytes.

    What was alive before (weights, optimizer state, inputs) is included, as in CUDA's `max_memory_allocated`. The
    figures are the allocator's own, from the profiler's memory events, so compiled and autocast steps count alike;
    a dispatch mode would make torch run a compiled step eagerly. Expect `step` to have run before, else what it keeps
    from its first call is counted as belonging to the second.

    Cost: two steps, a few microseconds an operator, and a walk over all Python objects (about 0.1 s).
    """
    # The allocator's reporter knows a block's size, when it is freed, only if it saw it being allocated: the first
    # run lets it see whatever the second will free.
    _memory_events(step)
    gc.collect()
    alive = peak = _standing_bytes()
    for change in _memory_events(step):
        alive += change
        peak = max(peak, alive)
    return peak


def _memory_events(step: Callable[[], object]) -> list[int]:
    """Bytes allocated (positive) and freed (negative) on the CPU during `step`, in order.

    `torch.profiler.profile` would do too, but it imports torch's compiler first, which takes four seconds.
    """
    with profile(use_kineto=True, profile_memory=True) as profiler:
        step()
    events = profiler.kineto_results.events()
    memory = [event for event in events if event.name() == "[memory]" and event.device_type().name == "CPU"]
    return [event.nbytes() for event in sorted(memory, key=lambda event: event.start_ns())]


def _standing_bytes() -> int:
    """Bytes of all CPU storages that Python can reach through a tensor, each once."""
    # type() and not isinstance(): lazy proxies answer isinstance() by doing things.
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
    # A fake tensor says that it lies on the CPU; its storage does not.
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages if storage.device.type == "cpu"}.values())
