"""What a step costs: latency (one batch in flight), throughput (back to back), energy, and the shares of its stages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from archbench.device.cuda import peak_flops
from archbench.device.health import Probe, between
from archbench.device.kind import Clock, Step
from archbench.measure.device_time import host_bound, issue_time, sample_device_time
from archbench.measure.sampling import Sampled, burst_steps, bursts_within, sample_latency, sample_throughput
from archbench.model.protocol import Protocol
from archbench.model.suite import PERCENTILES
from archbench.stats.intervals import minimum_samples, percentile
from archbench.stats.sampling import drifting

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

TRAINING_PASSES = 3
"""A training step's arithmetic in forward passes: the backward pass computes gradients of inputs and of weights, each
as large as the forward (Kaplan et al. 2020, section 2.1; PaLM, appendix B)."""
LONGER = 1.1
"""The window of energy is this many times the shortest that the counter is trusted over."""


def time_latency(run: CellRun) -> None:
    """The time of one synchronised step."""
    with run.phase("latency"):
        needed = max((minimum_samples(p) for p in run.task.percentiles), default=0)
        sampled = sample_latency(
            *(run.workload.step, run.group.clock, run.task.protocol, run.watch),
            step_s=run.step_s,
            min_samples=needed,
            begun=run.warm.stretches,
        )
    run.latency = sampled
    run.row.add_timings(sampled, "latency")
    interval = sampled.interval
    run.row.set(
        latency_median_s=interval.median,
        latency_ci_low_s=interval.low,
        latency_ci_high_s=interval.high,
        samples=len(sampled.kept()),
        steps_per_sample=sampled.steps,
        canary_s=run.watch.canary_beside(sampled.stretches),
    )
    kept = [timing.host_s for timing in sampled.kept()]
    _judge(run, sampled, kept)
    for percent in PERCENTILES:
        value = percentile(kept, percent) if sampled.steps == 1 else None
        run.row.set(**{f"latency_p{percent}_s": value})
        if value is None:
            code = "several_steps_per_sample" if sampled.steps > 1 else "too_few_samples"
            run.row.null(code if kept else "all_rejected", f"latency_p{percent}_s")
    _device_time(run, sampled)


def _judge(run: CellRun, sampled: Sampled, kept: list[float]) -> None:
    if sampled.given_up is not None:
        run.row.flag(sampled.given_up)
    half_width = sampled.interval.half_width
    if half_width is None:
        run.row.flag("few_samples")
    elif half_width > run.task.protocol.wide_half_width:
        run.row.flag("wide_interval")
    change = run.task.protocol.warmup_level_change
    paced = run.watch.at_one_clock(sampled.stretches)
    if len(kept) > 1 and drifting(kept, change).drifting and drifting(paced, change).drifting:
        run.row.flag("nonstationary")


def _device_time(run: CellRun, sampled: Sampled) -> None:
    """Columns of a device that runs behind the host: how long a step takes to issue, and how long it takes there."""
    issue_s = issue_time(sampled)
    if issue_s is None:
        run.row.null("not_on_device", "issue_time_median_s", "device_time_median_s", "host_bound")
        return
    with run.phase("device time"):
        found = sample_device_time(run.workload.step, run.group.clock, steps=sampled.steps, issue_s=issue_s)
    run.row.add_device_times(found)
    bound = host_bound(issue_s, found, run.task.protocol.host_bound_ratio)
    run.row.set(issue_time_median_s=issue_s, device_time_median_s=found.step_s, host_bound=bound)
    if found.defeat is not None:
        run.row.null(found.defeat, "device_time_median_s", "host_bound")
    if bound:
        run.row.flag("host_bound")


def time_throughput(run: CellRun) -> None:
    """Images per second of steps issued back to back, and the arithmetic that this amounts to."""
    protocol, sampled = run.task.protocol, run.latency
    interval = bursts_within(sampled, protocol) if sampled else None
    if sampled is None or interval is None:
        with run.phase("throughput"):
            sampled = sample_throughput(run.workload.step, run.group.clock, protocol, run.watch, step_s=run.step_s)
        run.row.add_timings(sampled, "throughput")
        interval = sampled.interval
    if sampled.given_up is not None:
        run.row.flag(sampled.given_up)
    images = run.cell.batch_size
    rate = images / interval.median
    run.row.set(
        throughput_img_s=rate,
        throughput_ci_low_img_s=images / interval.high if interval.high else None,
        throughput_ci_high_img_s=images / interval.low if interval.low else None,
        throughput_canary_s=run.watch.canary_beside(sampled.stretches),
    )
    if run.asks_for("static"):
        _efficiency(run, rate)
    else:
        run.row.null("not_requested", "achieved_flops", "mfu", "measured_peak_share")


def _efficiency(run: CellRun, rate: float) -> None:
    passes = TRAINING_PASSES if run.cell.phase == "training" else 1
    achieved = rate * run.group.counts.flops * passes
    run.row.set(achieved_flops=achieved)
    gpus, calibration = run.task.context.environment.gpus, run.group.calibration
    for column, peak in (
        ("mfu", peak_flops(gpus[0].name, run.cell.precision) if gpus else None),
        ("measured_peak_share", calibration.peak(run.cell.precision) if calibration else None),
    ):
        if peak is None:
            run.row.null("unknown_peak", column)
        else:
            run.row.set(**{column: achieved / peak})
            if column == "measured_peak_share" and achieved > peak:
                run.row.flag("ceiling_under_measured")


class Energy(Struct, frozen=True, kw_only=True):
    """What so many steps took."""

    steps: int
    joules: float
    mean_power_w: float | None


def measure_energy(step: Step, clock: Clock, probe: Probe, protocol: Protocol, *, step_s: float) -> Energy | str:
    """Run bursts of steps between two readings of the counter; where it cannot be read, the code of the reason why.

    Over one long window, for the counter moves rarely. `step_s` is the step's time when it is waited for; how many a
    burst holds follows from their time without waiting.
    """
    clock.synchronize()
    before = probe.read()
    if before.energy_mj is None:
        return before.missing.get("energy_mj", "not_on_device")
    start = time.perf_counter()
    steps = burst_steps(protocol, step_s)
    burst = burst_steps(protocol, clock.burst(step, steps).host_s / steps)
    while time.perf_counter() - start < protocol.energy_window_s * LONGER:
        clock.burst(step, burst)
        steps += burst
    health = between(before, probe.read(), energy_window_s=protocol.energy_window_s)
    if health.energy_j is None:
        return health.missing.get("energy_j", "monitor_gap")
    return Energy(steps=steps, joules=health.energy_j, mean_power_w=health.mean_power_w)


def fill_energy(run: CellRun) -> None:
    """Joules an image, where the device counts them."""
    with run.phase("energy"), run.steady():
        group = run.group
        reading = measure_energy(run.workload.step, group.clock, group.probe, run.task.protocol, step_s=run.step_s)
    if not isinstance(reading, Energy):
        run.row.null(reading, "energy_j_per_img")
        return
    images = reading.steps * run.cell.batch_size
    run.row.set(energy_j_per_img=reading.joules / images, mean_power_w=reading.mean_power_w)


def fill_profile(run: CellRun) -> None:
    """Where the step's time goes, by stage: a table of its own beside the row."""
    if run.prepares:
        return  # a compiled step has no modules left to time
    from archbench.profiler.rows import profile_stages  # which itself measures

    with run.phase("profile"):
        context, allow_code = run.task.context, run.task.allow_code
        run.profile = profile_stages(
            *(run.workload, run.group.clock, run.group.calibration),
            round=context.round,
            visit=context.visit,
            allow_code=allow_code,
        )
