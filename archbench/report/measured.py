"""What a report is about: one run's outcomes, with the suite and the machine behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from archbench.model.axes import COMPILE_MODES, MEMORY_FORMATS, PRECISIONS
from archbench.model.environment import Environment
from archbench.model.reasons import REASONS
from archbench.model.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

    from archbench.decide.summary import NoiseFloor

_LONGEST_NAME = 48
"""Characters of a name in a table; beyond, its middle gives way: both ends tell networks apart."""


class Outcome(Struct, frozen=True):
    """What became of one cell: a row of the summary, as far as a report needs it. `None` = not measured.

    Latency and throughput are the figures to rank by, p95 in the same terms: corrected for drift where those are.
    """

    variant: str
    setting: str | None
    phase: str
    precision: str
    memory_format: str
    compile_mode: str
    batch_size: int
    input_size: int | None
    params: int | None
    macs: int | None
    top1: float | None
    accuracy_source: str | None
    status: str
    verdict: str | None
    reasons: tuple[str, ...]
    processes: int
    processes_used: int
    error_phase: str | None
    error_message: str | None
    rank_latency_s: float | None
    rank_latency_low_s: float | None
    rank_latency_high_s: float | None
    latency_p95_s: float | None
    rank_throughput_img_s: float | None
    rank_throughput_low_img_s: float | None
    rank_throughput_high_img_s: float | None
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None

    @property
    def network(self) -> str:
        """The network's name, short enough for a table."""
        if len(self.variant) <= _LONGEST_NAME:
            return self.variant
        half = _LONGEST_NAME // 2
        return f"{self.variant[: half - 1]}…{self.variant[-half:]}"

    @property
    def setting_label(self) -> str:
        """The suite's name for the cell's toggles, or the toggles themselves where it has none."""
        return self.setting or toggles_label(self.precision, self.memory_format, self.compile_mode)

    @property
    def is_plain(self) -> bool:
        """Measured under the setting that others are held against: fp32, contiguous, not compiled."""
        return (self.precision, self.memory_format, self.compile_mode) == ("fp32", "contiguous", "off")

    @property
    def verdict_label(self) -> str:
        """`ok`, `suspect: contended`, `oom`: the status of a cell that failed, else its verdict with its reasons."""
        if self.status != "ok":
            return self.status
        # A code that this version does not know still has to be seen; those behind a column explain nulls.
        codes = [code for code in self.reasons if ":" not in code and _effect(code) != "label"]
        if self.processes_used < self.processes:
            codes.append(f"{self.processes_used} of {self.processes} processes")
        labels = [code for code in self.reasons if _effect(code) == "label"]
        return "; ".join([f"{self.verdict}: {', '.join(codes)}" if codes else str(self.verdict), *labels])


class Measured(Struct, frozen=True, kw_only=True):
    """One run, read and summarised."""

    path: Path
    run_id: str
    suite: Suite
    environment: Environment
    outcomes: tuple[Outcome, ...]
    rounds: int
    corrected: bool
    """Some latencies are corrected for the machine's drift."""
    drift: tuple[float, float] | None
    """5th and 95th percentile of the canary's time over its median, less 1; `None` without a canary."""
    floor: NoiseFloor | None
    """The twin's spread; `None` without a twin."""
    begun: str | None
    """UTC, ISO 8601."""
    spent_s: float
    """Time spent on all rows together."""

    def setting_labels(self) -> list[str]:
        """Every setting that was measured: the suite's own in its order, then the others as their axes are ordered."""
        labels = {outcome.setting_label: outcome for outcome in self.outcomes}
        named = [name for name in self.suite.settings if name in labels]
        return [*named, *sorted(labels.keys() - set(named), key=lambda label: _axes_order(labels[label]))]


def read_measured(path: Path) -> Measured:
    """Read a run's directory. Raises `UsageError` for what is not a run, and for one without a row."""
    from archbench.decide.summary import noise_floor, summarise
    from archbench.store import RunStore, load_frame

    store = RunStore.open(path)
    rows = load_frame(store.path)
    cells = summarise(rows)
    speed = rows["speed_index"].dropna()
    begun = rows["started_at"].dropna()
    return Measured(
        path=store.path,
        run_id=store.run_id,
        suite=store.suite,
        environment=store.environment,
        outcomes=outcomes(cells),
        rounds=int(rows["round"].nunique()),
        corrected=bool(cells["drift_corrected"].any()),
        drift=(float(speed.quantile(0.05)) - 1, float(speed.quantile(0.95)) - 1) if len(speed) > 1 else None,
        floor=noise_floor(rows),
        begun=None if begun.empty else str(begun.min()),
        spent_s=float(rows["duration_s"].sum()),
    )


def outcomes(cells: pd.DataFrame) -> tuple[Outcome, ...]:
    """The rows of a summary, in its order."""
    drift = cells["rank_latency_s"] / cells["latency_median_s"]
    named = cells.assign(latency_p95_s=cells["latency_p95_s"] * drift)
    columns = (_plain(named[field]) for field in Outcome.__struct_fields__)
    return tuple(Outcome(*values) for values in zip(*columns, strict=True))


def toggles_label(precision: str, memory_format: str, compile_mode: str) -> str:
    """A bundle of toggles in words: `amp-bf16, channels_last, compile=default`."""
    words = [precision]
    if memory_format != "contiguous":
        words.append(memory_format)
    if compile_mode != "off":
        words.append(f"compile={compile_mode}")
    return ", ".join(words)


def _axes_order(outcome: Outcome) -> tuple[int, int, int]:
    return (
        PRECISIONS.index(outcome.precision),
        MEMORY_FORMATS.index(outcome.memory_format),
        COMPILE_MODES.index(outcome.compile_mode),
    )


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Python's own values, `None` for pandas' several kinds of nothing."""
    return list(column.astype(object).where(column.notna(), None))


def _effect(code: str) -> str | None:
    return REASONS[code].effect if code in REASONS else None
