"""Reason codes: why a row is suspect or invalid, what a label says of it, and why a column is null.

A code stands alone (`throttled`) or, where it explains a null, behind its column (`energy_j_per_img:not_requested`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from archbench.model.record import Verdict

Effect = Literal["invalid", "suspect", "label", "null"]


class Reason(Struct, frozen=True, kw_only=True):
    """What a code means, what it does to the row's verdict, and what the user can do."""

    effect: Effect
    meaning: str
    remedy: str = ""


REASONS: dict[str, Reason] = {
    # invalid: the figure is not of this network on this machine
    "throttled": Reason(
        effect="invalid",
        meaning="over 20 % of the blocks, or three in a row, ran under a thermal, power-brake or hardware slowdown",
        remedy="cool the device, or wait, and measure again",
    ),
    "foreign_process": Reason(
        effect="invalid",
        meaning="another process computed on the device during more than 20 % of the blocks, or three in a row",
        remedy="stop it (`nvidia-smi pmon` names it) and measure again",
    ),
    "device_lost": Reason(
        effect="invalid", meaning="the device stopped answering its monitor", remedy="check the driver's log"
    ),
    "clock_error": Reason(
        effect="invalid", meaning="a clock went backwards or returned no number", remedy="run `archbench doctor`"
    ),
    "disturbed": Reason(
        effect="invalid",
        meaning="the machine ran at less than half, or more than twice, its usual speed (canary): too far to correct",
        remedy="measure it again when nothing else runs; a stored run does so with `--retry-failed`",
    ),
    "crowded": Reason(
        effect="invalid",
        meaning="other work took over a third of the CPU time that this cell's threads asked for, most of the time",
        remedy="close it and measure again, a stored run with `--retry-failed`; `archbench doctor` shows the load",
    ),
    "stalled": Reason(
        effect="invalid",
        meaning="steps took over three times the cell's own usual time while other work held the cores, and still did "
        "when it had been waited for (`protocol: stall_wait_s`)",
        remedy="run the same command again with `--retry-failed` when nothing else runs, or give it fewer `threads`",
    ),
    # suspect: usable with a mark
    "nonstationary": Reason(
        effect="suspect",
        meaning="step times had not settled when the warm-up's time was up, or kept drifting while timed",
        remedy="raise `protocol: warmup_cap_s`, or look for a neighbour or a thermal ramp",
    ),
    "drift": Reason(
        effect="suspect",
        meaning="the machine's own speed (canary) was more than 10 % off the run's median during this cell",
        remedy="use the corrected figures, or measure again on a quiet machine",
    ),
    "wide_interval": Reason(
        effect="suspect",
        meaning="the 95 % interval of the median is wider than twice the target",
        remedy="raise `protocol: max_sampling_s`, or measure more rounds (`--rounds 3`)",
    ),
    "few_samples": Reason(
        effect="suspect", meaning="fewer samples than an interval needs", remedy="raise `protocol: max_sampling_s`"
    ),
    "contended": Reason(
        effect="suspect",
        meaning="other work took CPU time while this cell was timed",
        remedy="close it, or measure again; `archbench doctor` shows the load",
    ),
    "monitor_gap": Reason(
        effect="suspect",
        meaning="a monitor's counter went backwards or vanished while timing",
        remedy="run `archbench doctor`",
    ),
    # labels: findings about the cell
    "host_bound": Reason(
        effect="label", meaning="the host, not the device, sets the pace (issue time > 1.1 x device time)"
    ),
    "macs_lower_bound": Reason(
        effect="label",
        meaning="operators with products were not counted, so `macs` and what follows from it are at least that much",
        remedy="`archbench show NAME` names them",
    ),
    "ceiling_under_measured": Reason(
        effect="label",
        meaning="the step did more FLOP/s than the calibration's best, so `measured_peak_share` is above 1: ceiling "
        "under-measured, on a machine that was busy then, or by a kernel that needs fewer FLOP than are counted",
        remedy="calibrate on a quiet machine: begin a new run (`--fresh`)",
    ),
    "old_canary": Reason(
        effect="label",
        meaning="measured under protocol version 1, whose canary depended on what ran before it: raw times are used",
        remedy="measure again to have times corrected for the machine's drift",
    ),
    "power_capped": Reason(
        effect="label", meaning="the device ran at its software power limit, which is normal under load"
    ),
    "graphs_recorded": Reason(
        effect="suspect",
        meaning="CUDA graphs were recorded again while steps were timed, which takes many times a step",
        remedy="measure it with compile_mode `default` too: its inputs or weights move between steps",
    ),
    "monitor_blind": Reason(
        effect="label",
        meaning="nothing told, at least at times, whether the device was throttled or shared while it was timed",
        remedy="let the process read NVML; `archbench doctor` says what is missing",
    ),
    "eager_frames": Reason(
        effect="label", meaning="torch.compile left part of the network to run eagerly", remedy="see `graph_breaks`"
    ),
    # null: why a column holds nothing
    "not_requested": Reason(
        effect="null", meaning="the suite does not ask for this metric", remedy="add it to `metrics:`"
    ),
    "first_round": Reason(effect="null", meaning="the process that measured the cell in the first round has it"),
    "not_on_device": Reason(effect="null", meaning="this device or system does not provide it"),
    "process_unknown": Reason(
        effect="null", meaning="the driver does not name this process, or names it by an id of outside its container"
    ),
    "no_permission": Reason(
        effect="null", meaning="this user may not read it", remedy="ask whoever runs the machine for the right"
    ),
    "driver_too_old": Reason(
        effect="null", meaning="the driver or the NVML binding is older than the call", remedy="update the driver"
    ),
    "nvml_missing": Reason(
        effect="null",
        meaning="NVML is not installed",
        remedy="install the driver's libnvidia-ml; in a container add `utility` to NVIDIA_DRIVER_CAPABILITIES",
    ),
    "rocm_unwatched": Reason(
        effect="null",
        meaning="a ROCm GPU has no NVML, and archbench asks no other monitor of GPUs",
        remedy="watch it with `amd-smi` while measuring",
    ),
    "driver_not_loaded": Reason(effect="null", meaning="the NVIDIA driver is not loaded", remedy="load it, or reboot"),
    "driver_mismatch": Reason(
        effect="null", meaning="the NVIDIA driver was updated while the old one is loaded", remedy="reboot"
    ),
    "monitor_error": Reason(
        effect="null", meaning="the device's monitor answered with an error", remedy="run `archbench doctor`"
    ),
    "monitor_slow": Reason(
        effect="null",
        meaning="the device's monitor takes so long to answer that it was not asked",
        remedy="see whether another tool keeps NVML busy; `archbench doctor` times it",
    ),
    "too_few_samples": Reason(
        effect="null",
        meaning="too few samples for this percentile",
        remedy="name it under `percentiles:`, which raises the minimum, or raise `protocol: max_sampling_s`",
    ),
    "all_rejected": Reason(
        effect="null",
        meaning="every block was rejected, for the reason that makes the row invalid; what it shows is of all of them",
    ),
    "waits_inside": Reason(
        effect="null",
        meaning="the step waits for the device itself (a GradScaler does), so that it cannot be issued all at once",
    ),
    "backlog_lost": Reason(
        effect="null",
        meaning="the step has more launches than the device's queue holds, so that it cannot be issued all at once",
    ),
    "several_steps_per_sample": Reason(effect="null", meaning="a sample of several steps has no percentiles"),
    "in_turns": Reason(effect="null", meaning="not measured where two sides take turns"),
    "phase_failed": Reason(effect="null", meaning="the pass that fills it failed; the run's worker.log has the error"),
    "nothing_timed": Reason(effect="null", meaning="no metric was asked for that is timed"),
    "nothing_ran": Reason(effect="null", meaning="only static figures were asked for, which need no step"),
    "first_batch_only": Reason(effect="null", meaning="measured once a group, at its smallest batch size"),
    "inference_only": Reason(effect="null", meaning="defined for inference only"),
    "no_graphs_in_mode": Reason(effect="null", meaning="this compile mode records no CUDA graphs"),
    "profiler_blind": Reason(
        effect="null",
        meaning="the profiler saw no call of the device's runtime, as may happen beside another profiler",
        remedy="measure it again with no other profiler attached",
    ),
    "not_compiled": Reason(effect="null", meaning="the cell does not compile"),
    "is_reference": Reason(effect="null", meaning="this cell is the reference that others are compared with"),
    "not_finite": Reason(effect="null", meaning="an output was zero, infinite or not a number"),
    "too_short": Reason(effect="null", meaning="the window is too short for the counter's resolution"),
    "unknown_peak": Reason(effect="null", meaning="no peak is known for this device and precision"),
    "not_predicted": Reason(effect="null", meaning="only eager steps that run without data are predicted"),
    "no_published_figure": Reason(effect="null", meaning="nobody has published it for these weights"),
}

_SEVERITY: dict[Effect, int] = {"invalid": 2, "suspect": 1, "label": 0, "null": 0}
_VERDICTS: tuple[Verdict, ...] = ("ok", "suspect", "invalid")


def explain(code: str) -> Reason:
    """Look up a code, with or without the column before it. Raises `KeyError` for one that no version knows."""
    return REASONS[code.rpartition(":")[2]]


def verdict_of(codes: Iterable[str]) -> Verdict:
    """The worst that any of the codes makes of a row."""
    return _VERDICTS[max((_SEVERITY[explain(code).effect] for code in codes), default=0)]
