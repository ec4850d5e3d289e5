"""The devices of runs as their rows have them: effects, what intervals have to allow for, ratios to the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from archbench.stats.devices import Devices, told_by

if TYPE_CHECKING:
    import pandas as pd


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


def ratios_to_reference(frame: pd.DataFrame, reference: str) -> dict[str, float]:
    """Of each cell its time over that of the cell `reference` on the very device that measured it, by cell id.

    Of fit rows of a `load_frame`; the median over processes. Empty where the reference has no time.
    """
    fit = frame[((frame["status"] == "ok") & (frame["verdict"] != "invalid")).to_numpy(dtype=bool)]
    machine = fit["machine"].astype(object).fillna("")
    time = fit["latency_median_s"].astype(float)
    known = time[(fit["cell_id"] == reference).to_numpy()]
    usual = known.groupby(machine[known.index]).median()
    ratios = (time / machine.map(usual)).groupby(fit["cell_id"]).median().dropna()
    return {str(cell): float(ratio) for cell, ratio in ratios.items()}
