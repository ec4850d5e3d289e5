"""What only a card can tell, asked with nothing but torch and NVML: what archbench's CUDA path takes for granted.

    python tests/gpu/facts.py FILE.json [SECONDS]

Each fact is written as soon as it is known. One that cannot be had is written as why; the others follow all the same.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

PRECISIONS = {"fp32": (torch.float32, "highest"), "tf32": (torch.float32, "high"), "bf16": (torch.bfloat16, "highest")}
CYCLES = 50_000_000
BACKLOG_S = 0.02


def event() -> Any:
    return torch.cuda.Event(enable_timing=True)


def elapsed_s(start: Any, end: Any) -> float:
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e-3


@contextmanager
def nvml():
    import pynvml

    pynvml.nvmlInit()
    try:
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        yield pynvml, pynvml.nvmlDeviceGetHandleByUUID(name)
    finally:
        pynvml.nvmlShutdown()


def launches(count: int = 120) -> Callable[[], None]:
    """A step of many kernels that take a few microseconds each: bound by its launches."""
    small = torch.zeros(1024, device="cuda")

    def step() -> None:
        for _ in range(count):
            small.add_(1.0)

    return step


def network() -> nn.Module:
    """A dozen layers, so that nothing but torch is needed."""
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 64, 7, 4), *layers).cuda().eval()


def card() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    with nvml() as (binding, handle):
        driver = binding.nvmlSystemGetDriverVersion()
        clocks = [binding.nvmlDeviceGetClockInfo(handle, kind) for kind in (1, 2)]
    return {
        "name": properties.name,
        "uuid": str(properties.uuid),
        "torch": torch.__version__,
        "driver": driver,
        "sm_and_memory_mhz": clocks,
        "python": sys.version.split()[0],
    }


def processes() -> list[str]:
    """Who NVML says has a context, and who they are to us."""
    kin: dict[int | None, str] = {os.getpid(): "this process", os.getppid(): "its parent"}
    kin |= {child.pid: "its child" for child in multiprocessing.active_children()}
    with nvml() as (binding, handle):
        found = binding.nvmlDeviceGetComputeRunningProcesses(handle)
    return [f"{kin.get(one.pid, 'somebody')}: {one.usedGpuMemory}" for one in found]


def utilisation() -> list[dict[str, int]]:
    """Which processes NVML says have used the SMs over two seconds of work."""
    with nvml() as (binding, handle):
        until = time.perf_counter() + 2.0
        while time.perf_counter() < until:
            torch.cuda._sleep(CYCLES)
            torch.cuda.synchronize()
        found = binding.nvmlDeviceGetProcessUtilization(handle, 0)
    return [{"pid_is_ours": one.pid == os.getpid(), "sm": one.smUtil} for one in found]


def spinning() -> float:
    """Cycles a second of `torch.cuda._sleep`."""
    start, end = event(), event()
    rates = []
    for _ in range(5):
        start.record()
        torch.cuda._sleep(CYCLES)
        end.record()
        rates.append(CYCLES / elapsed_s(start, end))
    return statistics.median(rates)


def spans() -> dict[str, float]:
    """One step's event span on an idle stream, and behind a backlog; and what issuing it takes the host."""
    step, start, end = launches(), event(), event()
    idle: list[float] = []
    behind: list[float] = []
    issue: list[float] = []
    for number in range(40):
        torch.cuda.synchronize()
        if number % 2:
            torch.cuda._sleep(int(BACKLOG_S * 2e9))
        start.record()
        begun = time.perf_counter()
        step()
        issue.append(time.perf_counter() - begun)
        end.record()
        (behind if number % 2 else idle).append(elapsed_s(start, end))
    return {
        "idle_ms": 1e3 * statistics.median(idle),
        "behind_a_backlog_ms": 1e3 * statistics.median(behind),
        "issue_ms": 1e3 * statistics.median(issue),
    }


def queue() -> int | str:
    """How many launches fit into the queue: behind a long kernel, the one that takes the host a millisecond."""
    small = torch.zeros(16, device="cuda")
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    try:
        for number in range(5000):
            begun = time.perf_counter()
            small.add_(1.0)
            if number and time.perf_counter() - begun > 20e-3:
                return number
    finally:
        torch.cuda.synchronize()
    return "more than 5000"


def waiting() -> dict[str, float]:
    """What a record and a wait cost the host, in microseconds: for the event, and for the whole device."""
    end, costs = event(), {}
    for name, wait in (("event_us", end.synchronize), ("device_us", torch.cuda.synchronize)):
        begun = time.perf_counter()
        for _ in range(200):
            end.record()
            wait()
        costs[name] = (time.perf_counter() - begun) / 200 * 1e6
    return costs


def step_s(step: Callable[[], object], seconds: float = 1.0) -> float:
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 5:
        begun = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def profiled(step: Callable[[], object]) -> dict[str, int]:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as session:
        step()
        torch.cuda.synchronize()
    events = session.events() or []
    kernels = sum(one.device_type.name == "CUDA" for one in events)
    return {"kernels": kernels, "launches": sum("cudaLaunchKernel" in one.name for one in events)}


def profiler_sessions() -> dict[str, object]:
    """A step's time before and after a profiler's session, and what a second session sees."""
    model, image = network(), torch.randn(1, 3, 224, 224, device="cuda")
    with torch.inference_mode():
        before = step_s(lambda: model(image))
        first = profiled(lambda: model(image))
        after = step_s(lambda: model(image))
        second = profiled(lambda: model(image))
    return {"before_ms": before * 1e3, "after_ms": after * 1e3, "slower": after / before, "saw": [first, second]}


def kernel_names() -> dict[str, list[str]]:
    """Kernels of a product and of a convolution, by arithmetic."""
    found = {}
    for name, (dtype, precision) in PRECISIONS.items():
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = name == "tf32"
        left = torch.randn(1024, 1024, device="cuda", dtype=dtype)
        image = torch.randn(16, 64, 56, 56, device="cuda", dtype=dtype)
        weight = torch.randn(64, 64, 3, 3, device="cuda", dtype=dtype)
        for kind, work in (
            ("matmul", lambda left=left: left @ left),
            ("conv", lambda image=image, weight=weight: nn.functional.conv2d(image, weight, padding=1)),
        ):
            work()
            activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            with torch.profiler.profile(activities=activities) as session:
                work()
                torch.cuda.synchronize()
            names = {one.name for one in session.events() or [] if one.device_type.name == "CUDA"}
            found[f"{kind} {name}"] = sorted(names)
    return found


def processes_after_compiling() -> dict[str, object]:
    """Whether the compiler's workers hold a context, which NVML would list; and what the compilation took."""
    model, image = network(), torch.randn(1, 3, 224, 224, device="cuda")
    begun = time.perf_counter()
    with torch.inference_mode():
        torch.compile(model, dynamic=False)(image)
    torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - begun, "processes": processes()}


FACTS: tuple[Callable[[], object], ...] = (
    *(card, processes, spinning, spans, queue, waiting, utilisation, processes_after_compiling),
    *(kernel_names, profiler_sessions),  # the last two: a profiler's session may slow what follows
)


def main() -> None:
    file, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    until = time.monotonic() + seconds
    known: dict[str, object] = {}
    for ask in FACTS:
        try:
            known[ask.__name__] = ask() if time.monotonic() < until else "no time left"
        except Exception as error:
            known[ask.__name__] = f"not to be had: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{ask.__name__}: {json.dumps(known[ask.__name__])}", flush=True)
        file.write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
