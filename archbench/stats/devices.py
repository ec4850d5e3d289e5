"""How devices of one class differ: each has its own speed, a random effect beside that of its processes.

log t = cell + device + process. Cells that several devices measured (the twin is one, by design) tell the devices'
effects by least squares; the variance of these, less what processes alone would make of it, is that between devices
(the method of moments for random effects: Searle, Casella and McCulloch, "Variance Components", 1992, 4.3).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

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
    """Of each machine that shares a cell with others: its time over the class's mean. Above 0 is slower.

    That mean is of those that are not `far`, and so is `between`: one sick card says nothing of the others.
    """
    between: float
    """Standard deviation between devices, without what processes make of it; 0 where these explain all."""
    within: float | None
    """Standard deviation between processes of one device; `None` where no cell had two on one."""
    cells: int
    """Cells that several devices measured."""
    far: tuple[str, ...]
    """Machines far from their class: sick, capped, or something else."""

    @property
    def well(self) -> tuple[str, ...]:
        """Those that are not far."""
        return tuple(name for name in self.effects if name not in self.far)

    def range(self, names: Iterable[str]) -> float:
        """The slowest one's time over the fastest one's, less 1: `these 8 H100s differ by 3 %`."""
        values = [self.effects[name] for name in names]
        return round(math.expm1(max(values) - min(values)), 6)


def told_by(times: Iterable[tuple[str, str, float]]) -> Devices | None:
    """Of the cell, machine and seconds of each process; `None` where no cell was measured by several devices."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for cell, machine, seconds in times:
        found[cell].append((machine, math.log(seconds)))
    shared = [rows for rows in found.values() if len({machine for machine, _ in rows}) > 1]
    if not shared:
        return None
    names = sorted({machine for rows in shared for machine, _ in rows})
    number = {name: place for place, name in enumerate(names)}
    each = [(log, cell, number[machine]) for cell, rows in enumerate(shared) for machine, log in rows]
    logs, cells, machines = (np.array(column) for column in zip(*each, strict=True))
    return estimated(logs, cells, machines, names)


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
    noise = (variance or 0.0) / np.bincount(machine, minlength=machines)
    far = _far(effects, names, math.sqrt(float(noise.mean())))
    well = np.array([name not in far for name in names])
    effects -= effects[well].mean()
    between = math.sqrt(max(0.0, float(effects[well].var(ddof=1) - noise[well].mean())))
    within = None if variance is None else math.sqrt(variance)
    return Devices(
        effects={name: float(effect) for name, effect in zip(names, effects, strict=True)},
        between=between,
        within=within,
        cells=cells,
        far=far,
    )


def _far(effects: NDArray[np.float64], names: Sequence[str], noise: float) -> tuple[str, ...]:
    if len(names) < FEWEST:
        return ()
    away = np.abs(effects - np.median(effects))
    limit = max(FAR, FAR_SDS * _MAD * float(np.median(away)), FAR_SDS * noise)
    return tuple(name for name, one in zip(names, away, strict=True) if one > limit)
