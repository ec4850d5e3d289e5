"""A row while it is being filled, and the raw timings behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import msgspec
import torch

from archbench.device.kind import ClockError, Timing
from archbench.measure import compiler
from archbench.measure.device_time import DeviceTime
from archbench.measure.sampling import Sampled
from archbench.model.errors import UnsupportedError, UsageError, escaped, words_of
from archbench.model.reasons import explain, verdict_of
from archbench.model.record import Experiment, Record, Sample, Status

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How allocators other than torch's own say it."""
_SPEAK_FOR_THEMSELVES = (torch.OutOfMemoryError, MemoryError, UnsupportedError, UsageError, ClockError)
"""Errors of which the type need not be named."""


class RecordBuilder:
    """Collects a cell's figures, labels, the reasons of its nulls, and its timings; `finish` makes the frozen row."""

    def __init__(self, empty: Record) -> None:
        self._empty = empty
        self._figures: dict[str, object] = {}
        self._reasons: dict[str, None] = {}  # a set that keeps the order in which reasons arose
        self._samples: list[Sample] = []
        self._started = time.perf_counter()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.phase = "build"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no time is spent on the cell."""
        before = time.perf_counter()
        yield
        self._started += time.perf_counter() - before

    def set(self, **figures: object) -> None:
        """Fill columns. A figure that is None is left null; say why with `null`."""
        self._figures.update(figures)

    def null(self, code: str, *columns: str) -> None:
        """Say why columns hold nothing."""
        for column in columns:
            self.flag(f"{column}:{code}")

    def flag(self, code: str) -> None:
        """Add a reason or a label. Raises `KeyError` for an unknown code."""
        explain(code)
        self._reasons[code] = None

    def add_timings(self, sampled: Sampled, experiment: Literal["latency", "throughput"]) -> None:
        """Take in every timing of an experiment, those that the monitor rejected included."""
        for block, stretch in enumerate(sampled.stretches):
            for timing in stretch.timings:
                self._sample(experiment, block, timing, steps=sampled.steps, kept=stretch.kept)

    def add_device_times(self, found: DeviceTime) -> None:
        """Take in the times on the device."""
        for block, one in enumerate(found.samples):
            timing = Timing(one.host_s, one.device_s, one.issue_s)
            self._sample("device_time", block, timing, steps=found.steps, kept=one.held)

    def add_canaries(self, seconds: Sequence[float]) -> None:
        """Take in the canary's times, in seconds."""
        for block, one in enumerate(seconds):
            self._sample("canary", block, Timing(one))

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The timings so far, in the order in which they were taken in: every statistic can be computed again."""
        return tuple(self._samples)

    def finish(self) -> Record:
        """The row of a cell that was measured, with its verdict."""
        return self._row("ok", verdict=verdict_of(self._reasons))

    def fail(self, error: Exception) -> Record:
        """The row of a cell that could not be measured to the end: what was found, the phase, the cause."""
        said = words_of(error)
        if not (isinstance(error, _SPEAK_FOR_THEMSELVES) and said):  # Python's own MemoryError says nothing
            said = f"{type(error).__name__}: {said}" if said else type(error).__name__
        line = escaped(" ".join(said.split()))
        return self._row(status_of(error), error_phase=self.phase, error_message=line[:2000])

    def _row(self, status: Status, **more: object) -> Record:
        row = {**self._figures, **more}
        # Why a column is null is dropped where it was filled after all; a label may be called as a column is.
        reasons = (code for code in self._reasons if ":" not in code or row.get(code.partition(":")[0]) is None)
        return msgspec.structs.replace(
            self._empty,
            **row,
            status=status,
            reasons=tuple(reasons),
            started_at=self._started_at,
            duration_s=time.perf_counter() - self._started,
        )

    def _sample(self, experiment: Experiment, block: int, timing: Timing, *, steps: int = 1, kept: bool = True) -> None:
        place = {name: getattr(self._empty, name) for name in ("cell_id", "round", "visit")}
        times = msgspec.structs.asdict(timing)
        self._samples.append(Sample(**place, **times, experiment=experiment, block=block, steps=steps, kept=kept))


def status_of(error: Exception) -> Status:
    """Tell what a network's exception means for its row, looking through what compilers wrap around it.

    The CPU's allocator and CUDA's libraries raise a plain RuntimeError; a missing toolchain is the machine's lack.
    """
    if isinstance(error, UnsupportedError):
        return "unsupported"
    if isinstance(error, (UsageError, ClockError)):
        return "oom" if isinstance(error.__cause__, MemoryError) else "error"
    if any(_says_out_of_memory(cause) for cause in (error, error.__cause__, getattr(error, "inner_exception", None))):
        return "oom"
    return "unsupported" if compiler.lacks_toolchain(error) else "error"


def _says_out_of_memory(cause: object) -> bool:
    if isinstance(cause, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(cause, RuntimeError) and any(text in words_of(cause) for text in _OUT_OF_MEMORY)
