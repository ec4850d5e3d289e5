"""What only a whole run can tell of a row: whether the machine was at its usual speed when the row was measured."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from statistics import median

import pyarrow as pa
from msgspec import Struct, structs

from archbench.device.kind import kind_named
from archbench.model.derived import DISTURBED
from archbench.model.errors import UsageError
from archbench.model.protocol import Protocol
from archbench.model.record import Verdict
from archbench.results.files import read_struct

log = logging.getLogger(__name__)

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
