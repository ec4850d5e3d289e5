"""`python -m archbench.profiler`: reads one request from its standard input, and writes phases and the outcome."""

from __future__ import annotations

import os
import sys
import traceback

import msgspec

from archbench.model.errors import UnfitError, UsageError
from archbench.model.profile_messages import PhaseEntered, ProfileDone, ProfileFailed, ProfileRequest, Reply, encode
from archbench.worker import preload
from archbench.worker.wire import Wire


def main() -> None:
    """Profile what is asked for. Every failure that is a Python exception becomes a message of one line."""
    wire = Wire()  # before anything is imported that might print
    line = wire.requests.next_line()
    if line is None:
        return
    request = msgspec.json.decode(line, type=ProfileRequest)
    phase = "start"

    def enter(name: str) -> None:
        nonlocal phase
        phase = name
        say(PhaseEntered(phase=name))

    def say(reply: Reply) -> None:
        os.write(wire.replies, encode(reply) + b"\n")

    preload.import_torch()
    try:
        from archbench.profiler.run import profile_cell

        profile = profile_cell(request, enter)
    except (UsageError, UnfitError) as error:
        say(ProfileFailed(kind="unfit" if isinstance(error, UnfitError) else "usage", message=str(error)))
    except Exception as error:  # the network's own code, a library's, or the device's
        traceback.print_exc()
        say(_failure(request, phase, error))
    else:
        say(ProfileDone(profile=profile))
    sys.stderr.flush()
    os._exit(0)  # taking torch down in good order takes half a second, and frees nothing that an end does not


def _failure(request: ProfileRequest, phase: str, error: Exception) -> ProfileFailed:
    from archbench.measure.cell_run import status_of
    from archbench.measure.workload import UnsupportedError

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


main()
