"""Operators and kernels of a step, from `torch.profiler` over a scheduled window after warm-up, and its trace.

In the trace, forward ranges of modules are recorded while the step runs. Backward, autograd's own frame begins before
any hook of ours, so a range from hook to hook would cross it; but the trace tells which forward operator made each node
(its sequence number), and so, afterwards, whose the time was: those ranges are added as tracks of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from archbench.device.kind import kind_of
from archbench.measure.workload import Workload
from archbench.model.profile import Bound, OperatorProfile
from archbench.profiler.boundaries import Boundaries, observe
from archbench.profiler.rows import Call, Ceilings, Traffic, Work

ACTIVE_STEPS = 3
"""Recorded, after one that only warms the profiler up."""
SLOW_S = 2.0
"""A step from which one recorded step must do."""
MOST_OPERATORS = 60
"""Rows that are kept; the rest of a network's operators and shapes takes no time worth a line."""
BLIND = "the profiler saw no kernel, as may happen to a process's second session, or beside another profiler"
RANGE = "module: "
"""What the names of our ranges in a trace begin with."""
_TRACK = 1 << 20
"""Added to a thread's number for its track of modules: no thread has a number as high."""
_ENGINE = "autograd::engine::evaluate_function"
_US = 1e-6
# How libraries name kernels that run on CUDA cores, whatever else the name says: CUTLASS by `simt`, cuDNN's `xmma` by
# the instruction `ffma`, cuBLAS and cuDNN of old by `sgemm` and `scudnn`.
_CUDA_CORE = re.compile(r"simt|[fhd]fma|sgemm|scudnn", re.I)
# And on tensor cores: by `tensorop` or `tensor16x8x16`, by the instruction's shape (`s16816`), by `gmma` or, since
# Hopper, `nvjet`. Triton's and FlashAttention's names do not tell.
_TENSOR_CORE = re.compile(r"tensor_?op|tensor\d+x\d+|[hiqd]mma|gmma|xmma|nvjet|[shi]\d*(16816|1688|884)|_mma_", re.I)
_UNTOLD = re.compile(r"^triton_|flash|fmha", re.I)
_CPU_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
_PRODUCTS = {
    # The operator in which the profiler sees the time, and the one that the dispatcher was called with.
    **dict.fromkeys(("mkldnn_convolution", "cudnn_convolution", "_convolution", "thnn_conv2d"), "convolution"),
    **dict.fromkeys(("_slow_conv2d_forward", "_conv_depthwise2d"), "convolution"),
    **{name: name for name in ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm")},
    **{name: name for name in (_CPU_ATTENTION, f"{_CPU_ATTENTION}_backward")},
}

_OTHER_PRODUCTS = re.compile(
    r"attention|conv(?!ert)|gemm|matmul|einsum|(^|_)(b?add)?b?m[mv](_|$)|(^|_)(linear|lstm|gru)(_|$)"
)
"""Further operators with products, of which it is not known at which call the dispatcher saw them."""


class Window(Struct, frozen=True, kw_only=True):
    """What the profiler saw, per step."""

    operators: tuple[OperatorProfile, ...]
    kernels: tuple[OperatorProfile, ...]
    operators_s: float
    """Host time inside operators."""
    busy_s: float | None
    """While some kernel ran. `None` where no kernel was seen: on the CPU, or by a session that CUPTI served no more."""
    device_s: dict[str, float] | None = None
    """Time of the kernels that each module's own operators launched, by path; `None` where `busy_s` is, and of a
    compiled step, whose kernels are no module's alone."""
    events: Sequence[Any]
    """The profiler's own, for whoever maps kernels to modules."""
    steps: int


def watch_operators(
    workload: Workload, traffic: Traffic | None, ceilings: Ceilings | None, step_s: float, *, trace: Path | None = None
) -> Window:
    """Profile the warmed-up `workload`; write what was seen as Chrome's JSON to `trace`.

    Module ranges are only in an eager step's trace: a compiled step does not come past the modules.
    """
    kind = kind_of(workload.device)
    own = kind.activity
    steps = 1 if step_s > SLOW_S else ACTIVE_STEPS
    activities = [ProfilerActivity.CPU, *([] if own is None else [getattr(ProfilerActivity, own)])]
    with (
        _quiet(),
        _ranged(workload) as step,
        profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
            record_shapes=True,
            acc_events=True,
        ) as profiler,
    ):
        for _ in range(steps + 1):
            step()
            kind.synchronize(workload.device)
            profiler.step()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    events = profiler.events()
    assert events is not None
    known = {} if traffic is None else traffic.by_call
    averages = profiler.key_averages(group_by_input_shape=True)
    operators = [event for event in averages if _is_operator(event)]
    cpu_s = sum(event.self_cpu_time_total for event in operators) * _US
    kernels = [event for event in events if event.device_type.name == own and not event.is_user_annotation]
    calls = [Ran(event.name, event.time_range.elapsed_us() * _US) for event in kernels]
    return Window(
        operators=_operators(operators, steps, known, ceilings, on_device=own is not None),
        kernels=tuple(
            replace(kernel, tensor_core=uses_tensor_cores(kernel.name))
            for kernel in sum_kernels(calls, steps)[:MOST_OPERATORS]
        ),
        operators_s=cpu_s / steps,
        busy_s=_covered_us(kernels) * _US / steps if kernels else None,
        device_s=kernels_by_module(events, steps) if kernels and workload.cell.compile_mode == "off" else None,
        events=events,
        steps=steps,
    )


