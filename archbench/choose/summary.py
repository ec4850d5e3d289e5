"""One row a cell: what its processes (its rounds and visits) say together. Derived when needed, never stored.

Samples are never pooled: a figure is the median of the processes' medians. Its interval is about the difference between
processes, which the interval of one process cannot know, and which all groups of the run tell together. How far they
differ is kept beside a run, in `spread.json`: what later runs on such a machine know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct

from archbench.device.kind import kind_named
from archbench.model.derived import ADDED, DERIVED
from archbench.model.errors import UsageError
from archbench.model.record import VERDICTS, columns
from archbench.results.files import read_struct
from archbench.stats.variance import (
    LEAST_PRIOR,
    Devices,
    Pool,
    joined,
    median_variance,
    moderated,
    pooled,
    t_quantile,
    told_by,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

CONFIDENCE = 0.95
KEYS = ["run_id", "cell_id"]
_ROW_ONLY = {"round", "visit"}
CIRCUMSTANCES = {"schema_version", "protocol_version", "input_size", "batch_size", "threads", "deploy", "checkpointing"}
"""Whole numbers that say what a row is about, as columns of text do, and are no figures."""
_KNOWN_UNMEASURED = {"params", "macs", "flops", "activations", "weight_bytes", "predicted_peak_bytes", "top1", "top5"}
"""Figures that hold for a cell even where measuring it failed."""
WIDEST_LOG = 100.0
"""Half an interval of a log at most: beyond, ratios and reciprocals would leave a float's range."""
_TIMED = {
    "latency": ("latency_median_s", "latency_ci_low_s", "latency_ci_high_s"),
    "throughput": ("throughput_img_s", "throughput_ci_low_img_s", "throughput_ci_high_img_s"),
}
_CORRECTED = {"latency": "latency_median_corrected_s", "throughput": "throughput_corrected_img_s"}
_WORST_FIRST = ("crashed", "error", "timeout", "oom", "unsupported", "skipped", "ok")
SPREAD = "spread.json"
MOST_EARLIER = 20
"""Runs that are looked back at: machines change."""


class Spread(Struct, frozen=True, kw_only=True):
    """How far processes differ, over all groups of a run; variances are of natural logs."""

    latency: Pool | None = None
    """`None` where no cell was measured by two processes."""
    throughput: Pool | None = None
    groups: int = 0
    """Groups that more than one process measured."""
    earlier: int = 0
    """Runs before it whose spread was taken into account."""

    def after(self, earlier: Sequence[Spread]) -> Spread:
        """Moderated towards what earlier runs on the same hardware showed."""
        return Spread(
            latency=joined(self.latency, [one.latency for one in earlier if one.latency]),
            throughput=joined(self.throughput, [one.throughput for one in earlier if one.throughput]),
            groups=self.groups,
            earlier=len(earlier),
        )


class RunSpread(Struct, frozen=True, kw_only=True):
    """A run's own spread, with what must be equal for another run to learn from it."""

    hardware_class: str
    device: str
    protocol_version: int
    begun: str
    """UTC, ISO 8601: a run learns from those before it alone, so that its report does not change."""
    spread: Spread


