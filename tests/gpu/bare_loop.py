"""The reference networks in a loop that imports nothing of archbench: what archbench's figures are held against.

    python tests/gpu/bare_loop.py [SECONDS]

Per network at batch 1 in fp32, medians in ms: a step waited for (latency), its event span behind a backlog (device
time), and a replay of it as a CUDA graph, waited for.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision

NETWORKS = ("alexnet", "resnet18", "resnet50", "mobilenet_v2", "vit_b_16")
BACKLOG_CYCLES = 60_000_000
"""30 ms at 2 GHz: longer than any of these steps takes to issue."""
LEAST = 5


def medians_ms(timed: Callable[[], float], seconds: float) -> float:
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < LEAST:
        times.append(timed())
    return 1e3 * statistics.median(times)


def measure(name: str, seconds: float) -> tuple[float, float, float]:
    model = torchvision.models.get_model(name, weights=None).cuda().eval()
    image = torch.randn(1, 3, 224, 224, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def waited(step: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    def behind_a_backlog() -> float:
        torch.cuda._sleep(BACKLOG_CYCLES)
        start.record()
        model(image)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    with torch.inference_mode():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # graphs are captured after a few steps on a stream of their own
            for _ in range(10):
                model(image)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        eager = medians_ms(lambda: waited(lambda: model(image)), seconds / 3)
        device = medians_ms(behind_a_backlog, seconds / 3)
        with torch.cuda.graph(graph):
            model(image)
        return eager, device, medians_ms(lambda: waited(graph.replay), seconds / 3)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 25.0
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{'network':14}{'latency ms':>12}{'device ms':>12}{'graph ms':>12}")
    for name in NETWORKS:
        eager, device, graph = measure(name, 0.6 * seconds / len(NETWORKS))
        print(f"{name:14}{eager:12.4f}{device:12.4f}{graph:12.4f}", flush=True)


if __name__ == "__main__":
    main()
