"""How the devices of one run differ: each has its own speed, a random effect beside that of its processes.

log t = cell + device + process. Cells that several devices measured (the twin is one, by design) tell the devices'
effects by least squares; the variance of these, less what processes alone would make of it, is that between devices
(the method of moments for random effects: Searle, Casella and McCulloch, "Variance Components", 1992, 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

FAR = math.log(1.05)
"""A device that is nearer to its class than this is not called far, however alike the others are."""
FAR_SDS = 4.0
"""Standard deviations, told by the median of absolute deviations, beyond which one is."""
_MAD = 1.4826
FEWEST = 3
"""Of two that differ, nobody can say which is sick."""


class Devices(Struct, frozen=True, kw_only=True):
    """The devices of a run, of one class of hardware; effects are differences of natural logs of times."""

    effects: dict[str, float]
    """Of each machine that shares a cell with others: its time over the class's mean. Above 0 is slower."""
    between: float
    """Standard deviation between devices, without what processes make of it; 0 where these explain all."""
    within: float | None
    """Standard deviation between processes of one device; `None` where no cell had two on one."""
    cells: int
    """Cells that several devices measured."""
    far: tuple[str, ...]
    """Machines far from their class: sick, capped, or something else."""

    @property
    def range(self) -> float:
        """The slowest one's time over the fastest one's, less 1: `these 8 H100s differ by 3 %`."""
        values = self.effects.values()
        return math.expm1(max(values) - min(values)) if values else 0.0


def devices_of(frame: pd.DataFrame) -> dict[str, Devices]:
    """By run id, of the fit rows of a `load_frame`; only of runs in which several devices measured one cell."""
    if frame["machine"].nunique() < 2:
        return {}
    time = frame["latency_median_s"].astype(float).fillna(1 / frame["throughput_img_s"].astype(float))
    rows = frame.assign(log_time=np.log(time.to_numpy()))[(time.notna() & frame["machine"].notna()).to_numpy()]
    found = {}
    for run, of_run in rows.groupby("run_id", sort=False):
        machines = of_run.groupby("cell_id")["machine"].transform("nunique")
        shared = of_run[machines > 1]
        if not shared.empty:
            cell, machine = (shared[name].astype("category") for name in ("cell_id", "machine"))
            found[str(run)] = estimated(
                shared["log_time"].to_numpy(dtype=float),
                cell.cat.codes.to_numpy().astype(np.int64),
                machine.cat.codes.to_numpy().astype(np.int64),
                machine.cat.categories.tolist(),
            )
    return found


def estimated(
    logs: NDArray[np.float64], cell: NDArray[np.int64], machine: NDArray[np.int64], names: Sequence[str]
) -> Devices:
    """The effects of machines and the variance components. Shapes (processes,): log times, cell and machine of each."""
    cells, machines = int(cell.max()) + 1, len(names)
    design = np.zeros((len(logs), cells + machines))
    design[np.arange(len(logs)), cell] = 1
    design[np.arange(len(logs)), cells + machine] = 1
    # Effects sum to zero; of machines that share no cell with the others, as near to it as can be.
    constrained = np.vstack([design, np.r_[np.zeros(cells), np.ones(machines)]])
    solution = np.linalg.lstsq(constrained, np.r_[logs, 0.0], rcond=None)[0]
    effects = solution[cells:]
    pair = cell.astype(np.int64) * machines + machine
    count = np.bincount(pair, minlength=cells * machines)
    total = np.bincount(pair, weights=logs, minlength=cells * machines)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    freedom = len(logs) - int((count > 0).sum())
    variance = float(((logs - mean[pair]) ** 2).sum() / freedom) if freedom else None
    each = np.bincount(machine, minlength=machines)
    noise = (variance or 0.0) * float((1 / each).mean())
    between = math.sqrt(max(0.0, float(effects.var(ddof=1)) - noise))
    within = None if variance is None else math.sqrt(variance)
    return Devices(
        effects={name: float(effect) for name, effect in zip(names, effects, strict=True)},
        between=between,
        within=within,
        cells=cells,
        far=_far(effects, names, math.sqrt(noise)),
    )


def _far(effects: NDArray[np.float64], names: Sequence[str], noise: float) -> tuple[str, ...]:
    if len(names) < FEWEST:
        return ()
    away = np.abs(effects - np.median(effects))
    limit = max(FAR, FAR_SDS * _MAD * float(np.median(away)), FAR_SDS * noise)
    return tuple(name for name, one in zip(names, away, strict=True) if one > limit)


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
