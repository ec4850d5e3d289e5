"""Holds the largest batch that fits, predicted, against real steps in processes that have no more memory.

    python benchmarks/batch_edge.py [--memory 1GiB] [--phase training] [--networks hrnet_w18,resnet18]

`archbench fits --verify` of each. Exits with 1 if a real edge is more than 10 % from the predicted one. Some minutes.
"""

from __future__ import annotations

import argparse
import sys

import archbench

NETWORKS = """
    hrnet_w18 resnet18 resnet50 alexnet nin_imagenet mobilenet_v2 densenet121 convnext_tiny swin_t efficientnet_b0
"""
TOLERANCE = 0.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS.split(), type=lambda names: names.split(","))
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--phase", default="inference", choices=("inference", "training"))
    options = parser.parse_args()
    print(f"{'network':24} {'predicted':>9} {'ran':>6} {'not':>6} {'off':>8}   {options.phase}, {options.memory}")
    worst = 0.0
    for name in options.networks:
        found = archbench.fits(name, memory=options.memory, phase=options.phase, device="cpu", verify=True)
        assert found.edge is not None
        # Between the two the edge is not known; a prediction inside is right.
        low, high = found.edge.ran, (found.edge.failed or found.edge.ran + 1) - 1
        near = min(max(found.largest_batch, low), high)
        off = found.largest_batch / max(near, 1) - 1
        worst = max(worst, abs(off))
        print(f"{name:24} {found.largest_batch:9} {low:6} {found.edge.failed or '-':>6} {off:+8.1%}", flush=True)
    print(f"{len(options.networks)} networks, worst {worst:.1%}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
