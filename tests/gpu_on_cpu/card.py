"""A card that is a CPU: one stream that runs behind its host, a context a process, memory, and the ways to fail.

It has a truth of its own. A kernel's work is done when it is launched, by the CPU, and takes the card `SLOWNESS` times
as long: an event's stamp, and what a wait waits for, follow from that. So on this card a step's device time is
`SLOWNESS` times its issue time. Memory is what the CPU's allocator holds (`ledger.c`).

The environment is the script:
    GPU_FAULTS=CELL|PHASE|KIND;...
                             for cells whose id contains CELL, from that phase on, the card is `lost`, hangs (`hang`)
                             or has no memory left (`oom`)
    GPU_PROFILES=1           how many sessions of the profiler see kernels (default: all)
    GPU_CAPABILITY=8.0       of an older card
    STUB_CONTEXTS=FOLDER     where each process with a context leaves its id, for NVML's stub to list
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

SLOWNESS = 1.5
CYCLES_PER_S = 1.98e9
MEMORY_BYTES = 80 * 2**30
CAPABILITY = tuple(map(int, os.environ.get("GPU_CAPABILITY", "9.0").split(".")))
SEGMENT = 2 * 2**20
"""The caching allocator takes memory from the driver in pieces of this size."""


class Ledger:
    """What the CPU's allocator holds for this process, and has held at most."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._live, self._peak = library.ledger_live, library.ledger_peak
        for call in (self._live, self._peak):
            call.restype = ctypes.c_size_t
        self.reset_peak = library.ledger_reset_peak
        self._limit = library.ledger_limit
        self._limit.argtypes = (ctypes.c_size_t,)
        self.passed = library.ledger_passed
        """Whether more was held than the latest limit, since it was set."""
        self._before = self._live()

    def live(self) -> int:
        return max(0, self._live() - self._before)

    def peak(self) -> int:
        return max(0, self._peak() - self._before)

    def limit(self, most: int) -> None:
        self._limit(self._before + most)


class Card:
    """What a process sees of the card."""

    def __init__(self) -> None:
        self._owner: int | None = None
        self._fault: str | None = None
        self._watched = False
        self._busy_until = 0.0
        self._launching_since: float | None = None
        self._idle = False
        """Nothing was launched, as far as one can tell, since the host last waited."""
        self.profiles = 0
        self.profiled = False
        """Whether the session that began last sees kernels."""

    @property
    def initialized(self) -> bool:
        return self._owner == os.getpid()

    def use(self) -> None:
        """Every call that needs a context begins here. Raises what CUDA raises once something has gone wrong."""
        self._own()
        if self._fault == "lost":
            raise RuntimeError("CUDA error: unspecified launch failure")
        if self._fault == "oom" or self.ledger.passed():
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def limit(self, most: int) -> None:
        """This process may hold so much from here on; what it held too much before is forgiven."""
        self._own()
        self.ledger.limit(most // SEGMENT * SEGMENT)
        self._watch_launches()

    def _own(self) -> None:
        if self._owner is None:
            self._owner = os.getpid()
            self.ledger = Ledger()
            self.reserved_floor = 0
            if folder := os.environ.get("STUB_CONTEXTS"):
                (Path(folder) / str(os.getpid())).touch()
        if self._owner != os.getpid():
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    def _watch_launches(self) -> None:
        """Launching a kernel fails as any call does."""
        if not self._watched:
            from torch.nn.modules.module import register_module_forward_pre_hook

            register_module_forward_pre_hook(lambda *_: self.use())
            self._watched = True

    def enter(self, cell_id: str, phase: str) -> None:
        """The measured cell is in that phase now: what the script has in store for it comes to pass."""
        for fault in filter(None, os.environ.get("GPU_FAULTS", "").split(";")):
            cell, where, kind = fault.split("|")
            if cell in cell_id and where == phase:
                self._fault = kind
                self._watch_launches()
                if kind == "lost":
                    os.environ["STUB_LOST_AFTER"] = "0"

    def launch(self, seconds: float) -> None:
        """A kernel of known length that costs the host nothing."""
        self._account()
        self._busy_until = max(self._busy_until, time.perf_counter()) + seconds

    def stamp(self) -> float:
        """When the card will have done all that was launched until now."""
        self.use()
        self._account()
        self._idle = False
        self._launching_since = time.perf_counter()
        self._busy_until = max(self._busy_until, self._launching_since)
        return self._busy_until

    def wait(self, until: float | None = None) -> None:
        """Until the card is done with what was launched, or with what was launched before a stamp."""
        self.use()
        while self._fault == "hang":
            time.sleep(1.0)
        if until is None:
            if not self._idle:
                self._account()
            until = self._busy_until
        while (left := until - time.perf_counter()) > 0:
            time.sleep(max(0.0, left - 2e-4))
        self._idle = True
        self._launching_since = time.perf_counter()

    def _account(self) -> None:
        """What the host did since the last event, or wait, was launching."""
        now = time.perf_counter()
        if self._launching_since is not None:
            self._busy_until = max(self._busy_until, self._launching_since) + SLOWNESS * (now - self._launching_since)
        self._launching_since = now


CARD = Card()


class Event:
    """`torch.cuda.Event`."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, **_: object) -> None:
        CARD.use()
        self._timed = enable_timing
        self._at: float | None = None

    def record(self, stream: object = None) -> None:
        self._at = CARD.stamp()

    def synchronize(self) -> None:
        CARD.wait(self._at or 0.0)

    def query(self) -> bool:
        CARD.use()
        return self._at is None or self._at <= time.perf_counter()

    def wait(self, stream: object = None) -> None:
        """One stream waits for itself."""

    def elapsed_time(self, end: Event) -> float:
        CARD.use()
        if self._at is None or end._at is None or not (self._timed and end._timed):
            raise RuntimeError("Both events must be recorded, with timing enabled")
        if not (self.query() and end.query()):
            raise RuntimeError("CUDA error: device not ready")
        return (end._at - self._at) * 1e3


class Stream:
    """`torch.cuda.Stream`: whichever is asked for, it is the only one."""

    cuda_stream = 0x5EA
    """The driver's handle of it."""

    def __init__(self, *_: object, **__: object) -> None:
        CARD.use()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record()
        return event

    def wait_stream(self, other: Stream) -> None: ...

    def wait_event(self, event: Event) -> None: ...

    def synchronize(self) -> None:
        CARD.wait()

    def query(self) -> bool:
        return True


class Graph:
    """`torch.cuda.CUDAGraph`: replaying takes the card as long as what was captured, and the host nothing."""

    seconds = 0.0

    def replay(self) -> None:
        CARD.use()
        CARD.launch(self.seconds)

    def reset(self) -> None: ...


class Capture:
    """`torch.cuda.graph`."""

    def __init__(self, graph: Graph, *_: object, **__: object) -> None:
        self._graph = graph

    def __enter__(self) -> None:
        CARD.use()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._graph.seconds = SLOWNESS * (time.perf_counter() - self._start)
