"""Holds predicted peak memory against the real CPU allocator and prints the table.

    python benchmarks/memory_prediction.py [--networks alexnet,vgg16] [--precision bf16] [--format channels_last]

Each network is predicted from one probe without data, then a real step of archbench's own workload is measured at
every batch size. Exits with 1 if a prediction is more than 10 % off. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from itertools import product

import torch
from msgspec.structs import replace

from archbench.analyze.memory import measured_peak, predict_cell
from archbench.catalog.build import build, input_shape
from archbench.measure.workload import Workload
from archbench.model.axes import PRECISIONS, MemoryFormat, Phase, Precision
from archbench.model.cell import Cell, Network
from archbench.model.counts import MemoryModel

NETWORKS = """
    lenet5 resnet20_cifar densenetBC100_k12_cifar capsnet nin_cifar10 alexnet vgg11 googlenet inception_v3 resnet18
    resnet50 densenet121 torchvision:squeezenet1_1 mobilenet_v2 mobilenet_v3_large efficientnet_b0 seresnet50
    torchvision:shufflenet_v2_x1_0 torchvision:mnasnet1_0 resnext50_32x4d torchvision:regnet_y_400mf convnext_tiny
    torchvision:vit_b_32 swin_t hrnet_w18 xception
"""
BATCH_SIZES = (2, 8)
TOLERANCE = 0.10


def measure(cell: Cell) -> int:
    """Peak bytes of one real step of `cell` on the CPU."""
    workload = Workload(cell, build(cell.network), input_shape(cell.network), torch.device("cpu"), ring=1, seed=0)
    workload.step()
    return measured_peak(workload.step)


def check(network: Network, phase: Phase, precision: Precision, memory_format: MemoryFormat) -> list[float]:
    """Print one line for each batch size; return predicted over measured, less 1."""
    start = time.perf_counter()
    cell = Cell(network=network, batch_size=1, phase=phase, precision=precision, memory_format=memory_format)
    model: MemoryModel = predict_cell(cell)
    took = time.perf_counter() - start
    errors = []
    for batch_size in BATCH_SIZES:
        measured, predicted = measure(replace(cell, batch_size=batch_size)), model.peak_bytes(batch_size)
        gc.collect()
        errors.append(predicted / measured - 1)
        print(
            f"{network.label:28} {phase:10} {batch_size:5} {predicted / 2**20:10.1f} {measured / 2**20:10.1f} "
            f"{errors[-1]:+8.2%} {took:9.2f}",
            flush=True,
        )
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS.split(), type=lambda names: names.split(","))
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--format", default="contiguous", choices=("contiguous", "channels_last"))
    options = parser.parse_args()
    print(f"{'network':28} {'phase':10} batch  predicted   measured   error  predict s   (MiB, {options.precision})")
    worst = 0.0
    phases: tuple[Phase, ...] = ("inference", "training")
    for name, phase in product(options.networks, phases):
        errors = check(Network(name=name), phase, options.precision, options.format)
        worst = max(worst, *map(abs, errors))
    print(f"{len(options.networks)} networks, worst error {worst:.2%}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
