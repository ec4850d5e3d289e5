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

Scalar = bool | int | float | str | None
"""What an architecture option may be: it must print the same way everywhere, since it is part of the cell's name."""
