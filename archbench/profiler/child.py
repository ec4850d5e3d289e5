"""A profile inside a worker's child: phases as they begin, then the profile, or one line on why there is none."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from archbench.measure.cell_run import status_of
from archbench.measure.workload import UnsupportedError
from archbench.model.errors import UnfitError, UsageError
from archbench.model.messages import CellStarted, ChildEvent, PhaseStarted, ProfileDone, ProfileFailed, ProfileRequest
from archbench.profiler.run import profile_cell


def profile(request: ProfileRequest, send: Callable[[ChildEvent], None]) -> None:
    """Profile what is asked for. Every failure that is a Python exception becomes a message of one line."""
    cell_id = request.cell.cell_id
    phase = "start"

    def enter(name: str) -> None:
        nonlocal phase
        phase = name
        send(CellStarted(cell_id=cell_id, deadline_s=request.silence_s))  # the deadline is of each phase
        send(PhaseStarted(cell_id=cell_id, phase=name))

    try:
        done = profile_cell(request, enter)
    except (UsageError, UnfitError) as error:
        send(ProfileFailed(kind="unfit" if isinstance(error, UnfitError) else "usage", message=str(error)))
    except Exception as error:  # the network's own code, a library's, or the device's
        traceback.print_exc()
        send(_failure(request, phase, error))
    else:
        send(ProfileDone(profile=done))


def _failure(request: ProfileRequest, phase: str, error: Exception) -> ProfileFailed:
    cell = request.cell
    said = " ".join(str(error).split()) or "no message"
    if status_of(error) == "oom":
        message = (
            f"{cell.network.label}: out of memory on {request.environment.device} in the phase {phase!r} at batch size "
            f"{cell.batch_size}: {said}; try a smaller --batch-size"
        )
        return ProfileFailed(kind="unfit", message=message)
    if isinstance(error, UnsupportedError):
        return ProfileFailed(kind="usage", message=f"{cell.network.label}: {said}")
    what = f"{cell.network.label} failed in the phase {phase!r}: {type(error).__name__}: {said}"
    return ProfileFailed(kind="usage", message=what)
