"""Networks that do to their process what their options say: `{act: segfault, at: step}`. Run for real, by name."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import torch
from torch import Tensor, nn


class UnspeakableError(Exception):
    """One whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(error: BaseException) -> None:
    raise error


def _recurse() -> None:
    _recurse()


def _replace_stdout() -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


def _fill(limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def _in_c() -> None:
    """Holds the interpreter's lock, as no `time.sleep` does."""
    ctypes.PyDLL(None).pause()


def _fork(times: int) -> None:
    for _ in range(times):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)


def _leave_threads() -> None:
    for _ in range(4):
        threading.Thread(target=time.sleep, args=(600,)).start()


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def _print(size: int) -> None:
    line = b"x" * (1 << 20)
    for _ in range(size >> 20):
        os.write(1, line)


def _vanish() -> None:
    """Its current directory is no more."""
    os.mkdir(f"gone{os.getpid()}")
    os.chdir(f"gone{os.getpid()}")
    os.rmdir(f"../gone{os.getpid()}")


ACTS: dict[str, Any] = {
    "nothing": lambda: None,
    "exit": lambda: os._exit(3),
    "exit 0": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "raise": lambda: _raise(RuntimeError("it \x1b[2J did\n::error::not \ud800 work")),
    "raise without words": lambda: _raise(UnspeakableError()),
    "raise for long": lambda: _raise(ValueError("x" * 10_000_000)),
    "no memory": lambda: _raise(MemoryError()),
    "recurse": _recurse,
    "hang": lambda: time.sleep(600),
    "spin": lambda: [None for _ in iter(int, 1)],
    "hang in C": _in_c,
    "fork": lambda: _fork(1),
    "fork often": lambda: _fork(20),
    "start others": lambda: subprocess.Popen(["sleep", "600"], start_new_session=True),
    "leave threads": _leave_threads,
    "close descriptors": lambda: os.closerange(0, 256),
    "close the printer": lambda: os.closerange(1, 3),
    "replace the printer": _replace_stdout,
    "ignore signals": _ignore_signals,
    "eat memory": lambda: _fill(6 << 30),
    "print": lambda: _print(1 << 30),
    "small files": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    "few descriptors": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)),
    "vanish": _vanish,
    "change the environment": os.environ.clear,
}


@torch.library.custom_op("archbench_faults::passed_on", mutates_args=())
def passed_on(x: Tensor, act: str) -> Tensor:
    """An operator of the user's that acts while it is compiled."""
    return x.clone()


@passed_on.register_fake
def _traced(x: Tensor, act: str) -> Tensor:
    if torch._guards.TracingContext.try_get() is not None:
        ACTS[act]()
    return torch.empty_like(x)


class Ill(nn.Module):
    def __init__(self, act: str, at: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )
        self.act, self.at = act, at

    def forward(self, x: Tensor) -> Tensor:
        if self.at == "compile":
            return self.body(passed_on(x, self.act))
        real = not x.is_meta and type(x) is Tensor
        if (self.at == "count" and not real) or (self.at == "step" and real and len(x) > 1):
            ACTS[self.act]()
        return self.body(x)


def make(act: str = "nothing", at: str = "step") -> nn.Module:
    """`at`: `build`, `count` (a pass without data), `compile`, or `step` (one of several images, with data)."""
    if at == "build":
        ACTS[act]()
    return Ill(act, at)