@contextlib.contextmanager
def _ranged(workload: Workload) -> Iterator[Callable[[], object]]:
    """The step, with a range for each module where it runs eagerly."""
    if workload.cell.compile_mode != "off":
        yield workload.step
        return
    boundaries = Boundaries(workload.module, lambda: None, ranges=lambda path: record_function(f"{RANGE}{path or '.'}"))
    with boundaries:
        yield lambda: observe(workload, boundaries)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Kineto reports its own start and end, and the absence of a GPU, on stderr."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = "5"
    try:
        yield
    finally:
        if before is None:
            del os.environ["KINETO_LOG_LEVEL"]
        else:
            os.environ["KINETO_LOG_LEVEL"] = before


def _is_operator(event: Any) -> bool:
    """Neither a range nor autograd's frame around an operator."""
    return (
        "::" in event.key
        and not event.key.startswith(("autograd::", "torch::autograd::", "profiler::"))
        and event.device_type.name == "CPU"
    )


def _operators(
    events: Sequence[Any], steps: int, known: dict[Call, Work], ceilings: Ceilings | None, *, on_device: bool
) -> tuple[OperatorProfile, ...]:
    def own_s(event: Any) -> float:
        return float(event.self_device_time_total if on_device else event.self_cpu_time_total) * _US / steps

    total_s = sum(map(own_s, events)) or 1.0
    longest = sorted(events, key=own_s, reverse=True)[:MOST_OPERATORS]
    return tuple(
        OperatorProfile(
            name=event.key,
            shapes=tuple("x".join(map(str, shape)) for shape in event.input_shapes if shape),
            calls=event.count / steps,
            self_s=own_s(event),
            share=own_s(event) / total_s,
            tensor_core=None,
            bound=_bound(event, known, ceilings),
        )
        for event in longest
        if own_s(event) > 0
    )


def _bound(event: Any, known: dict[Call, Work], ceilings: Ceilings | None) -> Bound | None:
    """An operator without products has next to no arithmetic: memory. Of a product, its FLOP and bytes decide."""
    name = event.key.rpartition("::")[2]
    if name not in _PRODUCTS:
        return None if _OTHER_PRODUCTS.search(name) else "memory"
    shapes = tuple(tuple(shape) for shape in event.input_shapes if shape)
    work = known.get((_PRODUCTS[name], shapes))
    if work is None or ceilings is None:
        return None
    return "compute" if work.flops / ceilings.flops > work.bytes_moved / ceilings.bandwidth else "memory"


class Ran(Struct, frozen=True):
    """A kernel's call in the step."""

    name: str
    seconds: float
    modules: tuple[str, ...] = ()


def sum_kernels(ran: Iterable[Ran], steps: int) -> tuple[OperatorProfile, ...]:
    """The calls of `steps` steps by name and modules, per step, the longest first."""
    seconds: dict[tuple[str, tuple[str, ...]], list[float]] = defaultdict(list)
    for one in ran:
        seconds[one.name, one.modules].append(one.seconds)
    total_s = sum(map(sum, seconds.values())) or 1.0
    return tuple(
        OperatorProfile(
            name=name,
            shapes=(),
            calls=len(calls) / steps,
            self_s=sum(calls) / steps,
            share=sum(calls) / total_s,
            tensor_core=None,
            bound=None,
            modules=modules,
        )
        for (name, modules), calls in sorted(seconds.items(), key=lambda kind: -sum(kind[1]))
    )


def kernels_by_module(events: Iterable[Any], steps: int) -> dict[str, float]:
    """Seconds of a step in the kernels that each module's operators launched, without those of the modules inside.

    An operator stands in its module's range, or, in the backward pass, below the engine's call of a node; which module
    made that node its sequence number tells. Kernels of the loss and the optimizer are nobody's.
    """
    host = [event for event in events if event.device_type.name == "CPU" and not event.is_user_annotation]
    makers: dict[int, str] = {}
    for event in sorted(host, key=lambda event: event.time_range.start):
        path, node = _place(event)
        if path is not None and node is None and event.sequence_nr >= 0:
            makers[event.sequence_nr] = path  # of several the last: see `_owners`
    had: dict[str, float] = defaultdict(float)
    for event in host:
        path, node = _place(event)
        path = path if node is None else makers.get(node)
        if path is not None and event.kernels:
            had[path] += sum(kernel.duration for kernel in event.kernels) * _US / steps
    return dict(had)


