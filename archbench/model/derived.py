"""Columns that are not stored but made when results are read, and those that keep rows from being ranked together."""

from __future__ import annotations

from functools import cache
from typing import Literal

from archbench.model.record import Column, columns


def _columns(*told: tuple[str, Literal["text", "real", "whole", "flag"], str | None, str]) -> dict[str, Column]:
    """By name; of each its kind, unit and meaning."""
    return {name: Column(name=name, kind=kind, unit=unit, description=said) for name, kind, unit, said in told}


DERIVED = _columns(
    ("speed_index", "real", None, "canary_s over its median in the run: above 1, the machine was slower than usual"),
    (
        "latency_median_corrected_s",
        "real",
        "s",
        "latency_median_s / speed_index: what the step takes at the run's usual speed",
    ),
    (
        "throughput_corrected_img_s",
        "real",
        "img/s",
        "throughput_img_s x speed_index, of the canary beside its bursts: the rate at the run's usual speed",
    ),
)
"""What `archbench.results.load_frame` adds to the stored columns."""

ADDED = _columns(
    ("processes", "whole", None, "rows of this cell, one a process"),
    ("processes_used", "whole", None, "those behind the figures: measured, and not invalid unless all are"),
    (
        "drift_corrected",
        "flag",
        None,
        "figures to compare cells by are the corrected ones (on the CPU, where every process has a canary)",
    ),
    ("rank_latency_s", "real", "s", "latency to compare cells by: the median of the processes' medians"),
    ("rank_latency_low_s", "real", "s", "95 % interval of rank_latency_s, low end"),
    ("rank_latency_high_s", "real", "s", "95 % interval of rank_latency_s, high end"),
    ("rank_latency_p90_s", "real", "s", "latency_p90_s in the terms of rank_latency_s: scaled as the median is"),
    ("rank_latency_p95_s", "real", "s", "latency_p95_s in the terms of rank_latency_s: scaled as the median is"),
    ("rank_latency_p99_s", "real", "s", "latency_p99_s in the terms of rank_latency_s: scaled as the median is"),
    ("rank_throughput_img_s", "real", "img/s", "throughput to compare cells by: the median of the processes' medians"),
    ("rank_throughput_low_img_s", "real", "img/s", "95 % interval of rank_throughput_img_s, low end"),
    ("rank_throughput_high_img_s", "real", "img/s", "95 % interval of rank_throughput_img_s, high end"),
)
"""What a summary over rounds has beside the columns of `load_frame`."""

_RANKED_BY = {
    "latency_median_s": "rank_latency_s",
    "latency_ci_low_s": "rank_latency_low_s",
    "latency_ci_high_s": "rank_latency_high_s",
    **{f"latency_{p}_s": f"rank_latency_{p}_s" for p in ("p90", "p95", "p99")},
    "throughput_img_s": "rank_throughput_img_s",
    "throughput_ci_low_img_s": "rank_throughput_low_img_s",
    "throughput_ci_high_img_s": "rank_throughput_high_img_s",
}

CANDIDATE = _columns(
    ("year", "whole", None, "year of first publication, from the catalogue"),
    ("depth", "whole", None, "weight layers on the longest path to an output, from the catalogue"),
    ("feature_width", "whole", None, "channels of the features under the classifier, from the catalogue"),
    ("weights", "text", None, "tag of published weights that the network's library loads; null where it has none"),
    ("pretrained", "flag", None, "the network's library loads published weights for it"),
    (
        "settings_ok",
        "whole",
        None,
        "bundles of toggles under which the network ran in this run, whatever the batch and phase",
    ),
    ("settings_failed", "whole", None, "those under which a cell of it failed: oom, error, timeout or crashed"),
)
"""What a decision may ask for beside the columns of a summary."""

RANKING_KEYS: dict[str, str] = {
    "phase": "a training step does three times the work of a forward pass, and more",
    "batch_size": "time and memory grow with it, and throughput saturates",
    "input_size": "work grows with its square",
    "inputs": "networks that take different things do different work",
    "head": "maps are not classes",
    "deploy": "folded and unfolded forms of one network are of different sizes",
    "train": "what is frozen has no gradient",
    "optimizer": "AdamW holds and does more than SGD",
    "checkpointing": "it trades time for memory",
    "precision": "it changes the arithmetic, and published accuracies are those of fp32",
    "quantize": "it changes the arithmetic, and published accuracies are those of fp32",
    "threads": "more cores do more at once",
    "device": "a CPU and a GPU are different purchases",
    "hardware_class": "figures of one machine say nothing of another",
    "torch_version": "kernels and compilers change between versions",
    "protocol_version": "figures were taken by other rules",
    "accuracy_dataset": "90 % on CIFAR-10 is less than 75 % on ImageNet",
}
"""By column, why rows that differ in it are not ranked against each other unless asked (`--across COLUMN`).

compile_mode, memory_format and runtime are not among them: they change how a network is run, not what it computes, and
the best of them is part of the answer. `input_size` binds networks away from the size that they were published for;
those at their own size are compared as they are meant to be used, with a footnote. `accuracy_dataset` binds where
accuracies are ranked or bounded: elsewhere networks without a known one stand beside the others.
"""

_ROW_ONLY = ("round", "visit")
UNIT_ENDINGS = ("_s", "_bytes", "_img_s", "_j_per_img", "_w", "_mhz")
"""Ends of column names that say a unit."""


@cache
def judged_columns() -> dict[str, Column]:
    """Every column that a decision may name: those of a row less round and visit, of a summary and of a candidate."""
    stored = {name: column for name, column in columns().items() if name not in _ROW_ONLY}
    return {**stored, **DERIVED, **ADDED, **CANDIDATE}


@cache
def judged_names() -> dict[str, Column]:
    """`judged_columns` by every name that a user may write: in full, and with the unit's ending left out."""
    full = judged_columns()
    return {without_unit(name): column for name, column in full.items()} | full


def ranked_by(name: str) -> str:
    """The column that a decision judges where `name` is asked for: of a time or a rate the one to compare cells by."""
    return _RANKED_BY.get(name, name)


def column_label(name: str) -> str:
    """`latency_p99` of `rank_latency_p99_s`: what a reader calls a column, without its unit."""
    return without_unit(name).removeprefix("rank_")


def without_unit(name: str) -> str:
    """`latency_p99` of `latency_p99_s`; a name that ends in no unit, unchanged."""
    ending = max((end for end in UNIT_ENDINGS if name.endswith(end)), key=len, default="")
    return name.removesuffix(ending)
