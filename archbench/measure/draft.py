"""A row while it is being filled."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from archbench.model.reasons import explain, verdict_of
from archbench.model.record import Record, Status


class Draft:
    """Collects a cell's figures, labels and the reasons of its nulls; `finish` makes the frozen row."""

    def __init__(self, blank: Record) -> None:
        self._blank = blank
        self._figures: dict[str, object] = {}
        self._reasons: dict[str, None] = {}  # a set that keeps the order in which reasons arose
        self._started = time.perf_counter()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.phase = "build"

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

    def finish(self) -> Record:
        """The row of a cell that was measured, with its verdict."""
        return self._row("ok", verdict=verdict_of(self._reasons))

    def fail(self, status: Status, message: str) -> Record:
        """The row of a cell that could not be measured to the end: what was found, the phase, the cause."""
        line = " ".join(message.split())
        return self._row(status, error_phase=self.phase, error_message=line[:2000])

    def _row(self, status: Status, **more: object) -> Record:
        row = {**self._figures, **more}
        # Why a column is null is dropped where it was filled after all; a label may be called as a column is.
        reasons = (code for code in self._reasons if ":" not in code or row.get(code.partition(":")[0]) is None)
        return msgspec.structs.replace(
            self._blank,
            **row,
            status=status,
            reasons=tuple(reasons),
            started_at=self._started_at,
            duration_s=time.perf_counter() - self._started,
        )
