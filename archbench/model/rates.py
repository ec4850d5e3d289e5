"""What a machine takes for each part of a run: a kind of device has its constants, and stored runs go before them."""

from __future__ import annotations

from msgspec import Struct

from archbench.model.axes import Precision

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
    convert_cold: tuple[float, float] = (2.0, 0.02)
    """Of one conversion for a runtime that does not compile by a C++ compiler, or to int8 kernels; likewise."""
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
