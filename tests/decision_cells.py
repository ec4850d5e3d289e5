"""Rows of a few networks with figures that a test chooses, and what a decision sees of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders import make_record, make_run, make_suite

from archbench.choose.candidates import Candidates, read_candidates
from archbench.model.axes import TOGGLES
from archbench.model.cell import Cell, Network
from archbench.model.record import Record
from archbench.model.suite import Suite

_CELL = ("batch_size", "phase", *TOGGLES, "threads", "device")


def row(name: str = "resnet50", latency: float | None = 0.02, **columns: Any) -> Record:
    """A row of `name` with this latency and an interval of ±1 %, its ids made from its own columns."""
    network = Network(name=name, **columns.pop("network", {}))
    cell = Cell(network=network, **{"batch_size": 1, **{key: columns[key] for key in _CELL if key in columns}})
    figures: dict[str, Any] = {
        "latency_median_s": latency,
        "latency_ci_low_s": None if latency is None else latency / 1.01,
        "latency_ci_high_s": None if latency is None else latency * 1.01,
        "canary_s": None,  # no correction: the figures come out as they are put in
    }
    ids = {
        "architecture": name,
        "variant": network.label,
        "cell_id": cell.cell_id,
        "group_id": cell.group_id,
        "setting": None,
        "batch_size": cell.batch_size,
        "input_size": network.input_size or 224,
    }
    if columns.get("status", "ok") != "ok":
        figures = {}
    return make_record(**{**ids, **figures, **columns})


def candidates_of(root: Path, *rows: Record, suite: Suite | None = None) -> Candidates:
    """What decisions see of a run of these rows."""
    return read_candidates([make_run(root, rows, suite=suite or make_suite())])
