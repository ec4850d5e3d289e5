"""One row a cell: what its processes (rounds, and the twin's visits) say together. Derived when needed, never stored.

Samples are never pooled: a figure is the median of the processes' medians, and its interval is about the difference
between processes, which the interval of one process cannot know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.device.kind import kind_named
from archbench.model.derived import ADDED, DERIVED
from archbench.model.record import VERDICTS, columns
from archbench.stats.moderation import pooled
from archbench.stats.paired import sd

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
_CORRECTED = "latency_median_corrected_s"
_RANKED_FROM = [
    "speed_index",
    *("latency_median_s", "latency_ci_low_s", "latency_ci_high_s"),
    *("throughput_img_s", "throughput_ci_low_img_s", "throughput_ci_high_img_s"),
]
_WORST_FIRST = ("crashed", "error", "timeout", "oom", "unsupported", "skipped", "ok")


class NoiseFloor(Struct, frozen=True, kw_only=True):
    """How far apart two measurements of the very same thing come out in one run."""

    variant: str
    """The twin."""
    spread: float
    """19 of 20 further pairs of measurements differ by at most this, as a ratio less 1."""
    visits: int
    """Measurements that it was told from."""
    drift_corrected: bool


def fit_rows(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows were measured and are fit to be compared: `ok` and not `invalid`; a mask of shape (rows,)."""
    return ((frame["status"] == "ok") & (frame["verdict"] != "invalid")).to_numpy(dtype=bool)


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run and cell, in the order of first rows: `load_frame`'s columns less round and visit, plus `ADDED`.

    Figures come from the cell's rows that are `ok` and not `invalid`, or from the invalid ones where there are no
    others: reals are medians over them, whole numbers maxima. `status` is `ok` where any row is, else the worst;
    `verdict` is the worst of the rows used, and at least `suspect` where another process failed or was invalid;
    `reasons` unites those of all rows. Interval columns are intervals between processes (see `process_interval`).
    """
    import pandas as pd

    frame = frame.reset_index(drop=True)
    # Groups by number: grouping by two columns of text again for every figure would take most of the time.
    group = np.asarray(frame.groupby(KEYS, sort=False).ngroup(), dtype=np.int64)
    measured, valid = (frame["status"] == "ok").to_numpy(), fit_rows(frame)
    used = measured & (valid | ~np.bincount(group, weights=valid).astype(bool)[group])

    first = frame.loc[~pd.Series(group).duplicated().to_numpy()].reset_index(drop=True)
    summary = first.drop(columns=[*_ROW_ONLY, *DERIVED])
    summary["processes"] = np.bincount(group)
    summary["processes_used"] = np.bincount(group[used], minlength=len(first))
    new = {**_figures(frame, group, used), **_judgement(frame, group, used)}
    new |= _rank_figures(frame.loc[used, _RANKED_FROM], group[used], _follows_canary(summary["device"]), new)
    summary = summary.drop(columns=[name for name in new if name in summary])
    summary = pd.concat([summary, pd.DataFrame(new, index=summary.index)], axis=1)
    return summary[[*(name for name in columns() if name not in _ROW_ONLY), *DERIVED, *ADDED]]


def _follows_canary(devices: pd.Series[str]) -> pd.Series[bool]:
    """Rows of devices whose figures are corrected by the canary."""
    return devices.map(lambda name: kind_named(name).follows_canary).astype(bool)


def noise_floor(frame: pd.DataFrame) -> NoiseFloor | None:
    """The spread of the run's twin, from rows as `load_frame` gives them; `None` where no round has several visits.

    Corrected figures are compared where the summary would rank by them.
    """
    wanted = [*KEYS, "round", "visit", "device", "variant", "speed_index", "latency_median_s", _CORRECTED]
    fit = fit_rows(frame) & frame["latency_median_s"].notna()
    rows = frame.loc[fit, wanted]
    visited = rows.groupby([*KEYS, "round"])["visit"].transform("nunique") > 1
    rows = rows[visited]
    if rows.empty:
        return None
    corrected = bool(_follows_canary(rows["device"]).all() and rows["speed_index"].notna().all())
    logs = np.log(rows[_CORRECTED if corrected else "latency_median_s"])
    visits = [np.asarray(group) for _, group in logs.groupby([rows[key] for key in (*KEYS, "round")])]
    pool = pooled([sd(group) ** 2 for group in visits], [len(group) - 1 for group in visits])
    assert pool is not None
    return NoiseFloor(
        variant=str(rows["variant"].iloc[0]),
        spread=float(np.expm1(pool.limit())),
        visits=len(rows),
        drift_corrected=corrected,
    )


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
    rows: pd.DataFrame, group: NDArray[np.int64], on_cpu: pd.Series, figures: dict[str, pd.Series]
) -> dict[str, Any]:
    """Intervals of latency and throughput, and the figures to rank by: corrected for drift on the CPU, else raw."""
    cells = len(on_cpu)
    speed = rows["speed_index"].to_numpy()
    known = np.bincount(group[~np.isnan(speed)], minlength=cells)
    corrected = on_cpu.to_numpy() & (known > 0) & (known == np.bincount(group, minlength=cells))
    new: dict[str, Any] = {"drift_corrected": corrected}
    for name, unit, inverse in (("latency", "s", 1), ("throughput", "img_s", -1)):
        stored = f"{name}_median_{unit}" if name == "latency" else f"{name}_{unit}"
        ends = [f"{name}_ci_low_{unit}", f"{name}_ci_high_{unit}"]
        with np.errstate(divide="ignore", invalid="ignore"):
            value, low, high = (np.log(rows[column].to_numpy(dtype=float)) for column in (stored, *ends))
            usual = value - inverse * np.log(speed)
        middle = figures[stored].to_numpy(dtype=float)
        middle_usual = figures[f"{name}_median_corrected_s" if name == "latency" else f"{name}_corrected_{unit}"]
        raw = process_interval(value, low - value, high - value, group, np.log(middle))
        ranked = process_interval(usual, low - value, high - value, group, np.log(middle_usual.to_numpy(dtype=float)))
        new[ends[0]], new[ends[1]] = raw
        new[f"rank_{name}_{unit}"] = np.where(corrected, middle_usual, middle)
        for end, index in (("low", 0), ("high", 1)):
            new[f"rank_{name}_{end}_{unit}"] = np.where(corrected, ranked[index], raw[index])
    for percentile in ("p90", "p95", "p99"):
        scale = new["rank_latency_s"] / figures["latency_median_s"].to_numpy(dtype=float)
        new[f"rank_latency_{percentile}_s"] = figures[f"latency_{percentile}_s"].to_numpy(dtype=float) * scale
    return new


def process_interval(
    value: NDArray[np.float64],
    below: NDArray[np.float64],
    above: NDArray[np.float64],
    group: NDArray[np.int64],
    middle: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the 95 % interval of each group's figure, shape (groups,); NaN where nothing gives one.

    `value`, `below`, `above`, `group`: shape (processes,): the log of each process's own median, the ends of its own
    interval relative to that (logs, NaN where it has none), and its group's number. `middle`: shape (groups,), the log
    of the group's figure, the median over its processes.

    With two processes or more: Student's t about the mean of the logs, at least as wide as their own intervals would
    make that of a mean, and widened where need be to hold the figure. With one process: its own interval, which knows
    nothing of how processes differ.
    """
    from scipy.special import stdtrit

    cells = len(middle)
    keep = np.isfinite(value)
    value, below, above, group = value[keep], below[keep], above[keep], group[keep]

    def mean(of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(group, weights=of, minlength=cells) / np.maximum(count, 1)

    count = np.bincount(group, minlength=cells)
    centre, own_below, own_above = mean(value), mean(below), mean(above)
    several = count > 1
    freedom = np.where(several, count - 1, 1)
    variance = np.bincount(group, weights=(value - centre[group]) ** 2, minlength=cells) / freedom
    half = stdtrit(freedom, 0.5 + CONFIDENCE / 2) * np.sqrt(variance / np.maximum(count, 1))
    half = np.fmax(half, (own_above - own_below) / 2 / np.sqrt(np.maximum(count, 1)))
    low = np.where(several, np.minimum(centre - half, middle), middle + own_below)
    high = np.where(several, np.maximum(centre + half, middle), middle + own_above)
    low[count == 0] = high[count == 0] = np.nan
    with np.errstate(over="ignore"):  # two wild processes have an endless interval
        return np.exp(low), np.exp(high)
