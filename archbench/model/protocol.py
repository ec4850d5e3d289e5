"""The measurement protocol's constants: every default in one place, each with its reason.

A suite may override a constant under `protocol:`; the values used are stored with the run.
Raise `PROTOCOL_VERSION` when a change here, or in `archbench.measure`, makes new figures incomparable with old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from archbench.model.axes import DeviceKind

PROTOCOL_VERSION = 3
WATCHED_S = 0.1
"""A block of the warm-up that is at least as long is watched as samples are: it holds the first once it is level."""
JUDGED_IMAGES = 32
"""That outputs are judged by: a step of 3 % in the agreement."""
JUDGING_S = 5.0
"""For the cell's own steps on them; of a slower network fewer images are judged."""

Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0, extra={"unit": "s"})]
Share = Annotated[float, Meta(gt=0.0, lt=1.0, extra={"unit": "share"})]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


def D(meaning: str) -> Meta:  # noqa: N802 - an annotation, as `C` of a record's columns is
    """What a constant means, for the page on them and for editors that know the suite's schema."""
    return Meta(description=meaning)


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one cell is measured; `protocol_for` gives each device kind its defaults."""

    # Warm-up: counts alone miss slow drift, time alone starves slow networks; so both, then blocks until level.
    warmup_min_calls: Annotated[Count, D("Steps before the first that counts, whatever the time.")] = 3
    warmup_first_cell_s: Annotated[
        Seconds,
        D(
            "Device-busy time before the first cell of a process is timed: clocks that idled have to ramp. Step "
            "times must be level besides, so that a slower ramp only takes longer."
        ),
    ] = 0.7
    warmup_later_cell_s: Annotated[
        Seconds, D("The same for later cells, and where another process has just been measured: the clocks are up.")
    ] = 0.1
    warmup_block: Annotated[
        Count, D("Steps in a block; fewer, but at least two, where they would take longer than `warmup_block_s`.")
    ] = 10
    warmup_block_s: Annotated[Seconds, D("The longest block.")] = 0.2
    warmup_level_blocks: Annotated[
        Annotated[int, Meta(ge=2, le=1_000_000)], D("Consecutive blocks whose medians have to be level.")
    ] = 3
    warmup_level_change: Annotated[
        Share, D("Their medians may move this much, or 2 standard errors if that is more.")
    ] = 0.005
    warmup_cap_s: Annotated[Seconds, D("After this long the row is flagged `nonstationary` and measured as it is.")] = (
        30.0
    )

    # Sampling: enough independent blocks for a 95 % order-statistic interval (six is the fewest that can give one).
    min_samples: Annotated[Count, D("Latency samples before sampling may stop.")] = 30
    min_samples_slow: Annotated[Count, D("The same for steps slower than `slow_step_s`.")] = 12
    slow_step_s: Annotated[Seconds, D("A step above this is slow.")] = 0.1
    min_blocks: Annotated[
        Count, D("Blocks, which enter the interval as one figure each: six are the fewest that give one of 95 %.")
    ] = 6
    min_sampling_s: Annotated[
        Seconds, D("Sampling never stops before: what it sees should hold two looks at the monitor.")
    ] = 0.3
    max_samples: Annotated[Count, D("Sampling stops here in any case.")] = 1000
    max_sampling_s: Annotated[Seconds, D("And here, however wide the interval is.")] = 5.0
    target_half_width: Annotated[Share, D("Stop when the interval's half-width over the median falls to this.")] = 0.005
    wide_half_width: Annotated[Share, D("A row whose half-width is above this is flagged `wide_interval`.")] = 0.01
    sample_floor_s: Annotated[Seconds, D("A sample shorter than this is made of several steps: timer resolution.")] = (
        1e-3
    )

    # Throughput: a sync in every step biases against small networks, so bursts have none inside.
    burst_s: Annotated[Seconds, D("Length of a burst of steps; the one wait at its end, 10 us, is 0.02 % of it.")] = (
        0.05
    )
    min_burst_steps: Annotated[
        Count,
        D(
            "Steps of a burst. One that is longer than `burst_s` may stand alone: start and end of the pipeline are no "
            "larger a part of it than of a burst of short ones."
        ),
    ] = 1
    min_bursts: Annotated[Count, D("Six are the fewest that give an interval of 95 %.")] = 6
    min_throughput_s: Annotated[
        Seconds, D("A floor only: sampling goes on until the interval is narrow, so a shorter one costs no width.")
    ] = 0.3
    max_throughput_s: Annotated[Seconds, D("Bursts end here in any case.")] = 5.0

    # Turns: the sides of a gate or a duel hold the device alternately, each for one block.
    turn_s: Annotated[
        Annotated[float, Meta(gt=0.0, le=60.0, extra={"unit": "s"})],
        D(
            "Length of a turn: long enough for a clock and many steps, short enough for both sides to meet the "
            "same machine."
        ),
    ] = 0.1
    turns: Annotated[Annotated[int, Meta(ge=3, le=10_000)], D("Blocks of each side in one pair of processes.")] = 16

    # Device, canary, limits.
    cudnn_benchmark_limit: Annotated[
        Count,
        D(
            "Plans that cuDNN's search tries for each convolution, the likeliest by its heuristics first; torch "
            "tries 10."
        ),
    ] = 4
    input_ring: Annotated[Count, D("Seeded randn tensors used in turn: zeros run 13-15 % faster than data.")] = 3
    host_bound_ratio: Annotated[
        Annotated[float, Meta(gt=1.0)], D("Issue time over device time above which a row is labelled `host_bound`.")
    ] = 1.10
    canary_share: Annotated[
        Share, D("At most this share of the measuring time goes to the canary kernel, but for its first reading.")
    ] = 0.05
    drift_limit: Annotated[
        Share, D("A canary that leaves this band around the run's reference makes the row `suspect`.")
    ] = 0.10
    rejected_block_limit: Annotated[Share, D("A larger share of throttled blocks, and the row is `invalid`.")] = 0.20
    stall_wait_s: Annotated[
        Seconds,
        D(
            "Waited, in each of latency and throughput, for other work to end that makes threads wait for each other; "
            "then the row is `stalled`."
        ),
    ] = 5.0
    energy_window_s: Annotated[
        Seconds, D("NVML's energy counter may be updated as slowly as 10 Hz; shorter windows are quantised.")
    ] = 5.0
    cell_deadline_s: Annotated[Seconds, D("A cell that takes longer is killed and becomes a `timeout` row.")] = 600.0
    compile_deadline_s: Annotated[Seconds, D("Added to the deadline of a compiled cell.")] = 1800.0
    soak_s: Annotated[
        Seconds, D("Matmuls once per GPU session, before the first cell: clocks and temperature settle.")
    ] = 20.0


class Constant(Struct, frozen=True, kw_only=True):
    """What the documentation needs to know of one constant."""

    name: str
    unit: str
    """`s`, `share` (of 1), `ratio`, or `count`."""
    meaning: str


def constants() -> tuple[Constant, ...]:
    """The constants of `Protocol`, in order."""
    info: Any = msgspec.inspect.type_info(Protocol)
    return tuple(
        Constant(
            name=field.name,
            unit=(field.type.extra or {}).get("unit")
            or ("count" if isinstance(field.type.type, msgspec.inspect.IntType) else "ratio"),
            meaning=field.type.extra_json_schema["description"],
        )
        for field in info.fields
    )


_CPU_DEFAULTS = Protocol(
    # A CPU ramps less than a GPU, its steps are slow, and its noise floor does not repay a tighter interval.
    warmup_first_cell_s=0.3,
    warmup_level_change=0.02,
    warmup_cap_s=5.0,
    # What is divided by the canary needs it close by: the ratio of a stretch is as good as its worse half.
    canary_share=0.2,
    # Of each of two processes, where a suite names no rounds. These differ by 11 % and more on a noisy machine, after
    # 0.5 s of samples as after 1.5 s; a quiet one reaches the target before.
    min_sampling_s=0.25,
    max_sampling_s=1.0,
    target_half_width=0.02,
    # What processes differ by is stated beside every figure; this marks a row that is of little use by itself.
    wide_half_width=0.1,
    sample_floor_s=10e-3,
    burst_s=0.1,
    min_throughput_s=0.3,
    max_throughput_s=0.5,
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
