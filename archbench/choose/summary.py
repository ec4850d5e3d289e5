"""One row a cell: what its processes (its rounds and visits) say together. Derived when needed, never stored.

Samples are never pooled: a figure is the median of the processes' medians. Its interval is about the difference between
processes, which the interval of one process cannot know, and which all groups of the run tell together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.device.kind import kind_named
from archbench.model.derived import ADDED, DERIVED
from archbench.model.record import VERDICTS, columns
from archbench.results.spread import Spread
from archbench.stats.moderation import Pool, median_variance, moderated, pooled, t_quantile

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

CONFIDENCE = 0.95
KEYS = ["run_id", "cell_id"]
_ROW_ONLY = {"round", "visit"}
_CIRCUMSTANCES = {"schema_version", "protocol_version", "input_size", "batch_size", "threads"}
"""Whole numbers that say what a row is about, and are no figures."""
_KNOWN_UNMEASURED = {"params", "macs", "flops", "activations", "weight_bytes", "predicted_peak_bytes", "top1", "top5"}
"""Figures that hold for a cell even where measuring it failed."""
WIDEST_LOG = 100.0
"""Half an interval of a log at most: beyond, ratios and reciprocals would leave a float's range."""
_TIMED = {
    "latency": ("latency_median_s", "latency_ci_low_s", "latency_ci_high_s"),
    "throughput": ("throughput_img_s", "throughput_ci_low_img_s", "throughput_ci_high_img_s"),
}
_CORRECTED = {"latency": "latency_median_corrected_s", "throughput": "throughput_corrected_img_s"}
_RANKED_FROM = [
    "speed_index",
    *_CORRECTED.values(),
    *(name for stored in _TIMED.values() for name in stored),
]
_WORST_FIRST = ("crashed", "error", "timeout", "oom", "unsupported", "skipped", "ok")


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
    new |= _rank_figures(_processes(frame, group, used), new, spreads)
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


