"""What a compiled step runs, kernel by kernel, mapped back to modules where the compiler says so.

Inductor makes a kernel from nodes of a graph, and a node knows the stack of modules that dynamo was in when it traced
it. The moment inductor writes a kernel's call, both are at hand: `_recording` notes them, graph by graph in the order
of the calls. At run time each compiled graph is a range in the profiler, with its kernels below it in the same order.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from archbench.device.kind import Clock, kind_of
from archbench.measure import compiler
from archbench.measure.workload import Workload
from archbench.model.profile import KernelMap
from archbench.profiler.operators import MOST_OPERATORS, Ran, sum_kernels, watch_operators

_GRAPH_RANGE = "## Call CompiledFxGraph"
_GENERATED = re.compile(r"^graph_\d+_")
"""What inductor puts before the name of a C++ kernel in its range."""
_ROOT = re.compile(r"^L\['\w+'\]\.?")
_US = 1e-6


class Written(Struct, frozen=True):
    """A kernel's call in the generated code."""

    name: str
    modules: tuple[str, ...]
    """Innermost modules of the nodes that it was made from."""


def map_kernels(
    make: Callable[[], Workload], clock: Clock, eager_step_s: float, time_step: Callable[[Workload], float]
) -> KernelMap:
    """Compile the workload that `make` gives with empty caches, time its step, and say what each kernel is for."""
    compiler.reset()
    with compiler.cold_cache(), _recording() as written:
        begin = time.perf_counter()
        workload = make()
        workload.step()
        clock.synchronize()
        compile_s = time.perf_counter() - begin
        workload.step()
    step_s = time_step(workload)
    window = watch_operators(workload, None, None, step_s)
    known = {path for path, _ in workload.module.named_modules()}
    graphs = [[Written(one.name, tuple(p for p in one.modules if p in known)) for one in graph] for graph in written]
    if kind_of(workload.device).activity is not None:
        by_name = {one.name: one.modules for graph in graphs for one in graph}
        ran = [
            Ran(kernel.name, kernel.self_s * window.steps, by_name.get(kernel.name, ())) for kernel in window.kernels
        ]
    else:
        ran = [one for run in _runs(window.events) for one in attribute(run, graphs)]
    kernels = sum_kernels(ran, window.steps)
    total_s = sum(kernel.self_s for kernel in kernels)
    mapped_s = sum(kernel.self_s for kernel in kernels if kernel.modules)
    return KernelMap(
        kernels=kernels[:MOST_OPERATORS],
        mapped_share=mapped_s / total_s if total_s else None,
        step_s=step_s,
        eager_step_s=eager_step_s,
        compile_s=compile_s,
    )


def attribute(run: Sequence[Ran], graphs: Sequence[Sequence[Written]]) -> list[Ran]:
    """Give each kernel of one graph's run the modules of its call in the code: that of the graph that fits best.

    Calls come in the order in which they were written; what was not written (an operator's own helper) is passed over.
    """
    best: list[Ran] = list(run)
    most = 0
    for graph in graphs:
        found, place = [], 0
        for one in run:
            later = next((n for n in range(place, len(graph)) if graph[n].name == one.name), None)
            found.append(one if later is None else Ran(one.name, one.seconds, graph[later].modules))
            place = place if later is None else later + 1
        matched = sum(bool(one.modules) for one in found)
        if matched > most:
            best, most = found, matched
    return best


def _runs(events: Sequence[Any]) -> Iterator[list[Ran]]:
    """The kernels of each compiled graph's call, in order."""
    for event in events:
        if event.name.startswith(_GRAPH_RANGE):
            children = sorted(event.cpu_children, key=lambda child: child.time_range.start)
            yield [Ran(_plain(child.name), child.cpu_time_total * _US) for child in children]


def _plain(name: str) -> str:
    """`convolution` of `aten::convolution`, `extern_kernels.convolution` and `torch.ops.aten.convolution.default`."""
    name = _GENERATED.sub("", name)
    if name.startswith("torch.ops."):
        return name.split(".")[3]
    return name.rpartition("::")[2].rpartition(".")[2]


@contextlib.contextmanager
def _recording() -> Iterator[list[list[Written]]]:
    """Inside, what inductor writes is noted: a list of calls for each graph, in the order of the code."""
    import torch._inductor.codegen.cpp
    import torch._inductor.codegen.triton
    import torch._inductor.config
    import torch._inductor.debug
    from torch._inductor.virtualized import V

    name = "set_kernel_post_grad_provenance_tracing"
    homes: tuple[Any, ...] = (torch._inductor.debug, torch._inductor.codegen.cpp, torch._inductor.codegen.triton)
    original = getattr(torch._inductor.debug, name)
    by_graph: dict[int, list[Written]] = {}
    graphs: list[Any] = []  # kept, so that one address means one graph
    written: list[list[Written]] = []

    def note(schedule: Any, kernel_name: str, is_extern: bool = False) -> Any:
        graph = V.graph
        if id(graph) not in by_graph:
            graphs.append(graph)
            written.append(by_graph.setdefault(id(graph), []))
        nodes = [schedule] if is_extern else [getattr(node, "node", None) for node in schedule]
        modules = dict.fromkeys(path for node in nodes if node is not None for path in _modules_of(node))
        by_graph[id(graph)].append(Written(_plain(kernel_name), tuple(modules)))
        return original(schedule, kernel_name, is_extern)

    for home in homes:
        setattr(home, name, note)
    try:
        with torch._inductor.config.patch({"cpp.enable_kernel_profile": True}):
            yield written
    finally:
        for home in homes:
            setattr(home, name, original)


def _modules_of(node: Any) -> Iterator[str]:
    """Paths of the innermost modules in which the nodes behind an inductor node were traced."""
    exact = getattr(node, "origin_node", None)
    for origin in [exact] if exact is not None else sorted(node.origins, key=lambda origin: origin.name):
        stack = origin.meta.get("nn_module_stack") or origin.meta.get("fwd_nn_module_stack")
        if stack:
            path, _ = list(stack.values())[-1]
            yield _ROOT.sub("", str(path))
