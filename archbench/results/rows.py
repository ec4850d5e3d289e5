"""Which stored rows can be, and how far each may be trusted: what no row can tell of itself.

A file that is whole as its checksum goes may still hold rows that cannot be, as another program wrote it, or wrote it
anew: these are named and left out, so that no reader has to expect a latency of -1 or of infinity. And only a whole run
can tell whether the machine was at its usual speed when a row was measured.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, structs

from archbench.device.kind import kind_named
from archbench.model import axes
from archbench.model.counts import read_lines
from archbench.model.errors import UsageError, escaped
from archbench.model.protocol import Protocol
from archbench.model.record import STATUSES, VERDICTS, Verdict, columns
from archbench.results.files import read_struct
from archbench.results.journal import REQUIRED

log = logging.getLogger(__name__)

_LONGEST_S = 1e9
"""Thirty years: what is longer was not measured."""
_LARGEST = 1e18
"""Of any real number: the square of it, too, is one."""
_NAMED = 3
_CHOICES = {
    "status": STATUSES,
    "verdict": VERDICTS,
    "phase": axes.PHASES,
    "precision": axes.PRECISIONS,
    "compile_mode": axes.COMPILE_MODES,
    "memory_format": axes.MEMORY_FORMATS,
    "device": axes.DEVICE_KINDS,
}
_MAY_BE_ZERO = frozenset({"duration_s", "issue_s", "device_s"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def sound(table: pa.Table, place: Path) -> pa.Table:
    """`table` less its rows that cannot be, the first of which a warning names with what is wrong.

    Control characters in texts, which could steer a terminal and end the plotting library's process, are escaped.
    """
    bad: dict[int, str] = {}
    for name in table.column_names:
        if not _all_can_be(name, table[name]):
            for row, value in enumerate(table[name].to_pylist()):
                if (problem := _problem(name, value)) is not None:
                    bad.setdefault(row, f"{name} {problem}")
    if bad:
        for row, problem in sorted(bad.items())[:_NAMED]:
            key = ", ".join(
                f"{name} {_escaped(str(table[name][row].as_py()))}"
                for name in ("cell_id", "round", "visit")
                if name in table.column_names
            )
            log.warning("%s: a row cannot be and is left out: %s (%s)", place, problem, key)
        if len(bad) > _NAMED:
            log.warning("%s: %d further rows likewise", place, len(bad) - _NAMED)
        table = table.take(pa.array([row for row in range(table.num_rows) if row not in bad], pa.int64()))
    for position, field in enumerate(table.schema):
        if (
            pa.types.is_string(field.type)
            and table[field.name].null_count < table.num_rows
            and pc.any(pc.match_substring_regex(table[field.name], _CONTROL.pattern)).as_py()
        ):
            texts = [None if text is None else _escaped(text) for text in table[field.name].to_pylist()]
            table = table.set_column(position, field, pa.array(texts, pa.string()))
    return table


def _all_can_be(name: str, column: pa.ChunkedArray) -> bool:
    """Told by the extremes, or by the different values of a text. No array from a list: that would import pandas."""
    if column.null_count and name in REQUIRED:
        return False
    if column.null_count == len(column):  # of many columns in most runs
        return True
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return False
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return all(_problem(name, value) is None for value in pc.min_max(column).as_py().values() if value is not None)
    if name in _CHOICES or name in _TEXTS:
        return all(_problem(name, text) is None for text in pc.unique(column).to_pylist() if text is not None)
    return True


def _problem(name: str, value: Any) -> str | None:
    """What is wrong with a value; `None` where nothing is."""
    if value is None:
        return "is null" if name in REQUIRED else None
    if name in _CHOICES:
        return None if value in _CHOICES[name] else "is none of its values"
    if name in _TEXTS:
        return None if _can_be_read(name, value) else "cannot be read"
    if isinstance(value, float) and not abs(value) < _LARGEST:
        return "is no number that was measured"
    known = columns().get(name)  # of rows; what is timed in samples goes by its name
    unit = known.unit if known else "s" if name.endswith("_s") else None
    if unit == "s" and value > _LONGEST_S:
        return "is longer than thirty years"
    if name == "batch_size" or (unit in ("s", "img/s") and name not in _MAY_BE_ZERO):
        return None if value > 0 else "is not positive"
    if (isinstance(value, int) or unit) and unit != "points":
        return None if 0 <= value < _LARGEST else "is negative, or too large"
    return None


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: escaped(found[0]), text)


def _can_be_read(name: str, text: str) -> bool:
    try:
        return _TEXTS[name](text)
    except (ValueError, RecursionError):
        return False


_TEXTS: dict[str, Callable[[str], bool]] = {
    "started_at": lambda text: 1970 <= datetime.fromisoformat(text).year <= 2200,
    "applied": lambda text: isinstance(json.loads(text), dict),
    "predicted_peak_lines": lambda text: bool(read_lines(text)),
}


_EACH = (
    *("run_id", "machine", "canary_s", "throughput_canary_s", "sm_clock_mhz", "verdict", "reasons"),
    *("protocol_version", "device"),
)
_TOLD_BY = ("run_id", "machine", "cell_id", "latency_median_s", "throughput_img_s", "status", "verdict")
JUDGED_BY = tuple(dict.fromkeys((*_EACH, *_TOLD_BY)))
"""The columns that `judge` reads."""
CANARY_SETTLES_SINCE = 2
"""The protocol version from which a canary does not depend on what ran before it. On a CPU an earlier one says less of
the machine than of the network beside it (28 % between vgg16 and mobilenet_v2), so that raw figures are the better."""
DISTURBED = 2.0
"""A speed index this far from 1, either way, is no drift to be divided out: the row is invalid. Seen at 22 on two
cores, where a neighbour made the canary's two threads wait for each other while the network's steps took four times as
long."""
OLD_CANARY = "old_canary"
FAR = "far_from_class"


class Judgement(Struct, frozen=True):
    """How far a row may be trusted, seen beside all others of its run."""

    speed_index: float | None
    """The canary's time over its median in the run; `None` for a row without a canary."""
    verdict: Verdict | None
    reasons: tuple[str, ...]


