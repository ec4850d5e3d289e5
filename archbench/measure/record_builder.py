"""A row while it is being filled, and the raw timings behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import msgspec

from archbench.device.kind import Timing
from archbench.measure.device_time import DeviceTime
from archbench.measure.sampling import Sampled
from archbench.model.errors import escaped
from archbench.model.reasons import explain, verdict_of
from archbench.model.record import Experiment, Record, Sample, Status


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

    def fail(self, status: Status, message: str) -> Record:
        """The row of a cell that could not be measured to the end: what was found, the phase, the cause."""
        line = escaped(" ".join(message.split()))
        return self._row(status, error_phase=self.phase, error_message=line[:2000])

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

    def _sample(
        self,
        experiment: Experiment,
        block: int,
        timing: Timing,
        *,
        steps: int = 1,
        kept: bool = True,
    ) -> None:
        sample = Sample(
            cell_id=self._empty.cell_id,
            round=self._empty.round,
            visit=self._empty.visit,
            experiment=experiment,
            block=block,
            steps=steps,
            host_s=timing.host_s,
            device_s=timing.device_s,
            issue_s=timing.issue_s,
            kept=kept,
        )
        self._samples.append(sample)
