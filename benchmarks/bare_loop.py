"""Is what archbench measures what plain hand-written loops measure? Both take turns, block by block, in one process.

    python benchmarks/bare_loop.py [--device cpu] [--threads 1] [--turns 15] [--seconds 0.4] [--limit 0.02]
    python benchmarks/bare_loop.py --runtimes onnxruntime openvino --networks resnet18 mobilenet_v2 --limit 0.03

Prints, for six networks at batch 1, the median over turns of archbench's figure over the bare loop's, with its 95 %
interval, and the cost of taking one sample with a step that does nothing. Goals: within 2 %; at most 20 us.
On the CPU the figure is the latency of an eager step. With `--device cuda` it is that (the bare loop synchronizes
after each step), and the device time behind a backlog; both again for the step as a CUDA graph. With `--limit` it exits
with 1 where an interval lies outside the limit altogether. With `--runtimes` each network is prepared by each of them,
on either side, and the bare loop calls the runtime's own API. `bare_side.py` has the bare loops.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import bare_side
import torch

from archbench.catalog.build import build, input_shape
from archbench.device.cpu import Cpu
from archbench.device.kind import Clock, kind_of
from archbench.measure.device_time import sample_device_time
from archbench.measure.sampling import sample_latency
from archbench.measure.state import apply_state
from archbench.measure.workload import Workload
from archbench.model.axes import Runtime
from archbench.model.cell import Cell, Network
from archbench.model.protocol import Protocol
from archbench.stats.intervals import median_interval

NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "resnet50", "densenet121", "vgg16")


class NoMonitor:
    def begin(self) -> None:
        return None

    def end(self, *, slow: bool = False) -> None:
        return None


def our_latency(step: bare_side.Step, seconds: float, device: torch.device) -> float:
    clock = kind_of(device).clock(device)
    step_s = clock.latency(step).host_s
    # The same time for both sides; the stopping rule is not what is being compared.
    count = max(bare_side.FEWEST, round(seconds / step_s))
    protocol = Protocol(
        min_samples=count,
        min_samples_slow=count,
        min_blocks=1,
        min_sampling_s=0.0,
        max_samples=count,
        max_sampling_s=0.0,
    )
    return sample_latency(step, clock, protocol, NoMonitor(), step_s=step_s, min_samples=0).interval.median


def our_device_time(step: bare_side.Step, seconds: float, device: torch.device) -> float:
    clock = kind_of(device).clock(device)
    issue_s = clock.latency(step).issue_s
    assert issue_s is not None, "a GPU's clock tells it"
    found = sample_device_time(step, clock, steps=1, issue_s=issue_s)
    if found.step_s is None:
        raise RuntimeError(f"no backlog held: {found.defeat}")
    return found.step_s


Side = tuple[Callable[[bare_side.Step, float], float], bare_side.Step]
"""A figure as a function of a step and of seconds, and the step."""


def comparisons(name: str, device: torch.device, threads: int) -> Iterator[tuple[str, Side, Side]]:
    """What is compared: its name, and the two sides."""
    cell = Cell(network=Network(name=name), batch_size=1, device="cuda" if device.type == "cuda" else "cpu")
    apply_state("fp32", threads, seed=0)
    workload = Workload(cell, build(cell.network), input_shape(cell.network), device, ring=3, seed=0)
    plain = bare_side.network(name, device)
    bare_latency = partial(bare_side.latency, device=device)
    latency, device_time = partial(our_latency, device=device), partial(our_device_time, device=device)
    yield "latency", (latency, workload.step), (bare_latency, bare_side.eager(*plain))
    if device.type == "cuda":
        yield "device time", (device_time, workload.step), (bare_side.behind_backlog, bare_side.eager(*plain))
        graph = bare_side.graphed(*plain)
        yield "graph, latency", (latency, graph), (bare_latency, graph)
        yield "graph, device time", (device_time, graph), (bare_side.behind_backlog, graph)


def runtime_comparisons(
    name: str, runtimes: Sequence[Runtime], threads: int, folder: str
) -> Iterator[tuple[str, Side, Side]]:
    """The same for runtimes on the CPU: archbench's step against one by the runtime's own API."""
    device = torch.device("cpu")
    for runtime in runtimes:
        cell = Cell(network=Network(name=name), batch_size=1, runtime=runtime)
        apply_state("fp32", threads, seed=0)
        workload = Workload(
            cell,
            build(cell.network),
            input_shape(cell.network),
            device,
            ring=3,
            seed=0,
            artifacts=Path(folder),
            calibration=list,
        )
        workload.step()
        bare = bare_side.RUNTIMES[runtime](*bare_side.network(name, device), threads, folder)
        yield (
            runtime,
            (partial(our_latency, device=device), workload.step),
            (partial(bare_side.latency, device=device), bare),
        )


def take_turns(ours: Side, bare: Side, turns: int, seconds: float) -> tuple[list[float], float]:
    """The ratios of our figure to the bare one, and the last bare one, in seconds."""
    for _, step in (ours, bare):
        bare_side.latency(step, 0.5, torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))
    ratios = []
    for turn in range(turns):
        taken = {}
        for side in (ours, bare) if turn % 2 else (bare, ours):
            measure, step = side
            Cpu().settle()  # a runtime's threads may spin on, and would take this side's cores
            taken[side] = measure(step, seconds)
        ratios.append(taken[ours] / taken[bare])
    return ratios, taken[bare]


def cost_of_a_sample() -> float:
    protocol = Protocol(sample_floor_s=1e-9, min_samples=20_000, max_samples=20_000, max_sampling_s=0.0)
    start = time.perf_counter()
    sampled = sample_latency(lambda: None, Clock(), protocol, NoMonitor(), step_s=1e-3, min_samples=0)
    return (time.perf_counter() - start) / len(sampled.kept())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--limit", type=float, help="exit with 1 where a network is off by more than this share")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--runtimes", nargs="+", choices=list(bare_side.RUNTIMES), default=[])
    arguments = parser.parse_args()
    if arguments.turns < 6:
        parser.error("--turns: an interval needs six turns or more")
    gc.freeze()
    device = torch.device(arguments.device)
    outside = []
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    print(f"{'network':18}{'figure':20}{'bare ms':>9}{'archbench / bare':>18}{'95 % interval':>20}")
    folder = tempfile.TemporaryDirectory()
    for name in arguments.networks:
        place = tempfile.mkdtemp(dir=folder.name)
        for figure, ours, bare in (
            runtime_comparisons(name, arguments.runtimes, arguments.threads, place)
            if arguments.runtimes
            else comparisons(name, device, arguments.threads)
        ):
            ratios, bare_s = take_turns(ours, bare, arguments.turns, arguments.seconds)
            interval = median_interval(ratios)
            if arguments.limit and (interval.low > 1 + arguments.limit or interval.high < 1 - arguments.limit):
                outside.append(f"{name} ({figure})")
            span = f"{interval.low:.4f} to {interval.high:.4f}"
            print(f"{name:18}{figure:20}{bare_s * 1e3:9.3f}{interval.median:18.4f}{span:>20}", flush=True)
    print(f"one sample costs {cost_of_a_sample() * 1e6:.2f} us beyond its step")
    if arguments.limit:
        print(f"within {100 * arguments.limit:g} %: {'all' if not outside else 'all but ' + ', '.join(outside)}")
        sys.exit(bool(outside))


if __name__ == "__main__":
    main()