def fit_rows(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows were measured and are fit to be compared: `ok` and not `invalid`; a mask of shape (rows,)."""
    return ((frame["status"] == "ok") & (frame["verdict"] != "invalid")).to_numpy(dtype=bool)


def summarise(frame: pd.DataFrame, spreads: Mapping[str, Spread] | None = None) -> pd.DataFrame:
    """One row a run and cell, in the order of first rows: `load_frame`'s columns less round and visit, plus `ADDED`.

    Figures come from the cell's rows that are `ok` and not `invalid`, or from the invalid ones where there are no
    others: reals are medians over them, whole numbers maxima. `status` is `ok` where any row is, else the worst;
    `verdict` is the worst of the rows used, and at least `suspect` where another process failed or was invalid;
    `reasons` unites those of all rows. Interval columns are moderated intervals between processes (`half_intervals`):
    towards `spreads` by run id where these are given, as earlier runs may have a part in them, else `spreads_of`.
    """
    import pandas as pd

    frame = frame.reset_index(drop=True)
    group, used = _by_cell(frame)

    first = frame.loc[~pd.Series(group).duplicated().to_numpy()].reset_index(drop=True)
    summary = first.drop(columns=[*_ROW_ONLY, *DERIVED])
    summary["processes"] = np.bincount(group)
    summary["processes_used"] = np.bincount(group[used], minlength=len(first))
    new = {**_figures(frame, group, used), **_judgement(frame, group, used)}
    spreads = spreads_of(frame) if spreads is None else spreads
    new |= _rank_figures(frame, group, used, first, new, spreads)
    summary = summary.drop(columns=[name for name in new if name in summary])
    summary = pd.concat([summary, pd.DataFrame(new, index=summary.index)], axis=1)
    return summary[[*(name for name in columns() if name not in _ROW_ONLY), *DERIVED, *ADDED]]


def _by_cell(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The number of each row's cell, in the order of first rows, and which rows are behind its figures."""
    # Cells by number: grouping by two columns of text again for every figure would take most of the time.
    group = np.asarray(frame.groupby(KEYS, sort=False).ngroup(), dtype=np.int64)
    valid = fit_rows(frame)
    there = np.bincount(group, weights=valid).astype(bool)
    return group, (frame["status"] == "ok").to_numpy(dtype=bool) & (valid | ~there[group])


def _logs(
    frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """What the used rows measured, in logs and by the number of their cell; and which cells are ranked by what.

    Columns: `latency` and `throughput` to rank by, both as `raw_` and, half a process's own interval, as `own_`. Cells
    are ranked by figures corrected for drift (the second mask) on a CPU, where all processes have a canary.
    """
    import pandas as pd

    cells = int(group.max(initial=-1)) + 1
    follows = {name: kind_named(name).follows_canary for name in frame["device"].unique()}
    rows, group = frame[used], group[used]
    # A canary by which a row is invalid was disturbed itself: the figure stands as it was measured.
    trusted = rows["device"].map(follows).astype(bool) & (rows["verdict"] != "invalid")
    speed = rows["speed_index"].where(trusted).to_numpy(dtype=float)
    lacks = np.bincount(group[np.isnan(speed)], minlength=cells)
    corrected = (np.bincount(group, minlength=cells) > 0) & (lacks == 0)
    logs: dict[str, NDArray[np.float64]] = {}
    shift = row_effects(rows, devices_of(frame[fit_rows(frame)]))  # processes scatter about their device
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, columns_of in _TIMED.items():
            value, low, high = (np.log(rows[column].to_numpy(dtype=float)) for column in columns_of)
            usual = np.log(rows[_CORRECTED[name]].to_numpy(dtype=float))
            ranked = np.where(corrected[group], usual, value)
            known = -shift if name == "throughput" else shift
            logs |= {f"raw_{name}": value - known, name: ranked - known, f"own_{name}": (high - low) / 2}
    return pd.DataFrame(logs, index=group).replace([np.inf, -np.inf], np.nan), corrected


def _repeats(logs: pd.DataFrame, cells: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How many processes of each cell have a figure, and the variance of its log between them (0 for one)."""
    by_cell = logs.groupby(level=0)
    return by_cell.count().reindex(range(cells), fill_value=0), by_cell.var().reindex(range(cells)).fillna(0.0)


def _pool(count: pd.Series[int], variance: pd.Series[float], cell_id: pd.Series[str]) -> tuple[Pool | None, int]:
    """The variance between processes over some cells, and in how many groups it was seen.

    Cells that the same processes measure count once: they differ in batch size, or in precisions that share weights.
    """
    shared = cell_id.str.replace(r"(batch_size|precision)=[^,]*,?", "", regex=True)
    more = (count - 1).clip(lower=0)
    freedom = more.groupby(shared.to_numpy()).max()
    return pooled(variance, more, freedom=float(freedom.sum()), least_prior=LEAST_PRIOR), int((freedom > 0).sum())


def spreads_of(frame: pd.DataFrame, earlier: Sequence[Spread] = ()) -> dict[str, Spread]:
    """How far processes differ, by run id, told by the rows of `load_frame` that are fit to be compared.

    `earlier`: what earlier runs on such a machine showed, which has its part.
    """
    found = {str(run): Spread().after(earlier) for run in frame["run_id"].unique()}
    frame = frame[fit_rows(frame)].reset_index(drop=True)
    if frame.empty:
        return found
    group, used = _by_cell(frame)
    first = frame.loc[np.unique(group, return_index=True)[1], KEYS].reset_index(drop=True)
    count, variance = _repeats(_logs(frame, group, used)[0], len(first))
    for run, cells in first.groupby("run_id", sort=False)["cell_id"]:
        pools = [_pool(count.loc[cells.index, name], variance.loc[cells.index, name], cells) for name in _TIMED]
        (latency, one), (throughput, other) = pools
        found[str(run)] = Spread(latency=latency, throughput=throughput, groups=max(one, other)).after(earlier)
    return found


def shown(rows: pd.DataFrame, spread: Spread) -> RunSpread:
    """What is to be kept of a run with these rows."""
    first = rows.iloc[0]
    return RunSpread(
        hardware_class=str(first["hardware_class"]),
        device=str(first["device"]),
        protocol_version=int(first["protocol_version"]),
        begun=str(rows["started_at"].dropna().min()),
        spread=spread,
    )


def earlier_spreads(run: Path, rows: pd.DataFrame) -> list[Spread]:
    """What the runs beside this one showed, on the same hardware and before it, the latest `MOST_EARLIER`."""
    place = run if run.is_dir() else run.parent
    about = shown(rows, Spread())
    found = []
    for path in place.resolve().parent.glob(f"*/{SPREAD}"):
        try:
            one = read_struct(path, RunSpread)
        except UsageError:
            continue  # of another version, or damaged: it only adds what can be done without
        alike = msgspec.structs.replace(one, begun=about.begun, spread=about.spread) == about
        if alike and one.begun < about.begun and one.spread.groups:
            found.append(one)
    return [one.spread for one in sorted(found, key=lambda one: one.begun)[-MOST_EARLIER:]]


def _figures(frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_]) -> dict[str, pd.Series]:
    """Every figure of a cell from its used rows: null for a cell that has none, but for what needs no measuring."""
    known = {**columns(), **DERIVED}
    cells = range(int(group.max(initial=-1)) + 1)
    reals = [name for name, column in known.items() if column.kind == "real"]
    skipped = _ROW_ONLY | CIRCUMSTANCES
    wholes = [name for name, column in known.items() if column.kind == "whole" and name not in skipped]
    # Only what is asked for is copied: a row is mostly text.
    rows = frame.loc[used, [*reals, *wholes, "host_bound", "output_finite"]].groupby(group[used])
    medians, largest = rows[reals].median().reindex(cells), rows[wholes].max().reindex(cells)
    new = {name: medians[name] for name in reals} | {name: largest[name] for name in wholes}
    new["host_bound"] = rows["host_bound"].max().reindex(cells)
    new["output_finite"] = rows["output_finite"].min().reindex(cells)
    everyone = frame.groupby(group)[sorted(_KNOWN_UNMEASURED)].max()
    return new | {name: everyone[name] for name in sorted(_KNOWN_UNMEASURED)}


def _judgement(frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_]) -> dict[str, pd.Series]:
    """Status, verdict, reasons and the first failure of every cell."""
    import pandas as pd

    status = pd.Series(pd.Categorical(frame["status"], _WORST_FIRST).codes)
    any_used = np.bincount(group[used], minlength=len(np.bincount(group))) > 0
    worst = status.groupby(group).min().to_numpy().copy()
    worst[any_used] = _WORST_FIRST.index("ok")

    verdict = pd.Series(pd.Categorical(frame["verdict"], VERDICTS).codes)[used].groupby(group[used]).max()
    code = verdict.reindex(range(len(worst)), fill_value=-1).to_numpy().copy()
    incomplete = np.bincount(group, weights=~used) > 0
    code[incomplete & any_used] = np.maximum(code[incomplete & any_used], VERDICTS.index("suspect"))

    failures = frame.loc[(frame["error_message"].notna() | frame["error_phase"].notna()).to_numpy()]
    failed = (
        failures.groupby(group[failures.index])[["error_phase", "error_message"]].first().reindex(range(len(worst)))
    )
    return {
        "status": pd.Series([_WORST_FIRST[one] for one in worst], dtype=frame["status"].dtype),
        "verdict": pd.Series([VERDICTS[one] if one >= 0 else None for one in code], dtype=frame["verdict"].dtype),
        "reasons": pd.Series(_united(group, frame["reasons"], len(worst)), dtype=object),
        "error_phase": failed["error_phase"],
        "error_message": failed["error_message"],
    }


def _united(group: NDArray[np.int64], reasons: Iterable[tuple[str, ...]], cells: int) -> list[tuple[str, ...]]:
    united: list[tuple[str, ...]] = [()] * cells
    for cell, codes in zip(group.tolist(), reasons, strict=True):
        if codes != united[cell]:  # mostly equal, so mostly nothing to do
            united[cell] = tuple(dict.fromkeys((*united[cell], *codes)))
    return united


def _rank_figures(
    frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_], cells: pd.DataFrame,
    figures: dict[str, pd.Series], spreads: Mapping[str, Spread],
) -> dict[str, Any]:  # fmt: skip
    """Intervals of latency and throughput, and the figures to rank by. `cells`: the first row of each."""
    logs, corrected = _logs(frame, group, used)
    count, variance = _repeats(logs, len(cells))
    own = logs.groupby(level=0).mean().reindex(range(len(cells))).fillna(0.0)
    apart = _device_halves(frame, group, used, cells)
    new: dict[str, Any] = {"drift_corrected": corrected}
    for name, (stored, *ends) in _TIMED.items():
        unit = "s" if name == "latency" else "img_s"
        raw, usual = (figures[one].to_numpy(dtype=float) for one in (stored, _CORRECTED[name]))
        ranked = new[f"rank_{name}_{unit}"] = np.where(corrected, usual, raw)
        half, raw_half = np.full(len(cells), np.nan), np.full(len(cells), np.nan)
        for run, here in cells.groupby("run_id").groups.items():
            pool = getattr(spreads.get(str(run)), name, None)
            mine = own.loc[here, f"own_{name}"].to_numpy()
            half[here] = half_intervals(
                count.loc[here, name].to_numpy(), variance.loc[here, name].to_numpy(), mine, pool
            )
            seen, scatter = count.loc[here, f"raw_{name}"], variance.loc[here, f"raw_{name}"]
            if corrected[here].any():
                pool, _ = _pool(seen, scatter, cells.loc[here, "cell_id"])
            raw_half[here] = half_intervals(seen.to_numpy(), scatter.to_numpy(), mine, pool)
        half, raw_half = np.hypot(half, apart), np.hypot(raw_half, apart)
        new |= {ends[0]: raw * np.exp(-raw_half), ends[1]: raw * np.exp(raw_half)}
        new |= {f"rank_{name}_low_{unit}": ranked * np.exp(-half), f"rank_{name}_high_{unit}": ranked * np.exp(half)}
    for percentile in ("p90", "p95", "p99"):
        scale = new["rank_latency_s"] / figures["latency_median_s"].to_numpy(dtype=float)
        new[f"rank_latency_{percentile}_s"] = figures[f"latency_{percentile}_s"].to_numpy(dtype=float) * scale
    return new


def _device_halves(
    frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_], cells: pd.DataFrame
) -> NDArray[np.float64]:
    """Half the 95 % interval of each cell's log figure that is due to the devices that measured it; 0 for one device.

    A figure of one device is off by that device's effect, of which only the class is meant; one of devices that are all
    far from it, by as much as these are.
    """
    import pandas as pd

    halves = np.zeros(len(cells))
    devices = devices_of(frame[fit_rows(frame)])
    if devices:
        rows = frame[used]
        share = shares(rows["machine"], group[used], len(cells))
        far = rows["machine"].isin([name for one in devices.values() for name in one.far]).to_numpy()
        off = pd.Series(np.abs(row_effects(rows, devices)) * far).groupby(group[used]).min()
        for run, one in devices.items():
            here = (cells["run_id"] == run).to_numpy()
            t = float(t_quantile(len(one.well) - 1.0, 0.5 + CONFIDENCE / 2))
            halves[here] = t * one.between * np.sqrt(share[here])
        halves[off.index] += off
    return np.minimum(halves, WIDEST_LOG)


def devices_of(frame: pd.DataFrame) -> dict[str, Devices]:
    """By run id, of the fit rows of a `load_frame`; only of runs in which several devices measured one cell."""
    if frame["machine"].nunique() < 2:
        return {}
    time = frame["latency_median_s"].astype(float).fillna(1 / frame["throughput_img_s"].astype(float))
    rows = frame.assign(time=time)[(time.notna() & frame["machine"].notna()).to_numpy()]
    found = {
        str(run): told_by(zip(rows_of["cell_id"], rows_of["machine"], rows_of["time"], strict=True))
        for run, rows_of in rows.groupby("run_id", sort=False)
    }
    return {run: one for run, one in found.items() if one is not None}


def row_effects(frame: pd.DataFrame, devices: dict[str, Devices]) -> NDArray[np.float64]:
    """The effect of each row's device, 0 where none is known; shape (rows,)."""
    found = np.zeros(len(frame))
    for run, one in devices.items():
        here = (frame["run_id"] == run).to_numpy()
        found[here] = frame.loc[here, "machine"].map(one.effects).fillna(0.0).to_numpy(dtype=float)
    return found


def shares(machine: pd.Series[str], group: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
    """What a mean over a cell's processes keeps of the variance between devices: 1 for one device. Shape (cells,)."""
    codes = machine.astype("category").cat.codes.to_numpy().astype(np.int64) + 1
    pair, counts = np.unique(group * (codes.max(initial=0) + 1) + codes, return_counts=True)
    of_cell = pair // (codes.max(initial=0) + 1)
    squares = np.bincount(of_cell, weights=counts.astype(float) ** 2, minlength=cells)
    totals = np.bincount(of_cell, weights=counts, minlength=cells)
    return np.divide(squares, totals**2, out=np.ones(cells), where=totals > 0)


def half_intervals(
    count: NDArray[np.int64], variance: NDArray[np.float64], own: NDArray[np.float64], pool: Pool | None
) -> NDArray[np.float64]:
    """Half the 95 % interval of each cell's log figure, the median over its processes; NaN where nothing gives one.

    Shapes (cells,): how many processes, the variance of logs between them, the mean of half their own intervals (0 for
    none). Student's t with the variance moderated towards the run's `pool`, at least as wide as the processes' own
    intervals make it. Without a pool, that is with one process each, those alone: they know nothing of how processes
    differ.
    """
    share = np.sqrt(median_variance(count))
    half = np.where(own > 0, own * share, np.nan)
    if pool is not None:
        s2, freedom = moderated(pool, variance, np.maximum(count - 1, 0))
        between = t_quantile(freedom, 0.5 + CONFIDENCE / 2) * np.sqrt(s2) * share
        half = np.fmax(half, np.where(count > 0, between, np.nan))
    return np.asarray(np.minimum(half, WIDEST_LOG))


def ratios_to_reference(frame: pd.DataFrame, reference: str) -> dict[str, float]:
    """Of each cell its time over that of the cell `reference` on the very device that measured it, by cell id.

    Of fit rows of a `load_frame`; the median over processes. Empty where the reference has no time.
    """
    fit = frame[fit_rows(frame)]
    machine = fit["machine"].astype(object).fillna("")
    time = fit["latency_median_s"].astype(float)
    known = time[(fit["cell_id"] == reference).to_numpy()]
    usual = known.groupby(machine[known.index]).median()
    ratios = (time / machine.map(usual)).groupby(fit["cell_id"]).median().dropna()
    return {str(cell): float(ratio) for cell, ratio in ratios.items()}
