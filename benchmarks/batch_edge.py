"""Holds the largest batch that fits, predicted, against real steps in processes that have no more memory.

    python benchmarks/batch_edge.py [--memory 192MiB] [--phase training] [--networks hrnet_w18,resnet18]

`archbench fits --verify` of each, as a table in markdown. Exits with 1 if a real edge is more than 10 %, and
more than one image, from the predicted one. Some minutes.
"""

from __future__ import annotations

import argparse
import sys

import archbench
from archbench.analyze.memory import predict_cell

NETWORKS = """
    hrnet_w18 timm:mobilevit_s resnet18 densenet121 efficientnet_b0 mobilenet_v2 googlenet nin_imagenet seresnet50
    torchvision:shufflenet_v2_x1_0
"""
TOLERANCE = 0.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS.split(), type=lambda names: names.split(","))
    parser.add_argument("--memory", default="192MiB")
    parser.add_argument("--phase", default="inference", choices=("inference", "training"))
    options = parser.parse_args()
    what = f"{options.phase} in {options.memory}"
    print(f"| network, {what} | predicted | ran | ran out | off | peak, predicted over real |")
    print("| --- | --: | --: | --: | --: | --: |")
    worst = 0.0
    for name in options.networks:
        found = archbench.fits(name, memory=options.memory, phase=options.phase, device="cpu", verify=True)
        edge = found.edge
        assert edge is not None
        # Between the two the edge is not known; a prediction inside is right.
        high = edge.failed - 1 if edge.failed else found.largest_batch
        near = min(max(found.largest_batch, edge.ran), high)
        off = found.largest_batch / max(near, 1) - 1
        worst = max(worst, abs(off) if abs(found.largest_batch - near) > 1 else 0.0)
        model = predict_cell(found.cell)
        peak = f"{model.peak_bytes(edge.ran) / edge.peak_bytes - 1:+.1%}" if edge.peak_bytes else "-"
        figures = (name, found.largest_batch, edge.ran, edge.failed or "-", f"{off:+.1%}", peak)
        print(f"| {' | '.join(map(str, figures))} |", flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
