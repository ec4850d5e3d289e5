"""What a step pays for memory that malloc gave back: page faults and time, as a process begins and as archbench has it.

    python benchmarks/freed_memory.py [--networks mobilenet_v3_large densenet169] [--processes 8] [--seconds 1.2]

Each network at batch 1 in processes of their own, in random order: `fresh` has glibc's defaults, `after` as well but
has done a larger step before, `kept` keeps what is freed (`archbench.measure.state.keep_freed_memory`). Prints the
median over processes of the median step, how far the processes differ (standard deviation of logs), and the page
faults a step.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import time
from statistics import median, stdev

WAYS = ("fresh", "after", "kept")
WARM_UP_S = 1.0


def measure(name: str, way: str, seconds: float) -> None:
    """In a process of its own: prints the median step in seconds, and page faults a step."""
    import torch
    import torchvision

    from archbench.measure.state import keep_freed_memory

    if way == "kept":
        keep_freed_memory()
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        if way == "after":
            network(image.repeat(8, 1, 1, 1))
        end = time.perf_counter() + WARM_UP_S
        while time.perf_counter() < end:
            network(image)
        before, times = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            network(image)
            times.append(time.perf_counter() - start)
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(times)
    print(json.dumps([median(times), faults]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v3_large", "efficientnet_b3", "densenet169"])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, way = arguments.one
        measure(name, way, arguments.seconds)
        return
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    rng = random.Random(0)
    for _ in range(arguments.processes):
        for name in arguments.networks:
            for way in rng.sample(WAYS, len(WAYS)):
                command = [sys.executable, __file__, "--one", name, way, "--seconds", str(arguments.seconds)]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found.setdefault((name, way), []).append(tuple(json.loads(told)))
    print(f"{'network':20} {'memory':7} {'ms':>7} {'sd %':>6}  page faults a step")
    for (name, way), steps in sorted(found.items()):
        times, faults = [time_s for time_s, _ in steps], sorted(count for _, count in steps)
        sd = 100 * stdev(map(math.log, times)) if len(times) > 1 else math.nan
        print(f"{name:20} {way:7} {1e3 * median(times):7.1f} {sd:6.1f}  {faults[0]:,.0f} to {faults[-1]:,.0f}")


if __name__ == "__main__":
    main()
