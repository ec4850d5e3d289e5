"""torch.compile: the one file that touches dynamo's and inductor's internals, each symbol covered by a test."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from msgspec import Struct
from torch import nn

from archbench.model.axes import CompileMode

CACHE_VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "", "TRITON_CACHE_DIR": "triton"}
"""Where compiled code is kept, and the place of each in a folder of ours. Inductor sets Triton's once and for all."""
WORKERS_PATIENCE_S = 120.0
"""For inductor's workers to import torch and report."""
_RUNTIME_CALL = re.compile(r"cuda[A-Z]|cu[A-Z]")
"""What the profiler calls a call of CUDA's runtime or driver."""
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


def compile_module(module: nn.Module, mode: CompileMode, *, freeze: bool = False) -> Callable[..., Any]:
    """Return the compiled call of `module`, specialised to the first shape it sees; `freeze`: weights are constants.

    `dynamic=False`: with torch's default the second batch size would get slower, shape-generic kernels.
    """
    # From the start, for the stance alone says nothing once the limit was hit and calls run eagerly.
    cast(Any, torch.compiler.config).fail_on_recompile_limit_hit = True
    compiled = torch.compile(module, mode=None if mode == "default" else mode, dynamic=False)
    return _frozen_at_first(compiled) if freeze else compiled


def _frozen_at_first(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, whose first call compiles with freezing on: dynamo asks the process's switch, and no option."""
    import torch._inductor.config

    calls = 0

    def call(*inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            return compiled(*inputs)
        with torch._inductor.config.patch(freezing=True):
            return compiled(*inputs)

    return call


def trace_module(module: nn.Module) -> Callable[..., Any]:
    """Return a call of `module` that dynamo traces and that then runs eagerly: its counts, without generating code."""
    return torch.compile(module, backend="eager", dynamic=False)


@functools.cache
def get_ready(device: torch.device) -> None:
    """Do what the first compilation of a process does besides compiling, so that its time does not hold it.

    Libraries make their handles, inductor tries out the C++ compiler or builds Triton's stub of the driver, and starts
    its workers, all of it in torch's own cache. Raises what a machine without the tools raises.
    """
    with torch.inference_mode():
        image = torch.ones(1, 1, 3, 3, device=device)
        F.conv2d(image, image)
        torch.mm(image[0, 0], image[0, 0])
        torch.compile(lambda x: (x + 1.0).relu(), dynamic=False)(image)
    workers = sys.modules.get("torch._inductor.async_compile")
    ready = None if workers is None else workers.AsyncCompile._ready_future
    if ready is not None:
        ready.result(timeout=WORKERS_PATIENCE_S)
    reset()


def without_workers() -> None:
    """From here on this process compiles alone: where the cache is full there is nothing for workers to do."""
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1


def reset() -> None:
    """Forget every compiled graph and every count; caches on disk stay.

    Not for eager cells: once CUDA is in use torch imports inductor for it, which takes 1.7 s.
    """
    import torch._dynamo.utils as dynamo  # two seconds, which eager cells need not pay

    torch._dynamo.reset()
    dynamo.counters.clear()
    dynamo.clear_compilation_metrics()


def counts() -> CompileCounts:
    """Read dynamo's counters."""
    import torch._dynamo.utils as dynamo

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
def first_run_holds(lock: Callable[[], contextlib.AbstractContextManager[object]]) -> Iterator[None]:
    """Inside, the first run of compiled code takes `lock`, and keeps it to the end of the block.

    To compile is the host's work. Only the code's first run times Triton's configurations and cuDNN's plans.
    """
    from torch._inductor.output_code import CompiledFxGraph

    graphs = cast(Any, CompiledFxGraph)
    run = graphs.__call__
    with contextlib.ExitStack() as held:

        def locked(graph: CompiledFxGraph, inputs: Any) -> Any:
            graphs.__call__ = run
            held.enter_context(lock())
            return run(graph, inputs)

        graphs.__call__ = locked
        try:
            yield
        finally:
            graphs.__call__ = run


@contextlib.contextmanager
def cold_cache() -> Iterator[Path]:
    """Inside, inductor's and Triton's caches begin empty, on disk (in the folder given) and in memory; then deleted."""
    with (
        tempfile.TemporaryDirectory(prefix="archbench-inductor-", ignore_cleanup_errors=True) as folder,
        cache_in(Path(folder)),
    ):
        yield Path(folder)


@contextlib.contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Inside, inductor's and Triton's caches are in `folder`, with nothing of them in memory."""
    before = {variable: os.environ.get(variable) for variable in CACHE_VARIABLES}
    os.environ.update({variable: str(folder / place) for variable, place in CACHE_VARIABLES.items()})
    forget_loaded()
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        forget_loaded()


def forget_loaded() -> None:
    """Drop what inductor keeps in memory of its caches on disk: the next compilation reads or makes them again."""
    from torch._inductor.utils import clear_caches  # importing inductor takes seconds, which eager cells need not pay

    clear_caches()


def mark_step() -> None:
    """Tell CUDA graphs that a step begins: the tensors of the last one may be overwritten."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def graphs_recorded() -> int:
    """How many CUDA graphs were recorded so far: steps that are replayed record none.

    Recompilations they are not, so that `no_recompiles` lets them pass.
    """
    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    manager = None if trees is None else trees.get_manager(create_if_none_exists=False)
    return 0 if manager is None else int(next(copy.copy(manager.graph_counter)))


def cuda_graph_launches(step: Callable[[], object]) -> int | None:
    """Run `step` under the profiler and count the CUDA graphs it launched; `None` where it saw no call at all.

    Dynamo's counters do not show whether a graph was really used; the driver call does. For a process in which nothing
    is timed afterwards: CUPTI stays attached, and a second session may see nothing.
    """
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    calls = {event.key: event.count for event in profile.key_averages() if _RUNTIME_CALL.match(event.key)}
    return sum(count for key, count in calls.items() if "GraphLaunch" in key) if calls else None


def lacks_toolchain(error: BaseException) -> bool:
    """Whether a compilation failed because this machine has no C++ compiler, no Triton, or a GPU too old for it."""
    names = {"InvalidCxxCompiler", "TritonMissing", "GPUTooOldForTriton"}
    causes = (error, error.__cause__, getattr(error, "inner_exception", None))
    return any(type(cause).__name__ in names for cause in causes if cause is not None)
