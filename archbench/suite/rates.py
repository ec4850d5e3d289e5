"""What a machine takes for each part of a run: constants with their sources; stored runs go before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

import msgspec
from msgspec import Struct

from archbench.model.axes import DeviceKind, Precision
from archbench.model.record import Record

CellKey = str
"""`Cell.cell_id`."""


class Rates(Struct, frozen=True, kw_only=True):
    """Constants of one kind of machine, in seconds unless the name says otherwise. Ballpark figures: they say minutes.

    An operator is one call of a forward pass: a weight layer, a normalisation, an activation.
    """

    # A step: arithmetic, traffic of activations, and the launch of each operator, one after the other.
    flops: dict[Precision, float]
    """FLOP/s that a network reaches."""
    activation_bytes_per_s: float
    operator_s: float
    """To issue one operator eagerly."""

    start: float
    """Until the first group: imports, preflight, calibration."""
    process: float
    """To fork a process and, on a GPU, to create a context and load cuDNN and cuBLAS; and to end it."""
    parameter: float
    """To draw one random weight."""
    counts: float
    """To count a network, per operator."""
    prediction: float
    """To predict the memory of an inference step, per operator; of a training step three times as long."""
    search: float
    """cuDNN's search with ten plans, per operator of an eager inference step; of a training step 2.4 times as long."""
    monitor: float
    """Looks at the monitor and the canary, in each of latency and throughput."""
    noise: float
    """Share of the way from the shortest to the longest sampling that noise makes a cell go."""
    memory: float
    compile_cold: tuple[float, float]
    """Of one compilation: fixed, and per operator. For training, twice that."""
    compile_warm: tuple[float, float]
    graph_check: float
    """The profiler's look at the CUDA graphs that a step launches."""
    profile: float
    report: tuple[float, float]
    """Fixed, and per cell."""
    speed: float = 1.0
    """Step times of this machine over those of the constants above."""
    pace: float = 1.0
    """Time spent on cells over what the rules predict from their step times."""
    steps: dict[CellKey, float] = {}
    """Measured step times, which go before all of the above; likewise compilations."""
    colds: dict[CellKey, float] = {}
    warms: dict[CellKey, float] = {}
    basis: str
    """Where the figures come from, for readers."""


H100 = Rates(
    # Published throughput of ResNet-50 in eager PyTorch on this card: about 2,000 images/s in fp32 with TF32 off, 3,500
    # with it, 7,000 under bf16 autocast; three quarters of the 3.35 TB/s of its memory.
    flops={"fp32": 25e12, "tf32": 60e12, "amp-bf16": 120e12, "amp-fp16": 120e12, "bf16": 150e12, "fp16": 150e12},
    activation_bytes_per_s=2.5e12,
    operator_s=20e-6,  # Python and the dispatcher: 10 to 30 us in public traces of eager PyTorch
    start=30.0,  # soak_s is 20 of them
    # A review of this code path, before a card was at hand: 4.3 s a process, of which 1.4 s went to counting and
    # predicting and 0.6 s to drawing weights; 2.5 s of search an eager inference cell and 6 s a training cell, 35 s a
    # compilation and 6 s from the cache, 1.3 s for a profiler session: means over imagenet_backbones, whose networks
    # have 240 operators on average.
    process=2.3,
    search=10.4e-3,
    compile_cold=(10.0, 0.104),
    compile_warm=(1.0, 0.0207),
    graph_check=1.3,
    monitor=0.15,
    memory=0.2,
    noise=0.05,  # a GPU that is its user's alone settles at once
    parameter=17e-9,  # vgg16 and vit_b_16, timed on two cores of a Xeon
    counts=0.6e-3,  # resnet18 to densenet201, timed there
    prediction=2.5e-3,
    profile=5.0,
    report=(5.0, 0.02),
    basis="constants for one H100 80 GB",
)

CPU_CORE = Rates(
    # The run of imagenet_backbones that comes with the sources: 88 cells on two cores of a Xeon with AVX-512.
    flops=dict.fromkeys(("fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"), 125e9),
    activation_bytes_per_s=10e9,
    operator_s=30e-6,
    start=7.0,
    process=0.05,
    search=0.0,
    compile_cold=(10.0, 0.09),
    compile_warm=(0.2, 0.007),
    graph_check=0.0,
    monitor=0.2,
    memory=0.3,
    noise=0.5,
    parameter=17e-9,
    counts=0.6e-3,
    prediction=2.5e-3,
    profile=5.0,
    report=(5.0, 0.02),
    basis="constants",
)
"""Of one core: arithmetic and traffic grow with their number."""


def usual_rates(device: DeviceKind, cores: int) -> Rates:
    """What to expect of a machine of which nothing is stored."""
    if device == "cuda":
        return H100
    return msgspec.structs.replace(
        CPU_CORE,
        flops={precision: rate * cores for precision, rate in CPU_CORE.flops.items()},
        activation_bytes_per_s=CPU_CORE.activation_bytes_per_s * cores,
        basis=f"constants for {cores} {'core' if cores == 1 else 'cores'}",
    )


def medians(values: Iterable[tuple[CellKey, float | None]]) -> Mapping[CellKey, float]:
    """The median of each cell's values; of nothing but nulls nothing."""
    found: dict[CellKey, list[float]] = {}
    for key, value in values:
        if value is not None:
            found.setdefault(key, []).append(value)
    return {key: median(group) for key, group in found.items()}


def with_measured(rates: Rates, rows: Iterable[Record]) -> Rates:
    """The rates with step times and compilations of stored rows, each under its cell."""
    rows = [row for row in rows if row.status == "ok"]
    return msgspec.structs.replace(
        rates,
        steps=medians((row.cell_id, row.latency_median_s) for row in rows),
        colds=medians((row.cell_id, row.compile_cold_s) for row in rows),
        warms=medians((row.cell_id, row.compile_warm_s) for row in rows),
    )
