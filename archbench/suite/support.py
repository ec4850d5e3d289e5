"""What cannot run whatever the network, known without torch. Everything else is for the worker to try.

On the CPU, seen by running torch 2.15: fp16, bf16, amp-fp16 (with its loss scaler) and amp-bf16 all run forward and
backward. `reduce-overhead` and `max-autotune` compile to the code of `default` and `max-autotune-no-cudagraphs`, and
inductor counts a `cudagraph_skips`: such a cell would bear a name that it does not deserve, so it is refused.
"""

from __future__ import annotations

from archbench.model.cell import Cell
from archbench.suite.match import entry_of


def unsupported(cell: Cell) -> str | None:
    """Why `cell` cannot be what it says; `None` where nothing speaks against it."""
    if (reason := unsupported_toggle(cell)) is not None:
        return reason
    shape = entry_of(cell.network).input_shape
    if cell.network.input_size is not None and shape is not None and len(shape) != 3:
        return f"{cell.network.name} takes vectors, which have no input_size"
    return None


def unsupported_toggle(cell: Cell) -> str | None:
    """Which of the cell's toggles its device cannot do, whatever the network; `None` where it can do all."""
    if cell.device == "cpu":
        if cell.precision == "tf32":
            return "TF32 is a number format of NVIDIA GPUs; on a CPU this would be fp32"
        if cell.compile_mode == "reduce-overhead":
            return "reduce-overhead means CUDA graphs; on a CPU this would be compile_mode default"
        if cell.compile_mode == "max-autotune":
            return "max-autotune includes CUDA graphs; on a CPU this would be max-autotune-no-cudagraphs"
    return None
