"""Logs of gates whose pairs are made up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from builders import make_environment
from msgspec import structs

from archbench.comparison.gate import GateSpec
from archbench.comparison.noise import Threshold
from archbench.comparison.schedule import PairLog
from archbench.comparison.sides import SideSpec
from archbench.model.cell import Cell, Network
from archbench.model.comparison import Frozen, ProcessPair, Turn
from archbench.model.record import Facts, RunContext, empty_record

FROZEN = Frozen(warmup_steps=(5, 5), steps=(10, 10))


def make_cell(name: str = "resnet50", batch_size: int = 1) -> Cell:
    return Cell(network=Network(name=name), batch_size=batch_size)


def make_pair(
    log_ratio: float = 0.0,
    cell: Cell | None = None,
    *,
    base: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    base_s: float = 0.01,
    duration_s: float = 2.0,
    origins: tuple[str | None, ...] = (None, None),
) -> ProcessPair:
    """A pair whose log(head / base) is this; `base` and `head` are columns of the rows."""
    times = (base_s, base_s * math.exp(log_ratio))
    context = RunContext(run_id="gate", round=0, environment=make_environment())
    blank = empty_record(cell or make_cell(), context, Facts())
    rows = tuple(
        structs.replace(
            blank, **{"status": "ok", "verdict": "ok", "latency_median_s": time, "params": 10, **(columns or {})}
        )
        for time, columns in zip(times, (base, head), strict=True)
    )
    whole = all(row.status == "ok" for row in rows)
    return ProcessPair(
        rows=rows,
        turns=(Turn(seconds=times, first=0),) * 3 if whole else (),
        frozen=FROZEN,
        origins=origins,
        started_at="2026-03-01T10:00:00.000+00:00",
        duration_s=duration_s,
    )


def make_log(
    screen: Iterable[float] = (),
    confirm: Iterable[float] = (),
    cell: Cell | None = None,
    threshold: Threshold | None = None,
) -> PairLog:
    """A cell with pairs of these log ratios, and the usual threshold unless one is given."""
    log = PairLog(cell or make_cell())
    log.threshold = threshold or log.threshold
    for ratio in screen:
        log.add("screen", make_pair(ratio, log.cell))
    for ratio in confirm:
        log.add("confirm", make_pair(ratio, log.cell))
    return log


def make_spec(cells: Iterable[Cell], **overrides: Any) -> GateSpec:
    side = SideSpec(label="a", kind="interpreter", identity="/a/python", described="/a/python")
    fields: dict[str, Any] = {
        "suite": "tiny",
        "suite_hash": "0",
        "cells": tuple(cell.cell_id for cell in cells),
        "device": "cpu",
        "base": side,
        "head": structs.replace(side, label="b", identity="/b/python", described="/b/python"),
        "base_environment": make_environment(),
        "head_environment": make_environment(),
        "turns": 9,
        "turn_s": 0.1,
        "seed": 0,
    }
    return GateSpec(**{**fields, **overrides})
