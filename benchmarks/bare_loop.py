"""Is a latency by archbench the latency of a plain hand-written loop? Both take turns, block by block, in one process.

    python benchmarks/bare_loop.py [--device cpu] [--threads 1] [--turns 15] [--seconds 0.4] [--limit 0.02]

Prints, for six networks at batch 1, the median over turns of archbench's block median over the bare loop's, with its
95 % interval, and the cost of taking one sample with a step that does nothing. Goals: within 2 %; at most 20 us.
With `--device cuda` the bare loop is the usual one, a synchronize after each step. With `--limit` it exits with 1 where
a network's interval lies outside the limit altogether.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from statistics import median

import torch

from archbench.catalog.build import build, input_shape
from archbench.device.cpu import HostClock
from archbench.device.kind import open_clock
from archbench.measure.sampling import sample_latency
from archbench.measure.state import apply_state
from archbench.measure.workload import Workload
from archbench.model.cell import Cell, Network
from archbench.model.protocol import Protocol
from archbench.stats import median_interval

NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "resnet50", "densenet121", "vgg16")


class NoMonitor:
    def begin(self) -> None:
        return None

    def end(self) -> bool:
        return True


def archbench_block(workload: Workload, protocol: Protocol, step_s: float) -> float:
    sampled = sample_latency(
        workload.step, open_clock(workload.device), protocol, NoMonitor(), step_s=step_s, min_samples=0
    )
    return sampled.interval.median


def bare_block(model: torch.nn.Module, image: torch.Tensor, seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            model(image)
            if image.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return median(times)


def compare(name: str, device: torch.device, threads: int, turns: int, seconds: float) -> list[float]:
    cell = Cell(network=Network(name=name), batch_size=1, device="cuda" if device.type == "cuda" else "cpu")
    apply_state("fp32", threads, seed=0)
    shape = input_shape(cell.network)
    workload = Workload(cell, build(cell.network), shape, device, ring=3, seed=0)
    image = workload.inputs[0]
    step_s = bare_block(workload.module, image, 1.0)
    # The same time for both sides; the stopping rule is not what is being compared.
    count = max(3, round(seconds / step_s))
    protocol = Protocol(
        min_samples=count,
        min_samples_slow=count,
        min_blocks=1,
        min_sampling_s=0.0,
        max_samples=count,
        max_sampling_s=0.0,
    )
    ratios = []
    for turn in range(turns):
        pair = {}
        for side in ("archbench", "bare") if turn % 2 else ("bare", "archbench"):
            if side == "bare":
                pair[side] = bare_block(workload.module, image, seconds)
            else:
                pair[side] = archbench_block(workload, protocol, step_s)
        ratios.append(pair["archbench"] / pair["bare"])
    return ratios


def cost_of_a_sample() -> float:
    protocol = Protocol(sample_floor_s=1e-9, min_samples=20_000, max_samples=20_000, max_sampling_s=0.0)
    start = time.perf_counter()
    sampled = sample_latency(lambda: None, HostClock(), protocol, NoMonitor(), step_s=1e-3, min_samples=0)
    return (time.perf_counter() - start) / len(sampled.kept())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--limit", type=float, help="exit with 1 where a network is off by more than this share")
    arguments = parser.parse_args()
    if arguments.turns < 6:
        parser.error("--turns: an interval needs six turns or more")
    gc.freeze()
    device = torch.device(arguments.device)
    outside = []
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    print(f"{'network':18}{'archbench / bare':>18}{'95 % interval':>20}")
    for name in NETWORKS:
        interval = median_interval(compare(name, device, arguments.threads, arguments.turns, arguments.seconds))
        if arguments.limit and (interval.low > 1 + arguments.limit or interval.high < 1 - arguments.limit):
            outside.append(name)
        print(f"{name:18}{interval.median:18.4f}{f'{interval.low:.4f} to {interval.high:.4f}':>20}", flush=True)
    print(f"one sample costs {cost_of_a_sample() * 1e6:.2f} us beyond its step")
    if arguments.limit:
        print(f"within {100 * arguments.limit:g} %: {'all' if not outside else 'all but ' + ', '.join(outside)}")
        sys.exit(bool(outside))


if __name__ == "__main__":
    main()