def _place(event: Any) -> tuple[str | None, int | None]:
    """The module in whose range an operator stands; the sequence number of the node that it computes backwards."""
    above = event
    while above is not None:
        if above.name.startswith(_ENGINE):
            return None, above.sequence_nr
        if above.name.startswith(RANGE):
            path = above.name.removeprefix(RANGE)
            return "" if path == "." else path, None
        above = above.cpu_parent
    return None, None


def uses_tensor_cores(kernel: str) -> bool | None:
    """Whether a CUDA kernel's name says that it runs on matrix units; `None` where such names do not tell."""
    if _CUDA_CORE.search(kernel):
        return False
    if _TENSOR_CORE.search(kernel):
        return True
    return None if _UNTOLD.search(kernel) else False


def _covered_us(events: Sequence[Any]) -> float:
    """Length of the union of the events' time ranges."""
    covered = end = 0.0
    for start, stop in sorted((event.time_range.start, event.time_range.end) for event in events):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


class Slice(Struct, frozen=True):
    """A stretch of one thread. Microseconds, as in the file."""

    start: float
    end: float
    name: str


def add_module_tracks(path: Path) -> int:
    """Rewrite the trace at `path` with the tracks; return how many slices were added."""
    document = msgspec.json.decode(path.read_bytes())
    events: list[dict[str, Any]] = document["traceEvents"]
    threads = {(event["pid"], event["tid"]) for event in events if str(event.get("name", "")).startswith(_ENGINE)}
    owners = _owners(events)
    added: list[dict[str, Any]] = []
    for pid, tid in threads:
        track = {"pid": pid, "tid": tid + _TRACK}
        slices = _merged(_backward(events, pid, tid, owners))
        name = {"ph": "M", "name": "thread_name", "args": {"name": f"modules, backward (thread {tid})"}}
        added.append(name | track)
        added += [
            {"ph": "X", "cat": "module", "name": one.name, "ts": one.start, "dur": one.end - one.start} | track
            for one in slices
        ]
    events += added
    path.write_bytes(msgspec.json.encode(document))
    return sum(event["ph"] == "X" for event in added)


def _owners(events: Sequence[dict[str, Any]]) -> dict[int, str]:
    """By sequence number, the innermost module range around the forward operator that dealt it out."""
    owners: dict[int, str] = {}
    open_ranges: dict[tuple[Any, Any], list[Slice]] = {}
    timed = [event for event in events if event.get("ph") == "X" and "ts" in event]
    # Of two that begin together the longer is around the other.
    for event in sorted(timed, key=lambda event: (event["ts"], -event.get("dur", 0.0))):
        name = str(event.get("name", ""))
        ranges = open_ranges.setdefault((event["pid"], event["tid"]), [])
        while ranges and ranges[-1].end <= event["ts"]:
            ranges.pop()
        if name.startswith(RANGE) and event.get("cat") == "user_annotation":
            ranges.append(Slice(event["ts"], event["ts"] + event["dur"], name.removeprefix(RANGE)))
            continue
        number = event.get("args", {}).get("Sequence number")
        is_forward = number is not None and not event["args"].get("Fwd thread id") and not name.startswith(_ENGINE)
        if is_forward and ranges:
            # The number is a peek at the next one: an operator that makes no node shows its successor's, and the
            # maker of the node, which comes later, is right. Numbers start anew with no step.
            owners[number] = ranges[-1].name
    return owners


def _backward(events: Sequence[dict[str, Any]], pid: Any, tid: Any, owners: dict[int, str]) -> Iterator[Slice]:
    for event in events:
        if (event.get("pid"), event.get("tid")) == (pid, tid) and str(event.get("name", "")).startswith(_ENGINE):
            number = event.get("args", {}).get("Sequence number")
            if number in owners:
                yield Slice(event["ts"], event["ts"] + event["dur"], f"{RANGE}{owners[number]} backward")


def _merged(slices: Iterable[Slice]) -> list[Slice]:
    """Neighbours of one name as one."""
    merged: list[Slice] = []
    for one in sorted(slices, key=lambda one: one.start):
        if merged and merged[-1].name == one.name:
            last = merged.pop()
            one = Slice(last.start, max(last.end, one.end), last.name)
        merged.append(one)
    return merged
