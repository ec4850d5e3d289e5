"""Profiles in a fresh interpreter, which may die, fall silent or run out of memory without taking the command along."""

from __future__ import annotations

import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

import msgspec

from archbench.model.errors import UnfitError, UsageError
from archbench.model.profile import Profile
from archbench.model.profile_messages import PhaseEntered, ProfileDone, ProfileRequest, Reply, encode
from archbench.worker.death import LAST_WORDS_BYTES, explain, oom_kill_count
from archbench.worker.worker_process import kill_session

SILENCE_S = 1800.0
"""Between two messages. Compiling a large network, or one training step of it on one core, takes minutes."""
COMMAND = (sys.executable, "-m", "archbench.profiler")


def run_profile(
    request: ProfileRequest,
    *,
    entered: Callable[[str], None] = lambda phase: None,
    command: Sequence[str] = COMMAND,
    env: Mapping[str, str] | None = None,
    patience_s: float = SILENCE_S,
) -> Profile:
    """Profile in a process of its own and return what it found; `entered` is told each phase.

    Raises `UsageError` for what the network itself does wrong, `UnfitError` where the machine gives out: no memory, a
    process that died or said nothing for `patience_s`. Leaving by any exception ends the process and its offspring.
    """
    oom_kills = oom_kill_count()
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise, start_new_session=True
        )
        replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, replies), daemon=True).start()
        phase = "start"
        try:
            _ask(process, request)
            while (line := replies.get(timeout=patience_s)) is not None:
                reply = msgspec.json.decode(line, type=Reply)
                if isinstance(reply, PhaseEntered):
                    phase = reply.phase
                    entered(phase)
                elif isinstance(reply, ProfileDone):
                    return reply.profile
                else:
                    raise UsageError(reply.message) if reply.kind == "usage" else UnfitError(reply.message)
        except queue.Empty:
            raise UnfitError(
                f"{request.cell.network.label}: no word for {patience_s:g} s in the phase {phase!r}"
            ) from None
        except msgspec.MsgspecError as error:
            raise UnfitError(f"the profiling process said what is no message ({error})") from None
        finally:
            kill_session(process)
            exit_code = process.wait()
        status, message = explain(exit_code, _end_of(noise), oom_kill_count() - oom_kills)
        remedy = "; try a smaller --batch-size" if status == "oom" else ""
        raise UnfitError(f"{request.cell.network.label}: the process died in the phase {phase!r}: {message}{remedy}")


def _ask(process: subprocess.Popen[bytes], request: ProfileRequest) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(encode(request) + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: its end is noticed when it is listened to


def _read(process: subprocess.Popen[bytes], replies: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            replies.put(line)
    replies.put(None)


def _end_of(noise: BinaryIO) -> bytes:
    size = noise.seek(0, 2)
    noise.seek(max(0, size - LAST_WORDS_BYTES))
    return noise.read()
