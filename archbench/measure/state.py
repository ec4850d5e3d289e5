"""Process-wide state that changes a figure: set for every group, read back for every cell, never inherited."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from msgspec import Struct

from archbench.analyze.step import AUTOCAST
from archbench.model.axes import Phase, Precision
from archbench.model.protocol import Protocol


class Applied(Struct, frozen=True, kw_only=True):
    """The state as torch reports it inside the contexts of a timed step."""

    matmul_precision: str
    cudnn_tf32: bool
    cudnn_benchmark: bool
    cudnn_benchmark_limit: int | None
    """How many of cuDNN's plans the search tries for each convolution; `None` in a torch built without cuDNN."""
    cudnn_deterministic: bool
    threads: int
    interop_threads: int
    flush_denormals: bool
    grad_mode: str
    """`inference` (inference mode), `no_grad` or `grad`."""
    autocast_dtype: str | None
    weight_dtype: str
    model_format: str
    input_format: str
    training_modules: int
    """Modules in training mode; 0 at inference."""
    seed: int
    allocator: str | None
    runtime: dict[str, str] | None = None
    """What another runtime than torch says of itself: version, threads, precision, and on what it runs."""


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_kept = False
"""Whether this process, or the one that it was forked from, keeps what is freed."""


def keep_freed_memory() -> None:
    """Let malloc keep what tensors free, in this process for good, and use it again.

    By its defaults glibc gives large blocks back to the kernel, and a step takes them again page by page; how many
    depends on what the process has done before, as thresholds grow with the largest block ever freed. Nothing
    changes where the user's environment says how memory is allocated, or the C library is another.
    """
    global _kept
    libc = ctypes.CDLL(None)
    if not _chosen_by_user() and hasattr(libc, "mallopt"):
        _kept = bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def host_allocator() -> str:
    """What serves the host's memory in this process, as far as is known."""
    if _chosen_by_user():
        return "as the environment sets it"
    return "glibc, keeps what is freed" if _kept else "the system's"


def _chosen_by_user() -> bool:
    chosen = any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ)
    return chosen or "malloc" in os.environ.get("LD_PRELOAD", "")


def give_back_memory() -> None:
    """Return to the kernel what malloc has kept, so that resident memory is what is in use."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def apply_state(
    precision: Precision, threads: int, seed: int, benchmark_limit: int = Protocol().cudnn_benchmark_limit
) -> None:
    """Set every process-wide switch for one cell.

    The older TF32 switches are used throughout: reading them after the newer `fp32_precision` interface was
    written raises, and inductor still reads them.
    """
    _set_switches(precision, threads, seed, benchmark_limit)
    with contextlib.suppress(RuntimeError):  # settable once per process, and the host has not run anything parallel
        torch.set_num_interop_threads(1)


def _set_switches(precision: Precision, threads: int, seed: int, benchmark_limit: int) -> None:
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True  # shapes are fixed within a cell, so the search pays and is what users set
    torch.backends.cudnn.benchmark_limit = benchmark_limit
    torch.backends.cudnn.deterministic = False
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    if torch.are_deterministic_algorithms_enabled():  # to switch them imports inductor, a second of every process
        torch.use_deterministic_algorithms(False)
    torch.manual_seed(seed)


@contextlib.contextmanager
def restored_state(precision: Precision, threads: int, seed: int) -> Iterator[None]:
    """The state of `apply_state` for a while, in a process that others go on using: all is put back at the end.

    Inter-op threads stay as they are, since they can be set only once.
    """
    cudnn = torch.backends.cudnn
    matmul, threads_before, flushed = (
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        flushes_denormals(),
    )
    searched = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, cudnn.benchmark_limit
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):  # type: ignore[no-untyped-call]
        try:
            _set_switches(precision, threads, seed, Protocol().cudnn_benchmark_limit)
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, cudnn.benchmark_limit = searched
            torch.set_num_threads(threads_before)
            torch.set_flush_denormal(flushed)


def flushes_denormals() -> bool:
    """Whether tiny numbers become zero. torch can set the flag but not read it: ask the arithmetic."""
    tiny = torch.tensor([1.0e-310], dtype=torch.float64)
    return bool((tiny * 1.0).item() == 0.0)


@contextlib.contextmanager
def plain_fp32() -> Iterator[None]:
    """Inside, fp32 means fp32: for the canary and the reference, whatever the cell under test has set.

    cuDNN searches for no kernel either: the search would pick another one in each process.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


@contextlib.contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Inside, operators have this number of threads."""
    before = torch.get_num_threads()
    if threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def step_contexts(
    device: torch.device, phase: Phase, precision: Precision, *, takes_gradients: bool = False
) -> Callable[[], AbstractContextManager[None]]:
    """Return the factory of the contexts that compile, warm-up and timing share.

    One factory for all three: a step that ran under another grad mode or autocast state would recompile.
    `takes_gradients`: of a network that does so inside its forward pass, which inference mode forbids.
    """
    dtype = AUTOCAST.get(precision)

    @contextlib.contextmanager
    def contexts() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if phase == "inference":
                stack.enter_context(torch.no_grad() if takes_gradients else torch.inference_mode())
            if dtype is not None:
                stack.enter_context(torch.autocast(device.type, dtype))
            yield

    return contexts


def default_threads(usable_cores: int) -> int:
    """Threads for intra-op parallelism: what the user fixed with OMP_NUM_THREADS, else the usable cores."""
    fixed = os.environ.get("OMP_NUM_THREADS", "")
    return int(fixed) if fixed.isdecimal() and int(fixed) > 0 else usable_cores
