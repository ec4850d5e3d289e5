"""A worker from its greeting to its end, around whatever does the measuring."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from archbench import __version__
from archbench.model.environment import Environment
from archbench.model.messages import GroupFinished, Ready, Request, TurnWord, decode_request
from archbench.worker.child import Measure, decode, run
from archbench.worker.wire import Wire


def serve(
    wire: Wire,
    measure: Measure,
    *,
    environment: Environment,
    alone: bool,
    before_fork: Callable[[Request], None] = lambda request: None,
) -> NoReturn:
    """Greet the parent, serve it until it closes its end, and end this process.

    With `alone` one task is measured in this very process: where there is no fork, its parent starts a fresh
    interpreter for every group and watches it as a host would.
    """
    wire.send(Ready(archbench_version=__version__, pid=os.getpid(), environment=environment))
    if alone:
        exit_code = _serve_one(wire, measure)
    else:
        from archbench.worker.host import Host  # needs Linux

        Host(wire, measure, before_fork).serve()
        exit_code = 0
    sys.stderr.flush()
    os._exit(exit_code)  # taking torch down in good order takes half a second, and frees nothing that an end does not


def _serve_one(wire: Wire, measure: Measure) -> int:
    line = wire.requests.next_line()
    if line is None:
        return 0
    request = decode_request(line)
    assert isinstance(request, Request), "a parent begins with a task"
    words: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def hear() -> TurnWord | None:
        return decode(words.get())

    # It sleeps in one read of a pipe, so that it takes nothing from what is being timed.
    threading.Thread(target=_listen_to_parent, args=(wire, words), daemon=True).start()
    exit_code = run(request, measure, wire.send, hear)
    if exit_code == 0:
        wire.send(GroupFinished())
    return exit_code


def _listen_to_parent(wire: Wire, words: queue.SimpleQueue[bytes]) -> None:
    """Keep what the parent says for whoever wants to hear it; end this process with the parent."""
    while (line := wire.requests.next_line()) is not None:
        words.put(line)
    os._exit(1)
