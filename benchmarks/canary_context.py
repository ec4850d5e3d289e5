"""Does the canary's reading depend on what ran before it? A first reading does, a settled one must not.

    python benchmarks/canary_context.py [--rounds 21]

In each round, in random order, a tenth of a second of something else (the canary itself, networks of different sizes,
a training step, an idle core) and then the canary: once, and until it has settled (`archbench.measure.machine_speed`).
Prints the medians over the rounds in ms, and how far the largest is above the smallest.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

import torch
from process_spread import once, step_of

from archbench.device.kind import Clock
from archbench.measure.machine_speed import Canary, settled

CONTEXT_S = 0.1
IDLE = "idle"


def training_step(name: str) -> Callable[[], object]:
    from archbench.catalog.build import build
    from archbench.model.cell import Network

    network, image = build(Network(name=name)).train(), torch.randn(4, 3, 224, 224)
    return lambda: network(image).sum().backward()


class Readings(NamedTuple):
    """The canary after one thing, medians over the rounds."""

    first_s: float
    settled_s: float
    times: float


def readings(rounds: int) -> dict[str, Readings]:
    """The canary after each of the contexts, which take turns in random order."""
    canary = Canary(torch.device("cpu"), Clock())
    contexts: dict[str, Callable[[], object]] = {
        "the canary": canary.work,
        **{name: step_of(name) for name in ("mobilenet_v2", "vit_b_16", "vgg16")},
        "resnet50, training": training_step("resnet50"),
        IDLE: lambda: time.sleep(2 * CONTEXT_S),
    }
    found: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for context in contexts.values():
        context()
    for _ in range(rounds):
        for name in random.sample(list(contexts), len(contexts)):
            end = time.perf_counter() + CONTEXT_S
            while time.perf_counter() < end:
                contexts[name]()
            times: list[float] = []

            def timed(times: list[float] = times) -> float:
                times.append(once(canary.work))
                return times[-1]

            reading = settled(timed)
            found[name].append((times[0], reading, len(times)))
    return {name: Readings(*map(median, zip(*found[name], strict=True))) for name in contexts}


def apart(values: Iterable[float]) -> float:
    """How far the largest is above the smallest, as a ratio less 1."""
    least, *_, most = sorted(values)
    return most / least - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    found = readings(parser.parse_args().rounds)
    print(f"{'after':20}{'first':>10}{'settled':>10}{'times':>8}")
    for name, one in found.items():
        print(f"{name:20}{1e3 * one.first_s:10.2f}{1e3 * one.settled_s:10.2f}{one.times:8.0f}")
    ranges = apart(one.first_s for one in found.values()), apart(one.settled_s for one in found.values())
    print(f"{'largest / smallest':20}{ranges[0]:10.0%}{ranges[1]:10.0%}")


if __name__ == "__main__":
    main()
