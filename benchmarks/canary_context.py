"""Does the canary's reading depend on what ran before it? A first reading does, a settled one must not.

    python benchmarks/canary_context.py [--rounds 21]

In each round, in random order, a tenth of a second of something else (the canary itself, networks of different sizes,
a training step, an idle core) and then the canary: once, and until it has settled (`archbench.measure.canary`). Prints
the medians over the rounds in ms, and how far the largest is above the smallest.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median

import torch
from process_spread import once, step_of

from archbench.device.cpu import HostClock
from archbench.measure.canary import Canary, settled

CONTEXT_S = 0.1
IDLE = "idle"


def training_step(name: str) -> Callable[[], object]:
    from archbench.catalog.build import build
    from archbench.model.cell import Network

    network, image = build(Network(name=name)).train(), torch.randn(4, 3, 224, 224)
    return lambda: network(image).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    canary = Canary(torch.device("cpu"), HostClock())
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
    print(f"{'after':20}{'first':>10}{'settled':>10}{'times':>8}")
    columns = [[median(values) for values in zip(*found[name], strict=True)] for name in contexts]
    for name, (first, reading, count) in zip(contexts, columns, strict=True):
        print(f"{name:20}{1e3 * first:10.2f}{1e3 * reading:10.2f}{count:8.0f}")
    apart = [100 * (max(column) / min(column) - 1) for column in list(zip(*columns, strict=True))[:2]]
    print(f"{'largest / smallest':20}{apart[0]:9.0f}%{apart[1]:9.0f}%")


if __name__ == "__main__":
    main()
