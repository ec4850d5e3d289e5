"""Images per second of steps issued back to back, and the arithmetic that this amounts to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archbench.device.cuda import peak_flops
from archbench.measure.metrics.metric import Metric
from archbench.measure.sampling import Sampled, burst_steps, sample_throughput

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun

TRAINING_PASSES = 3
"""A training step's arithmetic in forward passes: the backward pass computes gradients of inputs and of weights, each
as large as the forward (Kaplan et al. 2020, section 2.1; PaLM, appendix B)."""


def _time(run: CellRun) -> None:
    sampled = _sampled_as_latency(run)
    if sampled is None:
        with run.phase("throughput"):
            protocol, clock = run.task.protocol, run.group.clock
            sampled = sample_throughput(run.workload.step, clock, protocol, run.watch, step_s=run.step_s)
        run.row.add_timings(sampled, "throughput")
    if sampled.given_up is not None:
        run.row.flag(sampled.given_up)
    images, interval = run.cell.batch_size, sampled.interval
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


def _sampled_as_latency(run: CellRun) -> Sampled | None:
    """The steps that latency has timed, where a step is as long as a burst: one alone, waited for, is a burst then."""
    same = run.latency is not None and run.latency.steps == burst_steps(run.task.protocol, run.step_s) == 1
    return run.latency if same else None


THROUGHPUT = Metric(name="throughput", timed=True, fill=_time)


def _efficiency(run: CellRun, rate: float) -> None:
    passes = TRAINING_PASSES if run.cell.phase == "training" else 1
    achieved = rate * run.group.counts.flops * passes
    calibration = run.group.calibration
    peaks = {
        "mfu": _vendor_peak(run),
        "measured_peak_share": calibration.peak(run.cell.precision) if calibration else None,
    }
    run.row.set(achieved_flops=achieved)
    for column, peak in peaks.items():
        if peak is None:
            run.row.null("unknown_peak", column)
        else:
            run.row.set(**{column: achieved / peak})
            if column == "measured_peak_share" and achieved > peak:
                run.row.flag("ceiling_under_measured")


def _vendor_peak(run: CellRun) -> float | None:
    gpus = run.task.context.environment.gpus
    return peak_flops(gpus[0].name, run.cell.precision) if gpus else None
