"""What a report is about: one run's cells, with the suite and the machine behind them.

And what it prints, for other readers: `summary.parquet` and `summary.csv` in the run's folder, one row a cell.
`results.parquet` holds what each process measured, with nothing corrected for drift and no row seen beside the others.
Whoever averages that gets other times and verdicts than the report; these files have the report's own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from archbench.choose.cell_summary import CellSummary, cell_summaries, setting_labels
from archbench.choose.toggles import alike, best_setting
from archbench.model.axes import ROLES, TOGGLES
from archbench.model.cell import short_id
from archbench.model.derived import ADDED, judged_columns
from archbench.model.environment import Environment
from archbench.model.errors import UsageError
from archbench.model.profile import StageProfile
from archbench.model.record import Column
from archbench.model.suite import Suite
from archbench.model.units import counted

if TYPE_CHECKING:
    import pandas as pd

    from archbench.choose.candidates import Candidates, Trust
    from archbench.choose.summary import RunSpread
    from archbench.stats.variance import Devices

log = logging.getLogger(__name__)


class RunData(Struct, frozen=True, kw_only=True, dict=True):
    """One run, read and summarised."""

    path: Path
    run_id: str
    suite: Suite
    environment: Environment
    cells: tuple[CellSummary, ...]
    candidates: Candidates
    """The same cells as decisions see them."""
    only: tuple[str, ...]
    """The patterns that narrowed what is reported; the noise floor and the drift are of the whole run."""
    waiting: tuple[str, ...]
    """Ids of the suite's cells that have no row: the run was stopped, is running, or was narrowed."""
    rounds: int
    corrected: bool
    """Some latencies are corrected for the machine's drift."""
    drift: tuple[float, float] | None
    """5th and 95th percentile of the canary's time over its median, less 1; `None` without a canary."""
    shown: RunSpread
    """What is kept of its own spread for later runs."""
    machines: int
    """Devices that measured a row."""
    devices: Devices | None = None
    """How its devices differ; `None` for a run of one, and where no two measured the same cell."""
    profiles: tuple[StageProfile, ...]
    """Tables of stages, where the suite asked for them."""
    begun: str | None
    """UTC, ISO 8601."""
    spent_s: float
    """Time spent on all rows together."""

    @property
    def trust(self) -> Trust:
        """Which differences between its figures are differences."""
        return next(iter(self.candidates.trust.values()))

    @property
    def measured(self) -> int:
        """Cells that have figures."""
        return sum(one.status == "ok" for one in self.cells)

    @property
    def planned(self) -> int:
        """Cells of the suite that are asked for, whether they have a row by now or not."""
        return len(self.cells) + len(self.waiting)

    @cached_property
    def outcomes(self) -> Counter[str]:
        """How many cells have each verdict, and of those without figures each status."""
        return Counter(filter(None, (one.verdict if one.status == "ok" else one.status for one in self.cells)))

    def extent(self, when: str = "") -> str:
        """`28 of 36 cells measured`; of a run that is not done `18 of 32 planned cells measured; unfinished`.

        `when` follows the count.
        """
        if not self.waiting:
            return f"{self.measured:,} of {counted(self.planned, 'cell')} measured{when}"
        return f"{self.measured:,} of {self.planned:,} planned cells measured{when}; unfinished"

    @cached_property
    def reference(self) -> str | None:
        """The id of the cell that each device measured; `None` where the suite has no twin."""
        from archbench.suite.plan import reference_of

        return reference_of(self.suite, self.environment.kind)

    @cached_property
    def ratios(self) -> dict[str, float]:
        """Of each cell, by its id without the device, its time over the reference's on the device that measured it."""
        from archbench.choose.summary import ratios_to_reference
        from archbench.results import load_frame

        found = {} if self.reference is None else ratios_to_reference(load_frame(self.path), self.reference)
        return {short_id(one.cell_id): found[one.cell_id] for one in self.cells if one.cell_id in found}

    @cached_property
    def settings(self) -> dict[str, int]:
        """Every setting that was measured, with its place: the suite's own in its order, then as axes are ordered."""
        return {label: place for place, label in enumerate(setting_labels(self.cells, self.suite.settings))}


