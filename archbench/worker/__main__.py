"""`python -m archbench.worker`: measures groups for a parent, which it talks to over its standard input and output."""

from __future__ import annotations

import argparse
import signal

from archbench.device import collect_environment
from archbench.model.messages import ProfileRequest, Request
from archbench.worker.child import Receive, Send, Wire
from archbench.worker.host import serve
from archbench.worker.preload import import_for, import_torch


def main() -> None:
    """Import what measuring needs, then serve."""
    parser = argparse.ArgumentParser(prog="python -m archbench.worker", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N: what the greeting's environment is about")
    arguments = parser.parse_args()

    # Ctrl-C goes to every process of a terminal's foreground group: the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = Wire()  # before anything is imported that might print
    environment = collect_environment(arguments.device)
    import_torch()
    from archbench.measure import measure  # it imports torch, which `import_torch` has made safe

    def do(request: Request, send: Send, receive: Receive) -> None:
        if isinstance(request, ProfileRequest):
            from archbench.profiler.run import profile

            profile(request, send)
        else:
            measure(request, send, receive)

    serve(wire, do, environment=environment, before_fork=import_for)


main()
