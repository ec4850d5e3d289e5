"""The time of one synchronised step: one batch in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archbench.measure.device_time import host_bound, issue_time, sample_device_time
from archbench.measure.metrics.metric import Metric
from archbench.measure.sampling import Sampled, sample_latency
from archbench.model.suite import PERCENTILES
from archbench.stats.intervals import minimum_samples, percentile
from archbench.stats.sampling import drifting

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

WIDE = 2.0
"""An interval this many times wider than the target makes a row suspect."""


def _time(run: CellRun) -> None:
    with run.phase("latency"):
        needed = max((minimum_samples(p) for p in run.task.percentiles), default=0)
        sampled = sample_latency(
            run.workload.step, run.group.clock, run.task.protocol, run.watch, step_s=run.step_s, min_samples=needed
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
    _judge(run, sampled)
    _percentiles(run, sampled)
    _device_time(run, sampled)


LATENCY = Metric(name="latency", timed=True, fill=_time)


def _judge(run: CellRun, sampled: Sampled) -> None:
    kept = [timing.host_s for timing in sampled.kept()]
    if sampled.given_up is not None:
        run.row.flag(sampled.given_up)
    half_width = sampled.interval.half_width
    if half_width is None:
        run.row.flag("few_samples")
    elif half_width > WIDE * run.task.protocol.target_half_width:
        run.row.flag("wide_interval")
    change = run.task.protocol.warmup_level_change
    paced = run.watch.at_one_clock(sampled.stretches)
    if len(kept) > 1 and drifting(kept, change).drifting and drifting(paced, change).drifting:
        run.row.flag("nonstationary")


def _percentiles(run: CellRun, sampled: Sampled) -> None:
    host = [timing.host_s for timing in sampled.kept()]
    for percent in PERCENTILES:
        column = f"latency_p{percent}_s"
        value = percentile(host, percent) if sampled.steps == 1 else None
        run.row.set(**{column: value})
        if value is None:
            code = "several_steps_per_sample" if sampled.steps > 1 else "too_few_samples"
            run.row.null(code if host else "all_rejected", column)


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
