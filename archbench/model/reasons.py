"""Reason codes: why a row is suspect or invalid, what a label says of it, and why a column is null.

A code stands alone (`throttled`) or, where it explains a null, behind its column (`energy_j_per_img:not_requested`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from archbench.model.record import Verdict

Effect = Literal["invalid", "suspect", "label", "null"]
LOWER_BOUND = "macs_lower_bound"
"""The label of a row whose MACs, and all figures `FROM_MACS`, are lower bounds."""
FROM_MACS = frozenset({"macs", "flops", "achieved_flops", "mfu", "measured_peak_share"})


class Reason(Struct, frozen=True):
    """What a code means, what it does to the row's verdict, and what the user can do."""

    effect: Effect
    meaning: str
    remedy: str = ""


REASONS: dict[str, Reason] = {
    # invalid: the figure is not of this network on this machine
    "throttled": Reason(
        "invalid",
        "over 20 % of the blocks, or three in a row, ran under a thermal, power-brake or hardware slowdown",
        "cool the device, or wait, and measure again",
    ),
    "foreign_process": Reason(
        "invalid",
        "another process computed on the device during more than 20 % of the blocks, or three in a row",
        "stop it (`nvidia-smi pmon` names it) and measure again",
    ),
    "device_lost": Reason("invalid", "the device stopped answering its monitor", "check the driver's log"),
    "clock_error": Reason("invalid", "a clock went backwards or returned no number", "run `archbench doctor`"),
    "disturbed": Reason(
        "invalid",
        "the machine ran at less than half, or more than twice, its usual speed (canary): too far to correct",
        "measure it again when nothing else runs; a stored run does so with `--retry-failed`",
    ),
    "crowded": Reason(
        "invalid",
        "other work took over a third of the CPU time that this cell's threads asked for, most of the time",
        "close it and measure again, a stored run with `--retry-failed`; `archbench doctor` shows the load",
    ),
    "stalled": Reason(
        "invalid",
        "steps took over three times the cell's own usual time while other work held the cores, and still did "
        "when it had been waited for (`protocol: stall_wait_s`)",
        "run the same command again with `--retry-failed` when nothing else runs, or give it fewer `threads`",
    ),
    "broken_output": Reason(
        "invalid",
        "its output holds infinity or not-a-number where that of fp32 eager holds none: fast, and of no use",
        "leave this setting out, or see which layer overflows: `archbench profile NAME`",
    ),
    "wrong_output": Reason(
        "invalid",
        "its output is over 1 % off that of eager mode, both in fp32: what runs computes something else",
        "leave this setting out: its exporter or compiler has mistaken an operator",
    ),
    # suspect: usable with a mark
    "nonstationary": Reason(
        "suspect",
        "step times had not settled when the warm-up's time was up, or kept drifting while timed",
        "raise `protocol: warmup_cap_s`, or look for a neighbour or a thermal ramp",
    ),
    "drift": Reason(
        "suspect",
        "the machine's own speed (canary) was more than 10 % off the run's median during this cell",
        "use the corrected figures, or measure again on a quiet machine",
    ),
    "far_from_class": Reason(
        "suspect",
        "its device is over 5 % from the others of its class, by the cells that several measured: sick, capped, or "
        "with a neighbour",
        "look at that device's clocks, power limit, cooling and processes, then measure again with `--retry-suspect`",
    ),
    "wide_interval": Reason(
        "suspect",
        "the 95 % interval of its own median is wide: over 10 % either way on a CPU, over 1 % on a GPU",
        "raise `protocol: max_sampling_s`, or measure more rounds (`--rounds 3`)",
    ),
    "few_samples": Reason("suspect", "fewer samples than an interval needs", "raise `protocol: max_sampling_s`"),
    "contended": Reason(
        "suspect",
        "other work took CPU time while this cell was timed",
        "close it, or measure again; `archbench doctor` shows the load",
    ),
    "monitor_gap": Reason(
        "suspect", "a monitor's counter went backwards or vanished while timing", "run `archbench doctor`"
    ),
    "switched": Reason(
        "suspect",
        "the network changed switches of the whole process (threads, precision of products) while its steps were timed",
        "set them when it is built, where they are set back, or not at all",
    ),
    # labels: findings about the cell
    "host_bound": Reason("label", "the host, not the device, sets the pace (issue time > 1.1 x device time)"),
    "training_form": Reason(
        "label",
        "the network is in its form for training, up to three times as large as the published one for inference",
        "measure it with `deploy: true`",
    ),
    LOWER_BOUND: Reason(
        "label",
        "operators with products were not counted, so `macs` and what follows from it are at least that much",
        "`archbench show NAME` names them",
    ),
    "ceiling_under_measured": Reason(
        "label",
        "the step did more FLOP/s than the calibration's best, so `measured_peak_share` is above 1: ceiling "
        "under-measured, on a machine that was busy then, or by a kernel that needs fewer FLOP than are counted",
        "calibrate on a quiet machine: begin a new run (`--fresh`)",
    ),
    "old_canary": Reason(
        "label",
        "measured under protocol version 1, whose canary depended on what ran before it: raw times are used",
        "measure again to have times corrected for the machine's drift",
    ),
    "power_capped": Reason("label", "the device ran at its software power limit, which is normal under load"),
    "graphs_recorded": Reason(
        "suspect",
        "CUDA graphs were recorded again while steps were timed, which takes many times a step",
        "measure it with compile_mode `default` too: its inputs or weights move between steps",
    ),
    "monitor_blind": Reason(
        "label",
        "nothing told, at least at times, whether the device was throttled or shared while it was timed",
        "let the process read NVML; `archbench doctor` says what is missing",
    ),
    "eager_frames": Reason("label", "torch.compile left part of the network to run eagerly", "see `graph_breaks`"),
    # null: why a column holds nothing
    "not_requested": Reason("null", "the suite does not ask for this metric", "add it to `metrics:`"),
    "first_round": Reason("null", "the process that measured the cell in the first round has it"),
    "not_on_device": Reason("null", "this device or system does not provide it"),
    "process_unknown": Reason(
        "null", "the driver does not name this process, or names it by an id of outside its container"
    ),
    "no_permission": Reason("null", "this user may not read it", "ask whoever runs the machine for the right"),
    "driver_too_old": Reason("null", "the driver or the NVML binding is older than the call", "update the driver"),
    "nvml_missing": Reason(
        "null",
        "NVML is not installed",
        "install the driver's libnvidia-ml; in a container add `utility` to NVIDIA_DRIVER_CAPABILITIES",
    ),
    "rocm_unwatched": Reason(
        "null",
        "a ROCm GPU has no NVML, and archbench asks no other monitor of GPUs",
        "watch it with `amd-smi` while measuring",
    ),
    "driver_not_loaded": Reason("null", "the NVIDIA driver is not loaded", "load it, or reboot"),
    "driver_mismatch": Reason("null", "the NVIDIA driver was updated while the old one is loaded", "reboot"),
    "monitor_error": Reason("null", "the device's monitor answered with an error", "run `archbench doctor`"),
    "monitor_slow": Reason(
        "null",
        "the device's monitor takes so long to answer that it was not asked",
        "see whether another tool keeps NVML busy; `archbench doctor` times it",
    ),
    "too_few_samples": Reason(
        "null",
        "too few samples for this percentile",
        "name it under `percentiles:`, which raises the minimum, or raise `protocol: max_sampling_s`",
    ),
    "all_rejected": Reason(
        "null", "every block was rejected, for the reason that makes the row invalid; what it shows is of all of them"
    ),
    "waits_inside": Reason(
        "null", "the step waits for the device itself (a GradScaler does), so that it cannot be issued all at once"
    ),
    "backlog_lost": Reason(
        "null", "the step has more launches than the device's queue holds, so that it cannot be issued all at once"
    ),
    "several_steps_per_sample": Reason("null", "a sample of several steps has no percentiles"),
    "in_turns": Reason("null", "not measured where two sides take turns"),
    "phase_failed": Reason("null", "the pass that fills it failed; the run's worker.log has the error"),
    "nothing_timed": Reason("null", "no metric was asked for that is timed"),
    "nothing_ran": Reason("null", "only static figures were asked for, which need no step"),
    "first_batch_only": Reason("null", "measured once a group, at its smallest batch size"),
    "compiled_in_company": Reason(
        "null", "compiled beside others (`compile_neighbours`), which takes longer; one group a network is alone"
    ),
    "inference_only": Reason("null", "defined for inference only"),
    "training_only": Reason("null", "defined for training only"),
    "no_graphs_in_mode": Reason("null", "this compile mode records no CUDA graphs"),
    "profiler_blind": Reason(
        "null",
        "the profiler saw no call of the device's runtime, as may happen beside another profiler",
        "measure it again with no other profiler attached",
    ),
    "not_compiled": Reason("null", "the cell neither compiles nor converts"),
    "no_artifact": Reason("null", "nothing is made that could be kept and shipped by itself"),
    "random_weights": Reason(
        "null", "the weights are random", "give the network `weights:`, a file or a tag of its library"
    ),
    "other_classes": Reason(
        "null",
        "the network has another number of classes than the folder of images has folders",
        "give `--images` a folder with a folder for each of the network's classes, empty ones too",
    ),
    "degenerate_outputs": Reason(
        "null", "the reference gives most images the same top class, or has no classes: agreement would tell nothing"
    ),
    "quantized": Reason("null", "to quantise is to depart from fp64 by far more than rounding does"),
    "not_quantized": Reason("null", "nothing was to be quantised"),
    "outside_torch": Reason("null", "the runtime's memory is not PyTorch's: process_bytes has that of serving it"),
    "is_reference": Reason("null", "this cell is the reference that others are compared with"),
    "no_output": Reason("null", "the network returns no tensor of reals that could be held against fp32 eager's"),
    "not_finite": Reason("null", "an output was zero, infinite or not a number"),
    "too_short": Reason("null", "the window is too short for the counter's resolution"),
    "unknown_peak": Reason("null", "no peak is known for this device and precision"),
    "not_predicted": Reason("null", "only eager steps that run without data are predicted"),
    "no_published_figure": Reason("null", "nobody has published it for these weights"),
}


def explain(code: str) -> Reason:
    """Look up a code, with or without the column before it. Raises `KeyError` for one that no version knows."""
    return REASONS[code.rpartition(":")[2]]


def having(effect: str, codes: Iterable[str]) -> list[str]:
    """Those of the codes that do this to a row, each once; a code that this version does not know does nothing."""
    return [code for code in dict.fromkeys(codes) if code in REASONS and REASONS[code].effect == effect]


def verdict_of(codes: Iterable[str]) -> Verdict:
    """The worst that any of the codes makes of a row."""
    effects = {explain(code).effect for code in codes}
    return "invalid" if "invalid" in effects else "suspect" if "suspect" in effects else "ok"
