"""How far processes of one network differ: raw, by the canary, and in turns with live processes of other networks.

    python benchmarks/process_spread.py [--processes 8] [--turns 8] [--minutes 8] [--stress [PERCENT]]

Twelve networks at batch 1, a process of each in random order, again and again until the time is up. Each times short
blocks; after each block it reads the canary once (as protocol version 1 did) and until it has settled, and two
reference processes, warm all the time, take one block each. Prints the standard deviation of the processes' figures, in
per cent: the median block; that over the median first reading; the median ratio of a block to the settled reading after
it; and to the references' blocks. `--stress` keeps one core busy with stress-ng meanwhile, all the time or so
much of it; on two cores a whole one stretches a process to half a minute.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import random
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from statistics import median, stdev

import torch

from archbench.catalog.build import build
from archbench.device.cpu import Cpu
from archbench.device.kind import Clock
from archbench.measure.machine_speed import Canary, settled
from archbench.measure.state import keep_freed_memory
from archbench.model.cell import Network

NETWORKS = (
    *("alexnet", "vgg11", "torchvision:squeezenet1_1", "googlenet", "resnet18", "resnet50"),
    *(
        "densenet121",
        "mobilenet_v2",
        "torchvision:shufflenet_v2_x1_0",
        "efficientnet_b0",
        "convnext_tiny",
        "torchvision:vit_b_32",
    ),
)
REFERENCES = ("resnet18", "mobilenet_v2")
"""One bound by its arithmetic, one by its calls and its memory."""
BLOCK_S = 0.05
WARM_UP_S = 0.4

Step = Callable[[], object]


def step_of(name: str) -> Step:
    torch.manual_seed(0)
    network, image = build(Network(name=name)).eval(), torch.randn(1, 3, 224, 224)

    def step() -> object:
        with torch.inference_mode():
            return network(image)

    return step


def once(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def block(step: Step, guess_s: float) -> float:
    """Seconds of a step, over a block of them that begins warm."""
    step()
    return median(once(step) for _ in range(max(1, round(BLOCK_S / guess_s))))


def warm(step: Step) -> float:
    end = time.perf_counter() + WARM_UP_S
    times = [once(step), once(step)]
    while time.perf_counter() < end:
        times.append(once(step))
    return median(times[len(times) // 2 :])


def reference(line: Connection, name: str) -> None:
    step = step_of(name)
    guess_s = warm(step)
    while line.recv():
        line.send({f"turns {name}": block(step, guess_s)})
        Cpu().settle()


def cell(line: Connection, name: str) -> None:
    step, canary = step_of(name), Canary(torch.device("cpu"), Clock())
    guess_s = warm(step)
    while line.recv():
        time_s = block(step, guess_s)
        first = once(canary.work)
        line.send({"raw": time_s, "first": first, "canary": settled(lambda: once(canary.work))})
        Cpu().settle()


class Live:
    """A forked process that does one turn whenever it is asked."""

    def __init__(self, work: Callable[[Connection, str], None], name: str) -> None:
        self._line, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                keep_freed_memory()
                self._line.close()
                gc.freeze()
                work(theirs, name)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        theirs.close()

    def turn(self) -> dict[str, float]:
        self._line.send(True)
        return dict(self._line.recv())

    def close(self) -> None:
        self._line.send(False)
        os.waitpid(self._pid, 0)


def figures(turns: list[dict[str, float]]) -> dict[str, float]:
    """Logs of what one process would be stored with."""

    def ratio(*names: str) -> float:
        return median(
            math.log(turn["raw"]) - sum(math.log(turn[name]) for name in names) / len(names) for turn in turns
        )

    raw = math.log(median(turn["raw"] for turn in turns))
    kinds = [f"turns {name}" for name in REFERENCES]
    return {
        "raw": raw,
        "first": raw - math.log(median(turn["first"] for turn in turns)),
        "canary": ratio("canary"),
        **{kind: ratio(kind) for kind in kinds},
        "turns both": ratio(*kinds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=8.0, help="No process is begun afterwards.")
    parser.add_argument("--stress", metavar="PERCENT", type=int, nargs="?", const=100)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rng = random.Random(0)
    order = [name for _ in range(arguments.processes) for name in rng.sample(NETWORKS, len(NETWORKS))]
    end = time.perf_counter() + 60 * arguments.minutes
    with ExitStack() as stack:
        if arguments.stress:
            load = ["--cpu-load", str(arguments.stress)]
            neighbour = subprocess.Popen(["stress-ng", "--cpu", "1", *load, "--quiet"])
            stack.callback(neighbour.wait)
            stack.callback(neighbour.terminate)
        references = [Live(reference, name) for name in REFERENCES]
        for number, name in enumerate(order):
            if time.perf_counter() > end:
                break
            one = Live(cell, name)
            turns = []
            for _ in range(arguments.turns):
                turns.append(one.turn())
                for live in references:
                    turns[-1] |= live.turn()
            one.close()
            for kind, value in figures(turns).items():
                found[name][kind].append(value)
            print(f"\r{number + 1} of {len(order)}", end="", file=sys.stderr, flush=True)
        for live in references:
            live.close()
    kinds = list(found[order[0]])
    fewest = min(len(found[name]["raw"]) for name in NETWORKS)
    if fewest < 2:
        parser.exit(1, f"\rno spread: {number} processes in {arguments.minutes:g} minutes; give it more\n")
    spreads = {name: [100 * stdev(found[name][kind]) for kind in kinds] for name in NETWORKS}
    print(f"\r{fewest} processes of each network, or one more")
    print(f"{'sd in %':20}" + "".join(f"{kind:>20}" for kind in kinds))
    for name, values in spreads.items():
        print(f"{name:20}" + "".join(f"{value:20.1f}" for value in values))
    print(f"{'median':20}" + "".join(f"{median(column):20.1f}" for column in zip(*spreads.values(), strict=True)))


if __name__ == "__main__":
    main()