def read_run(path: Path, only: Sequence[str] = ()) -> RunData:
    """Read a run's directory, of its cells those that any pattern of `only` matches.

    Raises `UsageError` for what is not a run, for one without a row, and for a pattern that matches no cell of it.
    """
    from archbench.choose.candidates import candidates
    from archbench.choose.summary import devices_of, earlier_spreads, fit_rows, shown, spreads_of, summarise
    from archbench.results import RunStore, load_frame

    store = RunStore.open(path)
    rows = load_frame(store.path)
    spreads = spreads_of(rows, earlier_spreads(store.path, rows))
    speed, repeated = rows["speed_index"].dropna(), shown(rows, next(iter(spreads_of(rows).values())))
    fit = rows[fit_rows(rows)]
    rows, waiting = _asked(store.suite, rows, only)
    cells = summarise(rows, spreads)
    begun = rows["started_at"].dropna()
    return RunData(
        path=store.path,
        run_id=store.run_id,
        suite=store.suite,
        environment=store.environment,
        cells=cell_summaries(cells),
        candidates=candidates(cells, spreads),
        only=tuple(only),
        waiting=waiting,
        rounds=int(rows["round"].nunique()),
        corrected=bool(cells["drift_corrected"].any()),
        drift=(float(speed.quantile(0.05)) - 1, float(speed.quantile(0.95)) - 1) if len(speed) > 1 else None,
        shown=repeated,
        machines=max(1, rows["machine"].nunique()),
        devices=next(iter(devices_of(fit).values()), None),
        profiles=tuple(store.profiles()),
        begun=None if begun.empty else str(begun.min()),
        spent_s=float(rows["duration_s"].sum()),
    )


