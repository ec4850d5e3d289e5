"""torch.compile: the one file that touches dynamo's and inductor's internals, each symbol covered by a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch._dynamo.utils as dynamo
from msgspec import Struct
from torch import nn

from archbench.model.axes import CompileMode

CACHE_VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "", "TRITON_CACHE_DIR": "triton"}
"""Where compiled code is kept, and the place of each in a folder of ours. Inductor sets Triton's once and for all."""
CUDA_GRAPH_MODES: frozenset[str] = frozenset({"reduce-overhead", "max-autotune"})


class CompileCounts(Struct, frozen=True, kw_only=True):
    """What dynamo did since `reset`."""

    graph_breaks: int
    recompiles: int
    frames_total: int
    frames_compiled: int

    @property
    def fell_back(self) -> bool:
        """Some frame runs eagerly although it was to be compiled."""
        return self.frames_compiled < self.frames_total


def compile_module(module: nn.Module, mode: CompileMode) -> Callable[..., Any]:
    """Return the compiled call of `module`, specialised to the first shape it sees.

    `dynamic=False`: with torch's default the second batch size would get slower, shape-generic kernels.
    """
    # From the start, for the stance alone says nothing once the limit was hit and calls run eagerly.
    cast(Any, torch.compiler.config).fail_on_recompile_limit_hit = True
    return torch.compile(module, mode=None if mode == "default" else mode, dynamic=False)


def trace_module(module: nn.Module) -> Callable[..., Any]:
    """Return a call of `module` that dynamo traces and that then runs eagerly: its counts, without generating code."""
    return torch.compile(module, backend="eager", dynamic=False)


def reset() -> None:
    """Forget every compiled graph and every count; caches on disk stay."""
    torch._dynamo.reset()
    dynamo.counters.clear()
    dynamo.clear_compilation_metrics()


def counts() -> CompileCounts:
    """Read dynamo's counters."""
    frames = dynamo.counters["frames"]
    return CompileCounts(
        graph_breaks=sum(dynamo.counters["graph_break"].values()),
        recompiles=sum(1 for entry in dynamo.get_compilation_metrics() if entry.recompile_reason),
        frames_total=frames["total"],
        frames_compiled=frames["ok"],
    )


@contextlib.contextmanager
def no_recompiles() -> Iterator[None]:
    """Inside, a call that would compile again raises: timing must not contain a compilation or an eager fallback."""
    with torch.compiler.set_stance("fail_on_recompile"):
        yield


@contextlib.contextmanager
def cold_cache() -> Iterator[Path]:
    """Inside, inductor's and Triton's caches begin empty, on disk (in the folder given) and in memory; then deleted."""
    before = {variable: os.environ.get(variable) for variable in CACHE_VARIABLES}
    folder = Path(tempfile.mkdtemp(prefix="archbench-inductor-"))
    os.environ.update({variable: str(folder / place) for variable, place in CACHE_VARIABLES.items()})
    forget_loaded()
    try:
        yield folder
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        forget_loaded()
        shutil.rmtree(folder, ignore_errors=True)


def forget_loaded() -> None:
    """Drop what inductor keeps in memory of its caches on disk: the next compilation reads or makes them again."""
    from torch._inductor.utils import clear_caches  # importing inductor takes seconds, which eager cells need not pay

    clear_caches()


def mark_step() -> None:
    """Tell CUDA graphs that a step begins: the tensors of the last one may be overwritten."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def cuda_graph_launches(step: Callable[[], object]) -> int:
    """Run `step` under the profiler and count the CUDA graphs it launched.

    Dynamo's counters do not show whether a graph was really used; the driver call does.
    """
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if "cudaGraphLaunch" in event.key)


def lacks_toolchain(error: BaseException) -> bool:
    """Whether a compilation failed because this machine has no C++ compiler, no Triton, or a GPU too old for it."""
    names = {"InvalidCxxCompiler", "TritonMissing", "GPUTooOldForTriton"}
    causes = (error, error.__cause__, getattr(error, "inner_exception", None))
    return any(type(cause).__name__ in names for cause in causes if cause is not None)
