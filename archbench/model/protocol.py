"""The measurement protocol's constants: every default in one place, each with its reason.

A suite may override a constant under `protocol:`; the values used are stored with the run.
Raise `PROTOCOL_VERSION` when a change here, or in `archbench.measure`, makes new figures incomparable with old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from archbench.model.axes import DeviceKind

PROTOCOL_VERSION = 2

Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Share = Annotated[float, Meta(gt=0.0, lt=1.0)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one cell is measured. Seconds throughout; `protocol_for` gives each device kind its defaults."""

    # Warm-up: counts alone miss slow drift, time alone starves slow networks; so both, then blocks until level.
    warmup_min_calls: Count = 3
    warmup_first_cell_s: Seconds = 0.7
    """Device-busy time before the first cell of a process is timed: clocks that idled have to ramp. Step times must be
    level besides, so that a slower ramp only takes longer."""
    warmup_later_cell_s: Seconds = 0.3
    """The same for later cells: the clocks are up already."""
    warmup_block: Count = 10
    """Steps in a block; fewer, but at least two, where they would take longer than `warmup_block_s`."""
    warmup_block_s: Seconds = 0.2
    warmup_level_blocks: Annotated[int, Meta(ge=2, le=1_000_000)] = 3
    warmup_level_change: Share = 0.005
    """Three consecutive block medians may move this much, or 2 standard errors if that is more."""
    warmup_cap_s: Seconds = 30.0
    """After this long the row is flagged `nonstationary` and measured as it is."""

    # Sampling: enough independent blocks for a 95 % order-statistic interval (six is the fewest that can give one).
    min_samples: Count = 30
    min_samples_slow: Count = 12
    """For steps slower than `slow_step_s`."""
    slow_step_s: Seconds = 0.1
    min_blocks: Count = 6
    min_sampling_s: Seconds = 0.5
    max_samples: Count = 1000
    max_sampling_s: Seconds = 5.0
    target_half_width: Share = 0.005
    """Stop when the interval's half-width over the median falls to this."""
    sample_floor_s: Seconds = 1e-3
    """A sample shorter than this is made of several steps: timer resolution."""

    # Throughput: a sync in every step biases against small networks, so bursts have none inside.
    burst_s: Seconds = 0.05
    """The one wait at a burst's end, 10 us, is 0.02 % of it."""
    min_burst_steps: Count = 3
    """Where the device runs behind the host: fewer would be the start and the end of a pipeline, and no middle."""
    min_bursts: Count = 6
    """Of slow steps; fast ones make ten bursts and more in `min_throughput_s`."""
    min_throughput_s: Seconds = 0.5
    """A floor only: sampling goes on until the interval is narrow, so a shorter one costs no width."""
    max_throughput_s: Seconds = 5.0

    # Turns: the sides of a gate or a duel hold the device alternately, each for one block.
    turn_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 0.1
    """Long enough for a clock and many steps, short enough for both sides to meet the same machine."""
    turns: Annotated[int, Meta(ge=3, le=10_000)] = 16
    """Blocks of each side in one pair of processes."""

    cudnn_benchmark_limit: Count = 4
    """Plans that cuDNN's search tries for each convolution, the likeliest by its heuristics first; torch tries 10."""
    input_ring: Count = 3
    """Seeded randn tensors used in turn: zeros run 13-15 % faster than data."""
    host_bound_ratio: Annotated[float, Meta(gt=1.0)] = 1.10
    """Issue time over device time above which a row is labelled `host_bound`."""
    canary_share: Share = 0.05
    """At most this share of the measuring time goes to the canary kernel."""
    drift_limit: Share = 0.10
    """A canary that leaves this band around the run's reference makes the row `suspect`."""
    rejected_block_limit: Share = 0.20
    """More throttled blocks than this and the row is `invalid`."""
    energy_window_s: Seconds = 5.0
    """NVML's energy counter may be updated as slowly as 10 Hz; shorter windows are quantised."""
    cell_deadline_s: Seconds = 600.0
    """A cell that takes longer is killed and becomes a `timeout` row."""
    compile_deadline_s: Seconds = 1800.0
    """Added to the deadline of a compiled cell."""
    soak_s: Seconds = 20.0
    """Matmuls once per GPU session, before the first cell: clocks and temperature settle."""


_CPU_DEFAULTS = Protocol(
    # A CPU ramps less than a GPU, its steps are slow, and its noise floor does not repay a tighter interval.
    warmup_first_cell_s=0.3,
    warmup_later_cell_s=0.1,
    warmup_level_change=0.02,
    warmup_cap_s=5.0,
    # Of each of two processes, where a suite names no rounds.
    min_sampling_s=0.25,
    max_sampling_s=1.5,
    target_half_width=0.02,
    sample_floor_s=10e-3,
    burst_s=0.1,
    min_burst_steps=1,
    min_throughput_s=0.5,
    max_throughput_s=0.75,
    soak_s=0.0,
)


def times_only(protocol: Protocol) -> Protocol:
    """The constants of a short later visit: enough samples for an interval, though not for a percentile."""
    return msgspec.structs.replace(protocol, min_samples=min(protocol.min_samples, protocol.min_samples_slow))


_DEFAULTS: dict[DeviceKind, Protocol] = {"cpu": _CPU_DEFAULTS}
"""Of the kinds of device that are not measured as a GPU is."""


def protocol_for(device: DeviceKind, overrides: Mapping[str, float]) -> Protocol:
    """Return the device's defaults with a suite's overrides applied.

    Raises `msgspec.ValidationError`, naming the constant, where an override is unknown or out of range.
    """
    base = _DEFAULTS.get(device, Protocol())
    # A suite's overrides are floats throughout (`min_samples: 30.0`), and msgspec takes no float for a count.
    given = {name: int(value) if float(value).is_integer() else value for name, value in overrides.items()}
    return msgspec.convert({**msgspec.structs.asdict(base), **given}, Protocol)
