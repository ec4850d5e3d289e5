"""Counts torchvision's classification models in one process, or random ones of timm, and times fvcore beside it.

    python benchmarks/count_speed.py [--timm 20] [--seed 1] [--sample 8 | --no-fvcore]

From the name to parameters, MACs and activations at the native input size, imports done before. Ours: build on the
meta device, one pass. fvcore: build on the CPU, one trace for MACs and one for activations; the time without building
is printed too. Exits with 1 if ours takes 30 s or 1.5 GiB, or is not ten times faster in all. All 80 through fvcore
take some minutes and 4 GB.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence

from msgspec import Struct
from torchvision import models

from archbench.analyze.counts import count, second_opinion_on
from archbench.catalog.build import build
from archbench.model.cell import Network
from archbench.model.counts import Counts

MOST_ACTIVATIONS = 100e6
"""fvcore's trace holds them all, and what is between them, twice over: 17 GB of a network with 500 million."""
SECONDS, MEMORY, RATIO = 30.0, 1.5 * 2**30, 10.0


class Ours(Struct, frozen=True, kw_only=True):
    name: str
    counts: Counts
    seconds: float


class Theirs(Struct, frozen=True, kw_only=True):
    build_seconds: float
    count_seconds: float
    disagreement: float


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def some_of_timm(number: int, seed: int) -> list[str]:
    """Names of networks that fvcore can hold: it builds them with weights."""
    import timm

    huge = ("giant", "gigantic", "enormous", "huge", "7b")
    known = [name for name in timm.list_models() if not any(word in name for word in huge)]
    return [f"timm:{name}" for name in random.Random(seed).sample(known, number)]


def count_all(names: Sequence[str]) -> list[Ours]:
    results = []
    for name in names:
        start = time.perf_counter()
        counts = count(Network(name=name))
        results.append(Ours(name=name, counts=counts, seconds=time.perf_counter() - start))
    return results


def count_with_fvcore(ours: Ours) -> Theirs:
    start = time.perf_counter()
    module = build(Network(name=ours.name))
    built = time.perf_counter()
    opinion = second_opinion_on(module, ours.counts, ours.counts.input_shape)
    return Theirs(
        build_seconds=built - start,
        count_seconds=time.perf_counter() - built,
        disagreement=opinion.disagreement,
    )


def compare(chosen: Sequence[Ours]) -> float:
    """Print fvcore's times beside ours; return the ratio of the totals, building included on both sides."""
    print(f"{'model':44} {'params':>12} {'GMACs':>9} {'Macts':>8} {'ours s':>8} {'build':>7} {'fvcore s':>9}  apart")
    building = counting = 0.0
    ratios = []
    for ours in chosen:
        theirs = count_with_fvcore(ours)
        gc.collect()
        building += theirs.build_seconds
        counting += theirs.count_seconds
        ratios.append((theirs.build_seconds + theirs.count_seconds) / ours.seconds)
        counts = ours.counts
        print(
            f"{ours.name:44} {counts.params:12,} {counts.macs / 1e9:9.3f} {counts.activations / 1e6:8.2f} "
            f"{ours.seconds:8.3f} {theirs.build_seconds:7.2f} {theirs.count_seconds:9.2f}  {theirs.disagreement:+.1e}",
            flush=True,
        )
    total = sum(ours.seconds for ours in chosen)
    ratio = (building + counting) / total
    print(
        f"{len(chosen)} models: ours {total:.1f} s, fvcore {building + counting:.1f} s: {ratio:.1f} times "
        f"({counting / total:.1f} times without its building), {statistics.median(ratios):.1f} in the median"
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", type=int, metavar="N", help="so many random networks of timm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, metavar="N", help="every N-th model for fvcore, instead of all")
    parser.add_argument("--no-fvcore", action="store_true", help="count only")
    options = parser.parse_args()
    names = [f"torchvision:{name}" for name in sorted(models.list_models(module=models))]
    if options.timm:
        names = some_of_timm(options.timm, options.seed)
    count(Network(name=names[0]))  # whatever is imported at need
    imported = peak_memory()
    start = time.perf_counter()
    results = count_all(names)
    seconds, memory = time.perf_counter() - start, peak_memory()
    print(
        f"archbench: {len(results)} models in {seconds:.1f} s, slowest {max(r.seconds for r in results):.2f} s, "
        f"peak {memory / 2**30:.2f} GiB ({imported / 2**30:.2f} GiB of it imports)"
    )
    fit = seconds < SECONDS and memory < MEMORY
    if not options.no_fvcore:
        held = [one for one in results if one.counts.activations < MOST_ACTIVATIONS]
        if left := len(results) - len(held):
            print(f"left out, as fvcore's trace would take more memory than there is: {left}")
        fit &= compare(held[:: options.sample or 1]) >= RATIO
    return int(not fit)


if __name__ == "__main__":
    sys.exit(main())
