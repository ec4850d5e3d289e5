"""Many runs of one thing: each cell's time over the runs, and where it changed. Advisory: nobody's build fails by it.

A series holds one cell on one hardware class under one protocol version. Where torch or the driver changed it is split,
and each part is searched on its own: a step there is known, and has a cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from archbench.choose.summary import fit_rows, summarise
from archbench.comparison.rows import Rows, corrected, differences, read_rows, side_of, undisturbed, without_canary
from archbench.model.comparison import LEAST_EFFECT, Side
from archbench.model.errors import ArchbenchError, UsageError
from archbench.stats.changepoint import LEVEL, SHORTEST_SEGMENT, change_points

FEWEST = 2 * SHORTEST_SEGMENT
"""Runs of one environment that a change can be seen in."""
_RESETS = ("torch_version", "driver_version")


class DatedRun(Struct, frozen=True, kw_only=True):
    """One run of a history."""

    run_id: str
    place: str
    started_at: str
    """First measurement, UTC, ISO 8601."""
    hardware_class: str
    protocol_version: int
    torch_version: str | None
    driver_version: str | None


class RunPoint(Struct, frozen=True, kw_only=True):
    """A cell in one run."""

    run_id: str
    time_s: float
    """Of one batch; on the CPU corrected by one canary for all runs of its environment."""
    low_s: float | None
    high_s: float | None


class Change(Struct, frozen=True, kw_only=True):
    """A cell's time changed between two runs."""

    cell_id: str
    hardware_class: str
    before_run: str
    """The last run at the old level ..."""
    after_run: str
    """... and the first at the new one."""
    before_s: float
    """Median of the runs at the old level."""
    after_s: float
    p: float
    """Chance of a split as good in runs without any change."""
    p_ranks: float
    """Likewise of the ranks of the times alone, which a single wild run moves little."""
    votes: int
    """How many of the two detectors show it (see `archbench.stats.changepoint`) ..."""
    voters: int
    """... and how many could: 1 where there are too few runs for ranks to show anything."""

    @property
    def change(self) -> float:
        """After over before, less 1: +0.03 is 3 % slower."""
        return self.after_s / self.before_s - 1


class Reset(Struct, frozen=True, kw_only=True):
    """An environment changed between two runs: what differs there is put down to that, and not searched for changes."""

    before_run: str
    after_run: str
    what: str
    """`torch 2.14 → 2.15`."""


class Series(Struct, frozen=True, kw_only=True):
    """One cell on one hardware class, run by run."""

    cell_id: str
    hardware_class: str
    points: tuple[RunPoint, ...]
    changes: tuple[Change, ...]


class JointChange(Struct, frozen=True, kw_only=True):
    """Two runs between which cells changed, with everything else that is known to have changed there."""

    before: DatedRun
    after: DatedRun
    changes: tuple[Change, ...]
    """The largest first."""
    also: tuple[str, ...]
    """What else differs between the two, in sentences."""


class History(Struct, frozen=True, kw_only=True):
    """All runs under one directory, in order of time."""

    place: str
    runs: tuple[DatedRun, ...]
    series: tuple[Series, ...]
    resets: tuple[Reset, ...]
    steps: tuple[JointChange, ...]
    notes: tuple[str, ...]


def read_runs(place: Path) -> tuple[list[Rows], list[str]]:
    """Every run under a directory: run directories and parquet files of results, at any depth.

    What cannot be read (of a newer version, killed before its first cell, other parquet) is left out; the second value
    says what and why. Raises `UsageError` where the directory is none, or holds no run.
    """
    if not place.is_dir():
        raise UsageError(f"{place}: is not a directory; name one that holds runs")
    directories = sorted(marker.parent for marker in place.rglob("environment.json"))
    inside = set(directories) | {directory / name for directory in directories for name in ("cells", "samples")}
    files = [file for file in sorted(place.rglob("*.parquet")) if file.parent not in inside]
    found: list[Rows] = []
    left_out: list[str] = []
    seen: dict[str, set[str | None]] = {}
    for source in (*directories, *files):
        try:
            rows = read_rows(source)
            runs = [msgspec.structs.replace(rows, frame=frame) for _, frame in rows.frame.groupby("run_id", sort=False)]
            sides = [side_of(run) for run in runs]
        except ArchbenchError as error:
            left_out.append(f"Left out: {error}.")
            continue
        for run, side in zip(runs, sides, strict=True):
            begun = seen.setdefault(side.run_ids[0], set())
            if side.started_at in begun:
                left_out.append(f"Left out: {source}: run {side.run_ids[0]} was read already.")
                continue
            if begun:
                # A run is named after its directory, and `--out nightly` names many alike: the path tells them apart.
                run = msgspec.structs.replace(run, frame=run.frame.assign(run_id=str(source)))
            begun.add(side.started_at)
            found.append(run)
    if not found:
        why = f" ({left_out[0]})" if left_out else "; `archbench run` makes them under results/"
        raise UsageError(f"{place}: holds no run that can be read{why}")
    return found, left_out


