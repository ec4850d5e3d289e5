"""What parent and worker say to each other: one JSON object a line, the same for every executor.

A worker greets with `Ready`. For each `Task` it starts a child, which answers `CellStarted`, `PhaseStarted` and
`CellFinished` for every cell, after a `Calibrated` where the task asks for it. The worker adds `ChildDied` where the
child did not live to say so itself, and `GroupFinished` at the end. There is no word for good-bye: the worker ends,
and its child with it, when its input is closed, which the kernel also does for a parent that was killed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from archbench.model.axes import Metric
from archbench.model.blank import RunContext
from archbench.model.calibration import Calibration
from archbench.model.cell import Group
from archbench.model.environment import Environment
from archbench.model.protocol import PROTOCOL_VERSION, Protocol
from archbench.model.record import Record, Sample, Status

MESSAGE_VERSION = 1


class Task(Struct, frozen=True, kw_only=True, tag="task"):
    """Measure one group."""

    group: Group
    context: RunContext
    protocol: Protocol
    metrics: tuple[Metric, ...]
    percentiles: tuple[int, ...] = (90,)
    seed: int = 0
    allow_code: bool = False
    calibrate: bool = False
    """Let the device settle and measure its ceilings first: once a session."""


class Ready(Struct, frozen=True, kw_only=True, tag="ready"):
    """The worker has imported torch and waits for work."""

    message_version: int = MESSAGE_VERSION
    protocol_version: int = PROTOCOL_VERSION
    archbench_version: str
    pid: int
    environment: Environment
    """The machine and the libraries as this interpreter sees them: two interpreters can have two versions of torch."""


class Calibrated(Struct, frozen=True, kw_only=True, tag="calibrated"):
    """The device's ceilings, from a child that was asked to measure them before its cells."""

    calibration: Calibration


class CellStarted(Struct, frozen=True, kw_only=True, tag="cell-started"):
    """The child begins a cell; it is killed unless the cell is finished within `deadline_s`."""

    cell_id: str
    deadline_s: float


class PhaseStarted(Struct, frozen=True, kw_only=True, tag="phase-started"):
    """The child enters a phase of the cell (`build`, `warmup`, `latency`, ...), so that a death can be placed."""

    cell_id: str
    phase: str


class CellFinished(Struct, frozen=True, kw_only=True, tag="cell-finished"):
    """A cell's row and raw timings, whether it was measured or failed."""

    record: Record
    samples: tuple[Sample, ...] = ()


class ChildDied(Struct, frozen=True, kw_only=True, tag="child-died"):
    """The child ended in the middle of a group: killed, crashed, or past its deadline."""

    cell_id: str | None
    phase: str | None
    status: Status
    message: str


class GroupFinished(Struct, frozen=True, kw_only=True, tag="group-finished"):
    """Nothing more will come for this task."""


Event = Calibrated | CellStarted | PhaseStarted | CellFinished
"""What a child says, and all that an executor's caller gets to see."""

Reply = Ready | Event | ChildDied | GroupFinished

encode = msgspec.json.Encoder().encode
decode_task: Callable[[bytes], Task] = msgspec.json.Decoder(Task).decode
decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode
decode_reply: Callable[[bytes], Reply] = msgspec.json.Decoder(Reply).decode
