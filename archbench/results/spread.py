"""How far processes that measure one thing differ in a run, kept beside it: what later runs on such a machine know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from archbench.stats.moderation import Pool, joined

if TYPE_CHECKING:
    import pandas as pd

SPREAD = "spread.json"
MOST_EARLIER = 20
"""Runs that are looked back at: machines change."""


class Spread(Struct, frozen=True, kw_only=True):
    """How far processes differ, over all groups of a run; variances are of natural logs."""

    latency: Pool | None = None
    """`None` where no cell was measured by two processes."""
    throughput: Pool | None = None
    groups: int = 0
    """Groups that more than one process measured."""
    earlier: int = 0
    """Runs before it whose spread was taken into account."""

    def after(self, earlier: Sequence[Spread]) -> Spread:
        """Moderated towards what earlier runs on the same hardware showed."""
        return Spread(
            latency=joined(self.latency, [one.latency for one in earlier if one.latency]),
            throughput=joined(self.throughput, [one.throughput for one in earlier if one.throughput]),
            groups=self.groups,
            earlier=len(earlier),
        )


class Shown(Struct, frozen=True, kw_only=True):
    """A run's own spread, with what must be equal for another run to learn from it."""

    hardware_class: str
    device: str
    protocol_version: int
    begun: str
    """UTC, ISO 8601: a run learns from those before it alone, so that its report does not change."""
    spread: Spread


def shown(rows: pd.DataFrame, spread: Spread) -> Shown:
    """What is to be kept of a run with these rows."""
    first = rows.iloc[0]
    return Shown(
        hardware_class=str(first["hardware_class"]),
        device=str(first["device"]),
        protocol_version=int(first["protocol_version"]),
        begun=str(rows["started_at"].dropna().min()),
        spread=spread,
    )


def earlier_spreads(run: Path, rows: pd.DataFrame) -> list[Spread]:
    """What the runs beside this one showed, on the same hardware and before it, the latest `MOST_EARLIER`."""
    place = run if run.is_dir() else run.parent
    about = shown(rows, Spread())
    found = []
    for path in place.resolve().parent.glob(f"*/{SPREAD}"):
        try:
            one = msgspec.json.decode(path.read_bytes(), type=Shown)
        except (OSError, msgspec.MsgspecError):
            continue  # of another version, or being written: it only adds what can be done without
        alike = msgspec.structs.replace(one, begun=about.begun, spread=about.spread) == about
        if alike and one.begun < about.begun and one.spread.groups:
            found.append(one)
    return [one.spread for one in sorted(found, key=lambda one: one.begun)[-MOST_EARLIER:]]
