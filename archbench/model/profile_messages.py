"""What the command and its profiling process say to each other: one request in, then phases, then one outcome."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from archbench.model.calibration import Calibration
from archbench.model.cell import Cell
from archbench.model.environment import Environment
from archbench.model.profile import Profile


class ProfileRequest(Struct, frozen=True, kw_only=True):
    """Profile one cell."""

    cell: Cell
    environment: Environment
    threads: int | None = None
    """Intra-op threads; `None` for the default."""
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
    trace: str | None = None
    """Where to write Chrome's JSON."""
    snapshot: str | None = None
    """Where to write CUDA's memory snapshot."""


class PhaseEntered(Struct, frozen=True, kw_only=True, tag="phase"):
    """What is being done now."""

    phase: str


class ProfileDone(Struct, frozen=True, kw_only=True, tag="done"):
    """The whole profile."""

    profile: Profile


class ProfileFailed(Struct, frozen=True, kw_only=True, tag="failed"):
    """There is no profile. The message is one line and complete."""

    kind: Literal["usage", "unfit"]
    """Whose fault it is: the input's, or the machine's."""
    message: str


Reply = PhaseEntered | ProfileDone | ProfileFailed

encode = msgspec.json.Encoder().encode
