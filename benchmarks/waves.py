"""Compiled cells in waves against one after the other: how much sooner, and whether any figure changes.

    python benchmarks/waves.py [--pairs 2] [NETWORKS...]
    python benchmarks/waves.py --turns 8 [NETWORK]

Runs of the same compiled cells take turns, with waves and without, each with an empty compile cache of its own. Prints
wall times, their ratio, and how each cell's latency with waves compares. On a machine whose speed changes from one
minute to the next that says little of a per cent; `--turns` does: so many processes that compiled alone and as many
that compiled two at a time, all alive and asleep but for one, take turns of ten steps. Prints the ratio of the two
kinds with its 95 % interval over processes, and whether the compiler has written the same C++ in all of them: its files
are named by their content.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from math import exp, log
from pathlib import Path
from statistics import mean, median, variance

from scipy.stats import t as student

NETWORKS = ("resnet18", "mobilenet_v2")
WITHOUT = "import archbench.suite.plan as p; p.MOST_IN_WAVE = 1; "
RUN = "import sys; from archbench.cli import main; sys.exit(main())"


def run(networks: list[str], *, waves: bool) -> tuple[float, list[dict[str, object]]]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", *networks, "--batch-size", "1", "--compile-mode", "default", "--metrics", "latency"]
        begun = time.perf_counter()
        words += ["--rounds", "1", "--device", "cpu", "--json", "--out", f"{folder}/run"]
        done = subprocess.run(
            [sys.executable, "-c", ("" if waves else WITHOUT) + RUN, *words],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"},
            check=True,
            stdout=subprocess.PIPE,
        )
        return time.perf_counter() - begun, json.loads(done.stdout)["rows"]


COMPILED = """
import sys, time, torch, torchvision
from statistics import median
model = torch.compile(torchvision.models.get_model(sys.argv[1]).eval())
image = torch.randn(1, 3, 224, 224)
def block():
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        model(image)
        seconds.append(time.perf_counter() - start)
    return median(seconds)
with torch.inference_mode():
    block()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(block(), flush=True)
"""
ROUNDS = 20


class Sleeper:
    """A compiled network in a process of its own, which runs ten steps when told to."""

    def __init__(self, network: str, cache: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMPILED, network],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def block(self) -> float:
        """Seconds of a step, the median of ten."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self.said())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def in_turns(network: str, each: int) -> None:
    """`each` processes of either kind: started alternately, as the machine may be another a minute later."""
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[bool, list[Sleeper]] = {True: [], False: []}
        caches = (f"{folder}/{number}" for number in count())
        for _ in range(0, each, 2):
            pair = [Sleeper(network, next(caches)), Sleeper(network, next(caches))]
            for one in pair:
                assert one.said() == "ready"
            kinds[True] += pair
            for _ in pair:
                kinds[False].append(Sleeper(network, next(caches)))
                assert kinds[False][-1].said() == "ready"
        written = [frozenset(one.name for one in Path(cache).rglob("*.cpp")) for cache in Path(folder).iterdir()]
        logs: dict[bool, list[list[float]]] = {kind: [[] for _ in kinds[kind]] for kind in kinds}
        for _ in range(ROUNDS):
            for places in zip(*(enumerate(kinds[kind]) for kind in (True, False)), strict=True):
                for kind, (place, one) in zip((True, False), places, strict=True):
                    logs[kind][place].append(log(one.block()))
        for one in (*kinds[True], *kinds[False]):
            one.end()
    typical = {kind: [median(process) for process in logs[kind]] for kind in logs}
    difference = mean(typical[True]) - mean(typical[False])
    error = math.sqrt(sum(variance(of) / len(of) for of in typical.values()))
    reach = float(student.ppf(0.975, 2 * each - 2)) * error
    low, middle, high = (f"{exp(difference + by):.4f}" for by in (-reach, 0.0, reach))
    print(f"{network}: {each} processes each, compiled beside another over alone: {middle}, 95 % {low} to {high}")
    print(f"{len(written)} compilations wrote {len(written[0])} C++ files each, {len(set(written))} different sets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--turns", type=int, metavar="EACH", help="An even number of processes of either kind.")
    arguments = parser.parse_args()
    if arguments.turns:
        in_turns(arguments.networks[0], arguments.turns)
        return
    ratios: list[float] = []
    for number in range(arguments.pairs):
        took: dict[bool, float] = {}
        medians: dict[bool, dict[object, float]] = {}
        for waves in (True, False) if number % 2 else (False, True):
            took[waves], rows = run(arguments.networks, waves=waves)
            medians[waves] = {row["cell_id"]: float(str(row["latency_median_s"])) for row in rows}
            print(f"waves={waves}: {took[waves]:.1f} s, neighbours {[row['compile_neighbours'] for row in rows]}")
        ratios += [log(medians[True][cell] / medians[False][cell]) for cell in medians[True]]
        print(f"with waves {took[True] / took[False]:.2f} of the time without")
    print(f"latency with waves over without: {exp(mean(ratios)):.4f} (cells {[round(exp(one), 3) for one in ratios]})")


if __name__ == "__main__":
    main()