def _asked(suite: Suite, rows: pd.DataFrame, only: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows that `only` leaves, and the ids of the cells without a row."""
    from archbench.suite.plan import make_plan

    try:
        plan = make_plan(suite, rows["device"].iloc[0], only=only)
    except UsageError:
        if only:
            raise
        return rows, ()  # a suite of which nothing can be planned here any more
    planned = [cell.cell_id for cell in plan.cells]
    if only:
        rows = rows[rows["cell_id"].isin([*planned, *(skip.cell.cell_id for skip in plan.skipped)])]
        if rows.empty:
            raise UsageError(f"no row matches {' '.join(f'--only {one}' for one in only)}: these are not measured yet")
    there = set(rows["cell_id"])
    return rows, tuple(cell_id for cell_id in planned if cell_id not in there)


def read_several(paths: Sequence[Path], only: Sequence[str] = ()) -> list[RunData]:
    """Read several runs. One that cannot be read is named in a warning and left out.

    Raises `UsageError` where a place does not exist, a run is named twice, or none can be read.
    """
    runs: dict[Path, RunData] = {}
    unreadable: list[UsageError] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or directory")
        try:
            run = read_run(path, only)
        except UsageError as error:
            log.warning("left out: %s", error)
            unreadable.append(error)
            continue
        if run.path.resolve() in runs:
            raise UsageError(f"{path}: this run is named twice; name it once")
        runs[run.path.resolve()] = run
    if not runs:
        raise unreadable[0]
    return list(runs.values())


PARQUET, CSV = "summary.parquet", "summary.csv"
_AS_THEY_ARE = (
    *("run_id", "cell_id", "architecture", "variant", "family", "device", "hardware_class", "phase", "batch_size"),
    *("input_size", *TOGGLES, "threads", "inputs", *ROLES, "status", "verdict", "error_message"),
    *("processes", "processes_used", "drift_corrected", "params", "macs", "activations", "weight_bytes"),
    *("compile_cold_s", "compile_warm_s", "artifact_bytes", "process_bytes", "quantized_share", "energy_j_per_img"),
    *("output_rel_error", "output_cosine", "output_top1_agreement", "top1_measured", "top1_drop"),
    *("top1", "top5", "accuracy_source", "accuracy_dataset", "torch_version"),
)
"""Columns of the summary over rounds that mean the same here."""
_RANKED = {rank.removeprefix("rank_"): rank for rank in ADDED if rank.startswith("rank_")}
"""Figures as the report prints them, corrected for drift where `drift_corrected` says so: where each comes from."""
_OWN = {
    "setting": "the suite's name for the toggles, or the toggles themselves",
    "reasons": "reason codes of all processes, separated by spaces; null where there are none",
    "peak_bytes": "peak memory of a step as the report has it: reserved on a GPU, allocated on the CPU",
    "best_setting": "under which setting this network is fastest at this phase, batch and image size; null where one "
    "was measured",
}


def summary_columns() -> tuple[Column, ...]:
    """The columns of both files, in their order."""
    known = judged_columns()
    own = (
        Column(name=name, kind="whole", unit="B", description=meaning)
        if name == "peak_bytes"
        else Column(name=name, kind="text", unit=None, description=meaning)
        for name, meaning in _OWN.items()
    )
    ranked = (
        replace(known[rank], name=name, description=known[rank].description.replace("rank_", ""))
        for name, rank in _RANKED.items()
    )
    return (*(known[name] for name in _AS_THEY_ARE), *own, *ranked)


def summary_frame(run: RunData) -> pd.DataFrame:
    """One row a cell, in the order of the run; whole numbers `Int64`, flags `boolean`, null where nothing is known."""
    import pandas as pd

    cells = run.candidates.frame.set_index("cell_id", drop=False)
    printed = {one.cell_id: one for one in run.cells}
    of = [printed[cell_id] for cell_id in cells["cell_id"]]
    best: dict[str, str] = {}
    for group in alike(run.cells):
        if (first := best_setting(group)) is not None:
            best |= dict.fromkeys((one.cell_id for one in group.values()), first.cell.setting_label)
    columns: dict[str, Any] = {name: cells[name] for name in _AS_THEY_ARE}
    columns |= {
        "setting": [one.setting_label for one in of],
        "reasons": [" ".join(one.reasons) or None for one in of],
        "peak_bytes": [one.peak_bytes for one in of],
        "best_setting": [best.get(one.cell_id) for one in of],
    }
    columns |= {name: cells[rank] for name, rank in _RANKED.items()}
    text = pd.Series([""]).dtype  # what this pandas gives text, also where a column is null throughout
    kinds: dict[str, Any] = {"whole": "Int64", "flag": "boolean", "real": "float64", "text": text}
    typed = {
        one.name: pd.Series(columns[one.name], index=cells.index, dtype=kinds[one.kind]) for one in summary_columns()
    }
    return pd.DataFrame(typed).reset_index(drop=True)


def write_summary(run: RunData) -> None:
    """Put both files into the run's folder, and its spread for later runs, each whole or not at all.

    Raises `UnfitError` where they cannot be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from archbench.choose.summary import SPREAD
    from archbench.results.files import atomic_write, write_bytes, write_json

    frame = summary_frame(run)
    kinds = {"whole": pa.int64(), "flag": pa.bool_(), "real": pa.float64(), "text": pa.string()}
    # With what each column means, so that the file explains itself in any reader.
    about = ((one, {"description": one.description, "unit": one.unit or ""}) for one in summary_columns())
    schema = pa.schema([pa.field(one.name, kinds[one.kind], metadata=meaning) for one, meaning in about])
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    with atomic_write(run.path / PARQUET) as file, pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table)
    write_bytes(run.path / CSV, frame.to_csv(index=False, lineterminator="\n").encode())
    write_json(run.path / SPREAD, run.shown)
