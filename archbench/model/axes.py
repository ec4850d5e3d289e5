"""The axes along which one network can be measured, and their legal values."""

from __future__ import annotations

from typing import Literal, get_args

Phase = Literal["inference", "training"]
Precision = Literal["fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
MemoryFormat = Literal["contiguous", "channels_last"]
DeviceKind = Literal["cpu", "cuda"]
Head = Literal["classifier", "none"]
Metric = Literal["static", "latency", "throughput", "memory", "energy", "compile", "numerics", "profile"]

PHASES: tuple[str, ...] = get_args(Phase)
PRECISIONS: tuple[str, ...] = get_args(Precision)
COMPILE_MODES: tuple[str, ...] = get_args(CompileMode)
MEMORY_FORMATS: tuple[str, ...] = get_args(MemoryFormat)
DEVICE_KINDS: tuple[str, ...] = get_args(DeviceKind)
STATIC: tuple[Metric, ...] = ("static",)
"""Alone, it runs nothing: what is counted (parameters, MACs), predicted (memory) and traced (graph breaks)."""

TIMED: tuple[Metric, ...] = ("latency", "throughput")
"""What differs between processes, so that more than one of them is asked."""

Scalar = bool | int | float | str | None
"""What an architecture option may be: it must print the same way everywhere, since it is part of the cell's name."""


def toggles_label(precision: str, memory_format: str, compile_mode: str) -> str:
    """A bundle of toggles in words: `amp-bf16, channels_last, compile=default`."""
    words = [precision]
    if memory_format != "contiguous":
        words.append(memory_format)
    if compile_mode != "off":
        words.append(f"compile={compile_mode}")
    return ", ".join(words)


def toggles_order(toggles: tuple[str, str, str]) -> tuple[int, int, int]:
    """A sort key: precisions, then memory formats, then modes of compilation, each as its axis is ordered."""
    precision, memory_format, compile_mode = toggles
    return (PRECISIONS.index(precision), MEMORY_FORMATS.index(memory_format), COMPILE_MODES.index(compile_mode))
