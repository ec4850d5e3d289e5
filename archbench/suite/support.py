"""What cannot run whatever the network, known without torch. Everything else is for the worker to try."""

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
    from archbench.device.kind import kind_named

    return kind_named(cell.device).refuses(cell.precision, cell.compile_mode)
