"""Plain hand-written timing loops, as one would write them without archbench: of which nothing is imported here."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
import torchvision

Step = Callable[[], object]

FEWEST = 3
SPIN_CYCLES = 1_000_000


def network(name: str, device: torch.device) -> tuple[torch.nn.Module, torch.Tensor]:
    """A torchvision network with random weights, and one image."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval().to(device)
    return model, torch.randn(1, 3, 224, 224, device=device)


def eager(model: torch.nn.Module, image: torch.Tensor) -> Step:
    """One forward pass."""

    def step() -> object:
        with torch.inference_mode():
            return model(image)

    return step


def graphed(model: torch.nn.Module, image: torch.Tensor) -> Step:
    """The same, recorded once as a CUDA graph and replayed: three warm-up passes on a side stream come first."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.inference_mode():
        for _ in range(3):
            model(image)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        model(image)
    return graph.replay


def latency(step: Step, seconds: float, device: torch.device) -> float:
    """Median over steps that are each waited for."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times)


def behind_backlog(step: Step, seconds: float) -> float:
    """Median of the step between events, each queued while the GPU spins, so that it finds the whole step waiting."""
    spin, start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
    cycles = SPIN_CYCLES
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)
        spin.record()
        start.record()
        step()
        stop.record()
        in_time = not spin.query()
        stop.synchronize()
        if in_time:
            times.append(start.elapsed_time(stop) / 1e3)
        else:
            cycles *= 2  # the spin was too short: what was measured contains gaps
        if cycles > 2**40:
            raise RuntimeError("no spin outlasts the launching of this step: it waits for the GPU itself")
    return median(times)
