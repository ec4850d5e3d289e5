"""Module ranges for the backward pass and the device, added to a Chrome trace as tracks of their own.

Forward ranges are recorded while the step runs. Backward, autograd's own frame begins before any hook of ours, so a
range from hook to hook would cross it; but the trace tells which forward operator made each node (its sequence
number), and so, afterwards, whose the time was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from archbench.profiler.operators import RANGE

_TRACK = 1 << 20
"""Added to a thread's number for its track of modules: no thread has a number as high."""
_ENGINE = "autograd::engine::evaluate_function"


class Slice(Struct, frozen=True):
    """A stretch of one thread. Microseconds, as in the file."""

    start: float
    end: float
    name: str


def add_module_tracks(path: Path) -> int:
    """Rewrite the trace at `path` with the tracks; return how many slices were added."""
    document = msgspec.json.decode(path.read_bytes())
    events: list[dict[str, Any]] = document["traceEvents"]
    threads = {(event["pid"], event["tid"]) for event in events if str(event.get("name", "")).startswith(_ENGINE)}
    owners = _owners(events)
    added: list[dict[str, Any]] = []
    for pid, tid in threads:
        track = {"pid": pid, "tid": tid + _TRACK}
        slices = list(_merged(_backward(events, pid, tid, owners)))
        name = {"ph": "M", "name": "thread_name", "args": {"name": f"modules, backward (thread {tid})"}}
        added.append(name | track)
        added += [
            {"ph": "X", "cat": "module", "name": one.name, "ts": one.start, "dur": one.end - one.start} | track
            for one in slices
        ]
    events += added
    path.write_bytes(msgspec.json.encode(document))
    return sum(event["ph"] == "X" for event in added)


def _owners(events: Sequence[dict[str, Any]]) -> dict[int, str]:
    """By sequence number, the innermost module range around the forward operator that dealt it out."""
    owners: dict[int, str] = {}
    open_ranges: dict[tuple[Any, Any], list[Slice]] = {}
    timed = [event for event in events if event.get("ph") == "X" and "ts" in event]
    # Of two that begin together the longer is around the other.
    for event in sorted(timed, key=lambda event: (event["ts"], -event.get("dur", 0.0))):
        name = str(event.get("name", ""))
        ranges = open_ranges.setdefault((event["pid"], event["tid"]), [])
        while ranges and ranges[-1].end <= event["ts"]:
            ranges.pop()
        if name.startswith(RANGE) and event.get("cat") == "user_annotation":
            ranges.append(Slice(event["ts"], event["ts"] + event["dur"], name.removeprefix(RANGE)))
            continue
        number = event.get("args", {}).get("Sequence number")
        is_forward = number is not None and not event["args"].get("Fwd thread id") and not name.startswith(_ENGINE)
        if is_forward and ranges:
            # The number is a peek at the next one: an operator that makes no node shows its successor's, and the
            # maker of the node, which comes later, is right. Numbers start anew with no step.
            owners[number] = ranges[-1].name
    return owners


def _backward(events: Sequence[dict[str, Any]], pid: Any, tid: Any, owners: dict[int, str]) -> Iterator[Slice]:
    for event in events:
        if (event.get("pid"), event.get("tid")) == (pid, tid) and str(event.get("name", "")).startswith(_ENGINE):
            number = event.get("args", {}).get("Sequence number")
            if number in owners:
                yield Slice(event["ts"], event["ts"] + event["dur"], f"{RANGE}{owners[number]} backward")


def _merged(slices: Iterator[Slice]) -> Iterator[Slice]:
    """Neighbours of one name as one."""
    last: Slice | None = None
    for one in sorted(slices, key=lambda one: one.start):
        if last is not None and last.name == one.name:
            last = Slice(last.start, max(last.end, one.end), last.name)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
