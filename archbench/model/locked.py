"""Which circumstances have to agree for two rows to be ranked against each other."""

from __future__ import annotations

LOCKED: dict[str, str] = {
    "phase": "a training step does three times the work of a forward pass, and more",
    "batch_size": "time and memory grow with it, and throughput saturates",
    "input_size": "work grows with its square",
    "precision": "it changes the arithmetic, and published accuracies are those of fp32",
    "device": "a CPU and a GPU are different purchases",
    "hardware_class": "figures of one machine say nothing of another",
    "torch_version": "kernels and compilers change between versions",
    "protocol_version": "figures were taken by other rules",
}
"""By column, why rows that differ in it are not ranked against each other unless asked (`--across COLUMN`).

compile_mode and memory_format are not among them: they change how a network is run, not what it computes, and the
best of them is part of the answer. `input_size` binds networks away from the size that they were published for; those
at their own size are compared as they are meant to be used, with a footnote.
"""