def history(place: str, runs: Sequence[Rows], notes: Sequence[str] = ()) -> History:
    """Each cell's series over `runs` (one run each, in any order), its changes, and the resets between them.

    A change is shown by `archbench.stats.changepoint` at a level of 1 % a series, and is at least `LEAST_EFFECT` large.
    """
    dated = ((_dated(side_of(rows), rows), rows) for rows in runs)
    known = dict(sorted(dated, key=lambda one: (one[0].started_at, one[0].run_id)))
    lanes: dict[tuple[str, int], list[DatedRun]] = {}
    for run in known:
        lanes.setdefault((run.hardware_class, run.protocol_version), []).append(run)
    series: list[Series] = []
    resets: list[Reset] = []
    for (hardware, _), lane in lanes.items():
        by_libraries = groupby(lane, key=lambda run: [getattr(run, name) for name in _RESETS])
        stretches = [list(stretch) for _, stretch in by_libraries]
        resets += [_reset(before[-1], after[0]) for before, after in pairwise(stretches)]
        series += _series(hardware, [[known[run] for run in stretch] for stretch in stretches])
    changes = [change for one in series for change in one.changes]
    searched = sum(len(one.points) >= FEWEST for one in series)
    return History(
        place=place,
        runs=tuple(known),
        series=tuple(series),
        resets=tuple(resets),
        steps=tuple(_steps(changes, known)),
        notes=(*notes, *_caution(searched, len(known), list(lanes))),
    )


def _dated(side: Side, rows: Rows) -> DatedRun:
    return DatedRun(
        run_id=side.run_ids[0],
        place=rows.label,
        started_at=side.started_at or "",
        hardware_class=side.hardware_class,
        protocol_version=side.protocol_version,
        torch_version=side.torch_version,
        driver_version=side.driver_version,
    )


def _reset(ours: DatedRun, theirs: DatedRun) -> Reset:
    changed = (
        f"{name.removesuffix('_version')} {getattr(ours, name) or 'unknown'} → {getattr(theirs, name) or 'unknown'}"
        for name in _RESETS
        if getattr(ours, name) != getattr(theirs, name)
    )
    return Reset(before_run=ours.run_id, after_run=theirs.run_id, what=", ".join(changed))


def _series(hardware: str, stretches: Sequence[Sequence[Rows]]) -> Iterator[Series]:
    points: dict[str, list[RunPoint]] = {}
    changes: dict[str, list[Change]] = {}
    for stretch in stretches:
        for cell, part in _points(stretch).items():
            points.setdefault(cell, []).extend(part)
            changes.setdefault(cell, []).extend(_changes(cell, hardware, part))
    for cell, whole in points.items():
        yield Series(cell_id=cell, hardware_class=hardware, points=tuple(whole), changes=tuple(changes[cell]))


def _points(stretch: Sequence[Rows]) -> dict[str, list[RunPoint]]:
    """Each cell's time in each run of one environment, corrected by one canary on the CPU."""
    import pandas as pd

    frame = pd.concat([undisturbed(rows.frame) for rows in stretch])
    cells = summarise(corrected(frame, float(frame["canary_s"].median()), without_canary(frame)))
    cells = cells[fit_rows(cells)]
    time = cells["rank_latency_s"].astype(float)
    time = time.fillna(cells["batch_size"].astype(float) / cells["rank_throughput_img_s"].astype(float))
    ends = [cells[name].astype(float).tolist() for name in ("rank_latency_low_s", "rank_latency_high_s")]
    points: dict[str, list[RunPoint]] = {}
    for run_id, cell, at, low, high in zip(cells["run_id"], cells["cell_id"], time.tolist(), *ends, strict=True):
        if math.isfinite(at) and at > 0:
            known = math.isfinite(low) and math.isfinite(high)
            point = RunPoint(run_id=run_id, time_s=at, low_s=low if known else None, high_s=high if known else None)
            points.setdefault(cell, []).append(point)
    return points


def _changes(cell: str, hardware: str, points: Sequence[RunPoint]) -> list[Change]:
    if len(points) < FEWEST:
        return []
    found = change_points(np.log([point.time_s for point in points]))
    return [
        Change(
            cell_id=cell,
            hardware_class=hardware,
            before_run=points[one.index - 1].run_id,
            after_run=points[one.index].run_id,
            before_s=math.exp(one.before),
            after_s=math.exp(one.after),
            p=one.p,
            p_ranks=one.p_ranks,
            votes=one.votes,
            voters=one.voters,
        )
        for one in found
        if abs(one.after - one.before) >= math.log1p(LEAST_EFFECT)
    ]


def _steps(changes: Sequence[Change], known: Mapping[DatedRun, Rows]) -> Iterator[JointChange]:
    """Changes by the runs between which they happened: a cause mostly shows in several cells at once."""
    named = {run.run_id: run for run in known}
    together: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        together.setdefault((change.before_run, change.after_run), []).append(change)
    for before, after in sorted(together, key=lambda pair: named[pair[1]].started_at):
        ours, theirs = known[named[before]], known[named[after]]
        yield JointChange(
            before=named[before],
            after=named[after],
            changes=tuple(sorted(together[before, after], key=lambda change: -abs(math.log(1 + change.change)))),
            also=tuple(differences(ours, theirs, side_of(ours), side_of(theirs))),
        )


def _caution(searched: int, runs: int, lanes: Sequence[tuple[str, int]]) -> Iterator[str]:
    if len(lanes) > 1:
        kinds = "; ".join(f"{hardware}, protocol {protocol}" for hardware, protocol in lanes)
        yield f"Runs that cannot be compared are kept apart: {kinds}."
    if searched:
        yield (
            f"{searched:,} series were searched by two detectors at a level of {LEVEL:.0%} each, so "
            f"{searched * LEVEL:.1f} to {2 * searched * LEVEL:.1f} of them would show a change by chance. A change is "
            "a hint where to look: `archbench gate` on the two states decides."
        )
    else:
        yield (
            f"Too few runs: a change shows from {FEWEST} runs of one environment on, {SHORTEST_SEGMENT} before it and "
            f"{SHORTEST_SEGMENT} after; there are {runs} runs in all."
        )