def judge(rows: pa.Table, drift_limit: float) -> list[Judgement]:
    """The rows' verdicts and reasons, each seen beside all others; `rows` has `JUDGED_BY` and all rows of its runs.

    Each device of a run has its own usual speed: a row is held against those of its `machine`. Rows of a device that
    is far from the others of its run (`archbench.stats.variance`) get the reason `far_from_class`, and `suspect`.
    A row whose canary left the band `drift_limit` around the run's median gets the reason `drift`, and `suspect` where
    it was `ok`; one whose canary is off by the factor `DISTURBED` gets the reason `disturbed`, and `invalid`. A row
    without a verdict keeps that. On a GPU a power cap lowers the clock, which is normal under load: where the SM clock
    explains the canary, a row that was capped, or is faster than rows that were, keeps its verdict, too.
    A CPU's canary of before `CANARY_SETTLES_SINCE` only tells who was disturbed: the row is labelled `old_canary`, and
    has no speed.
    """
    columns = [rows[name].to_pylist() for name in _EACH]
    far = _far(rows)
    canaries: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    clocks: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    capped = set()
    known = []
    for run_id, machine, canary, beside, clock, verdict, reasons, version, device in zip(*columns, strict=True):
        canary, codes = canary or beside, tuple(reasons or ())
        if canary is not None and kind_named(device).follows_canary and version < CANARY_SETTLES_SINCE:
            codes = (*codes, OLD_CANARY)
        here = run_id, machine
        if here in far and verdict is not None:
            verdict, codes = ("suspect" if verdict == "ok" else verdict), (*codes, FAR)
        if canary is not None:
            canaries[here].append(canary)
        if clock:
            clocks[here].append(clock)
        if "power_capped" in codes:
            capped.add(here)
        known.append((here, canary, clock, verdict, codes))
    usual_canary = {here: median(values) for here, values in canaries.items()}
    usual_clock = {here: median(values) for here, values in clocks.items()}
    judged = []
    for here, canary, clock, verdict, codes in known:
        speed = None if canary is None else canary / usual_canary[here]
        paced = None if speed is None or not clock else speed * clock / usual_clock[here]
        as_capped = "power_capped" in codes or (here in capped and speed is not None and speed < 1)
        if OLD_CANARY in codes:
            judged.append(structs.replace(_judgement(speed, verdict, codes, DISTURBED - 1), speed_index=None))
            continue
        explained = as_capped and paced is not None and abs(paced - 1) <= drift_limit
        judged.append(Judgement(speed, verdict, codes) if explained else _judgement(speed, verdict, codes, drift_limit))
    return judged


def _far(rows: pa.Table) -> set[tuple[str, str]]:
    """The devices, each with its run, that are far from the other devices of the run."""
    if len(rows["machine"].unique()) <= 2:  # of two nobody can say which; no import for the run of one
        return set()
    from archbench.stats.variance import told_by

    times: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for run, machine, cell, latency, rate, status, verdict in zip(
        *(rows[name].to_pylist() for name in _TOLD_BY), strict=True
    ):
        if machine and (latency or rate) and status == "ok" and verdict != "invalid":
            times[run].append((cell, machine, latency or 1 / rate))
    found = ((run, told_by(of_run)) for run, of_run in times.items())
    return {(run, machine) for run, devices in found if devices for machine in devices.far}


def _judgement(speed: float | None, verdict: Verdict | None, reasons: tuple[str, ...], limit: float) -> Judgement:
    if speed is None or verdict is None or abs(speed - 1) <= limit:
        return Judgement(speed, verdict, reasons)
    disturbed = not 1 / DISTURBED <= speed <= DISTURBED
    worse: Verdict = "invalid" if disturbed else ("suspect" if verdict == "ok" else verdict)
    code = "disturbed" if disturbed else "drift"
    return Judgement(speed, worse, reasons if code in reasons else (*reasons, code))


class _Judging(Struct):
    """The part of a stored suite that says how rows are judged; readable in suites of other versions too."""

    protocol: dict[str, float] = {}


def drift_limit(run: Path) -> float:
    """The limit that the suite in a run's directory sets, else the protocol's own; that also where it is damaged."""
    default = Protocol().drift_limit
    stored = run / "suite.json"
    if not stored.exists():
        return default  # a results file that travels alone
    try:
        return read_struct(stored, _Judging).protocol.get("drift_limit", default)
    except UsageError as error:
        log.warning("%s; rows are judged by the usual limit of drift, %g", error, default)
        return default