class _Processes(Struct, frozen=True, kw_only=True):
    """What the processes of all cells measured: logs by `latency` and `throughput`, of shape (processes,)."""

    group: NDArray[np.int64]
    """The number of each one's cell."""
    runs: NDArray[Any]
    """Each cell's run, shape (cells,)."""
    shared: NDArray[Any]
    """What cells have in common that the same processes measure: one group, whatever the batch; shape (cells,)."""
    corrected: NDArray[np.bool_]
    """Cells that are ranked by corrected figures, shape (cells,)."""
    raw: dict[str, NDArray[np.float64]]
    ranked: dict[str, NDArray[np.float64]]
    own: dict[str, NDArray[np.float64]]
    """Half of each one's own interval; NaN for none."""

    def repeats(self, values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """How many processes of each cell have a figure, and the variance of its log between them (0 for one)."""
        known = np.isfinite(values)
        group, values = self.group[known], values[known]
        count = np.bincount(group, minlength=len(self.runs))
        centre = np.bincount(group, weights=values, minlength=len(count)) / np.maximum(count, 1)
        squares = np.bincount(group, weights=(values - centre[group]) ** 2, minlength=len(count))
        return count, squares / np.maximum(count - 1, 1)

    def groups(self, count: NDArray[np.int64], run: str) -> list[int]:
        """How many processes measured each group of a run that more than one measured."""
        most: dict[str, int] = {}
        for shared, processes in zip(self.shared[self.runs == run], count[self.runs == run].tolist(), strict=True):
            most[shared] = max(most.get(shared, 0), processes)
        return [processes for processes in most.values() if processes > 1]

    def pool(self, values: NDArray[np.float64], run: str) -> Pool | None:
        """The variance between processes over all cells of a run; those that share a group count once."""
        count, variance = self.repeats(values)
        here = (self.runs == run) & (count > 1)
        return pooled(
            variance[here], count[here] - 1, freedom=sum(self.groups(count, run)) - len(self.groups(count, run))
        )


def _processes(frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_]) -> _Processes:
    """Figures to rank by are corrected for drift on a CPU, where all processes of the cell have a canary; else raw."""
    first = frame.loc[np.unique(group, return_index=True)[1], ["run_id", "cell_id"]]
    follows = {name: kind_named(name).follows_canary for name in frame["device"].unique()}
    canary = frame["device"].map(follows).to_numpy(dtype=bool)[used]
    rows, group = frame.loc[used, _RANKED_FROM], group[used]
    speed = rows["speed_index"].to_numpy(dtype=float)
    lacks = np.bincount(group[np.isnan(speed) | ~canary], minlength=len(first))
    corrected = (np.bincount(group, minlength=len(first)) > 0) & (lacks == 0)
    raw, ranked, own = {}, {}, {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, (stored, *ends) in _TIMED.items():
            low, high = (np.log(rows[end].to_numpy(dtype=float)) for end in ends)
            raw[name] = np.log(rows[stored].to_numpy(dtype=float))
            own[name] = (high - low) / 2
            usual = np.log(rows[_CORRECTED[name]].to_numpy(dtype=float))
            ranked[name] = np.where(corrected[group], usual, raw[name])
    return _Processes(
        group=group,
        runs=first["run_id"].to_numpy(),
        # Precisions that share their weights share a process, too.
        shared=first["cell_id"].str.replace(r"(batch_size|precision)=[^,]*,?", "", regex=True).to_numpy(),
        corrected=corrected,
        raw=raw,
        ranked=ranked,
        own=own,
    )


def spreads_of(frame: pd.DataFrame, earlier: Sequence[Spread] = ()) -> dict[str, Spread]:
    """How far processes differ, by run id, told by the rows of `load_frame` that are fit to be compared.

    `earlier`: what earlier runs on such a machine showed, which has its part.
    """
    runs = [str(run) for run in frame["run_id"].unique()]
    frame = frame[fit_rows(frame)].reset_index(drop=True)
    if frame.empty:
        return dict.fromkeys(runs, Spread())
    processes = _processes(frame, *_by_cell(frame))
    counts = [processes.repeats(values)[0] for values in processes.ranked.values()]
    return {
        run: Spread(
            latency=processes.pool(processes.ranked["latency"], run),
            throughput=processes.pool(processes.ranked["throughput"], run),
            groups=max(len(processes.groups(count, run)) for count in counts),
        ).after(earlier)
        for run in runs
    }


def _figures(frame: pd.DataFrame, group: NDArray[np.int64], used: NDArray[np.bool_]) -> dict[str, pd.Series]:
    """Every figure of a cell from its used rows: null for a cell that has none, but for what needs no measuring."""
    known = {**columns(), **DERIVED}
    cells = range(int(group.max(initial=-1)) + 1)
    reals = [name for name, column in known.items() if column.kind == "real"]
    skipped = _ROW_ONLY | _CIRCUMSTANCES
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
    processes: _Processes, figures: dict[str, pd.Series], spreads: Mapping[str, Spread]
) -> dict[str, Any]:
    """Intervals of latency and throughput, and the figures to rank by."""
    new: dict[str, Any] = {"drift_corrected": processes.corrected}
    for name, (stored, low, high) in _TIMED.items():
        unit = "s" if name == "latency" else "img_s"
        raw, usual = (figures[one].to_numpy(dtype=float) for one in (stored, _CORRECTED[name]))
        ranked = np.where(processes.corrected, usual, raw)
        pools = {run: getattr(spreads.get(run), name, None) for run in set(processes.runs)}
        new[f"rank_{name}_{unit}"] = ranked
        ends = f"rank_{name}_low_{unit}", f"rank_{name}_high_{unit}"
        new[ends[0]], new[ends[1]] = _interval(processes, name, processes.ranked[name], ranked, pools)
        if processes.corrected.any():
            pools = {run: processes.pool(processes.raw[name], run) for run in pools}
        new[low], new[high] = _interval(processes, name, processes.raw[name], raw, pools)
    for percentile in ("p90", "p95", "p99"):
        scale = new["rank_latency_s"] / figures["latency_median_s"].to_numpy(dtype=float)
        new[f"rank_latency_{percentile}_s"] = figures[f"latency_{percentile}_s"].to_numpy(dtype=float) * scale
    return new


def _interval(
    processes: _Processes,
    name: str,
    values: NDArray[np.float64],
    middle: NDArray[np.float64],
    pools: Mapping[str, Pool | None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of each cell's interval, about its figure `middle`."""
    count, variance = processes.repeats(values)
    widths = np.nan_to_num(processes.own[name])
    own = np.bincount(processes.group, weights=widths, minlength=len(count)) / np.maximum(count, 1)
    half = np.full(len(count), np.nan)
    for run, pool in pools.items():
        here = processes.runs == run
        half[here] = half_intervals(count[here], variance[here], own[here], pool)
    return middle * np.exp(-half), middle * np.exp(half)


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
