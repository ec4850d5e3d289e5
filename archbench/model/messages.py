"""What parent and worker say to each other: one JSON object a line, the same for every executor.

A worker greets with `Ready`. For each `Task` it starts a child, which answers `CellStarted`, `PhaseStarted` and
`CellFinished` for every cell, after a `Calibrated` where the task asks for it. The worker adds `ChildDied` where the
child did not live to say so itself, and `GroupFinished` at the end. The child of a task in a wave says `Waiting` before
it prepares a cell, and before it measures one, and sleeps until it is told to `Proceed`. There is no word for good-bye:
the worker ends, and its child with it, when its input is closed, which the kernel also does for a parent that was
killed.

For a `TurnTask` the child does one thing at a time, each when it is told to, and sleeps in between: it says `Surveyed`
unasked, then answers `Build` by `Built`, `WarmUp` by `Warmed`, `TakeTurn` by `TurnTaken` and `Finish` by
`CellFinished`, which it also says, and ends, as soon as anything fails. A `ProfileRequest` is answered by phases, then
by `ProfileDone` or `ProfileFailed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

from archbench.model.axes import Metric
from archbench.model.cell import Cell, Group
from archbench.model.counts import Carried
from archbench.model.environment import Calibration, Environment
from archbench.model.profile import Profile, StageProfile
from archbench.model.protocol import PROTOCOL_VERSION, Protocol
from archbench.model.record import Record, RunContext, Sample, Status

MESSAGE_VERSION = 4
"""
1  first version.
2  `TurnTask` and the words that belong to it.
3  `ProfileRequest` and its answers.
4  Waves: `Task.wave`, `Waiting` and `Proceed`; `StepGlimpsed`.
"""


class Task(Struct, frozen=True, kw_only=True, tag="task"):
    """Measure one group."""

    group: Group
    context: RunContext
    protocol: Protocol
    metrics: tuple[Metric, ...]
    elsewhere: tuple[Metric, ...] = ()
    """What the suite asks for besides, and another process measures."""
    percentiles: tuple[int, ...] = (90,)
    seed: int = 0
    allow_code: bool = False
    images: str | None = None
    """A folder of labelled ones."""
    carried: Carried = Carried()
    """What earlier processes found out of this network."""
    calibrate: bool = False
    """Let the device settle and measure its ceilings first: once a session."""
    wave: int = 0
    """Consecutive tasks of one number may compile side by side, where an executor has room for several; 0: alone."""


class TurnTask(Struct, frozen=True, kw_only=True, tag="turn-task"):
    """Make one cell ready to be timed block by block, in turns with other processes."""

    task: Task
    """Its group has one cell; its metrics are those that need no timing (`static`, `memory`)."""
    survey: bool = False
    """Predict the memory before anything is built: once a cell and side is enough."""

    @property
    def cell(self) -> Cell:
        return self.task.group.cells[0]


class ProfileRequest(Struct, frozen=True, kw_only=True, tag="profile"):
    """Profile one cell."""

    cell: Cell
    environment: Environment
    timing_s: float = 6.0
    """For all timed steps together, where enough of them fit: a profile is looked at, not gated on."""
    seed: int = 0
    allow_code: bool = False
    calibration: Calibration | None = None
    """The device's ceilings where they are known; else they are measured."""
    memory: bool = True
    """Follow live bytes over the step."""
    gradients: bool = True
    """Look at gradients at initialisation; of a training step alone."""
    stage: str = ""
    """The module that the user wants to see: refused before anything is timed where there is none."""
    trace: str | None = None
    """Where to write Chrome's JSON."""
    snapshot: str | None = None
    """Where to write CUDA's memory snapshot."""
    silence_s: float = 1800.0
    """Allowed for a phase. Compiling a large network, or one training step of it on one core, takes minutes."""


class Build(Struct, frozen=True, tag="build"):
    """Build the network and its inputs on the device. Needs no quiet."""


class WarmUp(Struct, frozen=True, kw_only=True, tag="warm-up"):
    """Make the first call and warm up; said once more, just warm up further. Needs the device for itself."""

    steps: int | None = None
    """So many steps, the same for all sides; `None`: until step times are level, as in `archbench run`."""
    rivals: tuple[int, ...] = ()
    """Processes that the device's monitor must not take for strangers."""


class TakeTurn(Struct, frozen=True, kw_only=True, tag="take-turn"):
    """Time one block. Needs the device for itself."""

    steps: int


class Finish(Struct, frozen=True, tag="finish"):
    """No more turns: give the row and end."""


