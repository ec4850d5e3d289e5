"""Has a worker profile, which may die, fall silent or run out of memory without taking the command along."""

from __future__ import annotations

from collections.abc import Callable

from archbench.model.errors import UnfitError, UsageError
from archbench.model.messages import (
    CellStarted,
    ChildDied,
    PhaseStarted,
    ProfileDone,
    ProfileFailed,
    ProfileRequest,
)
from archbench.model.profile import Profile
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError


def run_profile(
    worker: WorkerClient, request: ProfileRequest, entered: Callable[[str], None] = lambda phase: None
) -> Profile:
    """Profile in a process of its own and return what it found; `entered` is told each phase.

    Raises `UsageError` for what the network itself does wrong, `UnfitError` where the machine gives out: no memory, a
    process that died or whose phase took longer than `request.silence_s`.
    """
    label, phase = request.cell.network.label, "start"
    worker.send(request)
    try:
        while True:
            match worker.receive(request.silence_s + HOST_GRACE_S):
                case CellStarted():
                    pass
                case PhaseStarted(phase=phase):
                    entered(phase)
                case ProfileDone(profile=profile):
                    worker.receive(HOST_GRACE_S)  # `GroupFinished`: nothing of it is left when the next one begins
                    return profile
                case ProfileFailed(kind=kind, message=message):
                    raise UsageError(message) if kind == "usage" else UnfitError(message)
                case ChildDied(status=status, message=message):
                    remedy = "; try a smaller --batch-size" if status == "oom" else ""
                    raise UnfitError(f"{label}: the process died in the phase {phase!r}: {message}{remedy}")
                case other:
                    raise UnfitError(f"{label}: the worker said {type(other).__name__} in the phase {phase!r}")
    except WorkerLostError as lost:
        raise UnfitError(f"{label}: lost in the phase {phase!r}: {lost.message}") from None
    except BaseException:
        worker.kill()
        raise