class Proceed(Struct, frozen=True, kw_only=True, tag="proceed"):
    """Go on with what you wait for: prepare the next cell, or, with the device for yourself, measure it."""

    neighbours: int = 0
    """Processes that prepare beside this one."""
    rivals: tuple[int, ...] = ()
    """Processes that the device's monitor must not take for strangers."""
    follows: bool = False
    """Another has been measured until now, so that the device is warm."""


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


class Waiting(Struct, frozen=True, kw_only=True, tag="waiting"):
    """The child of a wave sleeps until it may prepare this cell, or, once that is done, measure it."""

    cell_id: str
    pid: int
    prepared: bool


class StepGlimpsed(Struct, frozen=True, kw_only=True, tag="step-glimpsed"):
    """A first figure for whoever waits, after a few steps, and once more when the cell is warm: nothing of it has been
    timed in earnest."""

    cell_id: str
    step_s: float
    """Median of the latest steps of the warm-up."""


class CellFinished(Struct, frozen=True, kw_only=True, tag="cell-finished"):
    """A cell's row, raw timings, and table of stages where that was asked for, whether it was measured or failed."""

    record: Record
    samples: tuple[Sample, ...] = ()
    profile: StageProfile | None = None
    found: Carried = Carried()
    """What the process found out and was not told: sent once for a network is enough."""


class ChildDied(Struct, frozen=True, kw_only=True, tag="child-died"):
    """The child ended in the middle of a group: killed, crashed, or past its deadline."""

    cell_id: str | None
    phase: str | None
    status: Status
    message: str


class Surveyed(Struct, frozen=True, kw_only=True, tag="surveyed"):
    """What is known before building; the child waits to be told to build."""

    cell_id: str
    pid: int
    predicted_peak_bytes: int | None = None
    """Of the cell's tensors; `None` where it was not asked for or cannot be told."""


class Built(Struct, frozen=True, kw_only=True, tag="built"):
    """The network lies on the device."""

    cell_id: str
    origin: str | None
    """The file of the package or module that the network came from."""


class Warmed(Struct, frozen=True, kw_only=True, tag="warmed"):
    """The cell is ready to be timed."""

    cell_id: str
    steps: int
    """Steps so far, the first call left out."""
    step_s: float
    """Median step over the last blocks, host's clock."""
    level: bool
    """False: step times still moved when the warm-up's time was up."""


class TurnTaken(Struct, frozen=True, kw_only=True, tag="turn-taken"):
    """One block was timed."""

    cell_id: str
    steps: int
    seconds: float
    """Of one step: the block's time on the host's clock over its steps, each waited for."""
    kept: bool
    """False where the device's monitor saw the block throttled or shared."""
    contention: float | None = None
    """Share of CPU time that others took; `None` on a GPU and where the system does not tell."""
    sm_clock_mhz: float | None = None


class ProfileDone(Struct, frozen=True, kw_only=True, tag="profile-done"):
    """The whole profile: the answer to a `ProfileRequest`, after its phases."""

    profile: Profile


class ProfileFailed(Struct, frozen=True, kw_only=True, tag="profile-failed"):
    """There is no profile. The message is one line and complete."""

    kind: Literal["usage", "unfit"]
    """Whose fault it is: the input's, or the machine's."""
    message: str


class GroupFinished(Struct, frozen=True, kw_only=True, tag="group-finished"):
    """Nothing more will come for this task."""


Event = Calibrated | CellStarted | PhaseStarted | StepGlimpsed | CellFinished
"""What a child says of a group, and all that an executor's caller gets to see."""

TurnEvent = Surveyed | Built | Warmed | TurnTaken
"""What a child says of a `TurnTask` besides."""

ChildEvent = Event | TurnEvent | Waiting | ProfileDone | ProfileFailed
Reply = Ready | ChildEvent | ChildDied | GroupFinished

TurnWord = Build | WarmUp | TakeTurn | Finish | Proceed
"""What a child that waits for its turns is told; a worker without one lets it pass, for it may have died meanwhile."""

Request = Task | TurnTask | ProfileRequest
FromParent = Request | TurnWord

encode = msgspec.json.Encoder().encode
decode_request: Callable[[bytes], FromParent] = msgspec.json.Decoder(FromParent).decode
decode_event: Callable[[bytes], ChildEvent] = msgspec.json.Decoder(ChildEvent).decode
decode_reply: Callable[[bytes], Reply] = msgspec.json.Decoder(Reply).decode
