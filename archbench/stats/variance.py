"""How far repeats of one thing scatter, told from a few repeats of many things; and how devices of one class differ.

Two repeats of one thing know next to nothing of its scatter: Student's t pays 12.7 standard deviations for them. Many
things know it together, as far as they scatter alike, and how far they do shows in how much their variances differ.
Smyth, "Linear Models and Empirical Bayes Methods" (2004), as in limma: a thing's true variance is drawn from a scaled
inverse chi-squared about the pooled one, and its own is moderated towards that. Error rates:
benchmarks/simulated_spread.py.

Each device has its own speed, a random effect beside that of its processes: log t = cell + device + process. Cells that
several devices measured (the twin is one, by design) tell the devices' effects by least squares; the variance of these,
less what processes alone would make of it, is that between devices (the method of moments for random effects: Searle,
Casella and McCulloch, "Variance Components", 1992, 4.3).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

FEWEST_VARIANCES = 3
"""Fewer do not tell how much variances differ."""
UNKNOWN_PRIOR = 4.0
"""Degrees of freedom of earlier pools that are too few to tell how much they differ: true standard deviations within a
factor of about 1.5 of each other."""
ALIKE = 1e6
"""Degrees of freedom of a prior where all scatter alike: as good as endless, and a number that JSON has."""
LEAST_PRIOR = 2.0
"""Degrees of freedom of a prior, at least, where things without repeats are judged by it: few variances with one
degree each say hardly more than that they differ, and by the one degree or less that they then seem to be worth a thing
without repeats would pay 12 to 60 standard deviations (benchmarks/simulated_spread.py)."""
_SMALLEST = 1e-5
"""Of the median variance: what a smaller one counts as where logs are taken (as in limma)."""
FAR = math.log(1.05)
"""A device that is nearer to its class than this is not called far, however alike the others are."""
FAR_SDS = 4.0
"""Standard deviations, told by the median of absolute deviations, beyond which one is."""
_MAD = 1.4826
FEWEST_DEVICES = 3
"""Of two that differ, nobody can say which is sick."""


class Pool(Struct, frozen=True, kw_only=True):
    """What the variances of many things say together."""

    variance: float
    """The typical one."""
    freedom: float
    """Degrees of freedom that it is known by."""
    prior: float
    """Degrees of freedom that it counts for beside a thing's own; `ALIKE` where none scatters unlike the others."""

    def limit(self, confidence: float = 0.95) -> float:
        """What two further repeats of a typical thing lie within of each other, with this confidence.

        The repeatability limit of ISO 5725-6, by Student's t: 2.8 standard deviations where these are known well.
        """
        return float(t_quantile(self.freedom, (1 + confidence) / 2)) * math.sqrt(2 * self.variance)


def pooled(
    variances: ArrayLike, freedoms: ArrayLike, freedom: float | None = None, *, least_prior: float = 0.0
) -> Pool | None:
    """What variances, each with its degrees of freedom, say together; `None` where none has any.

    `freedom`: of all together, where repeats of several things were taken in one go and count once; else their sum.
    `least_prior`: the prior's degrees of freedom, at least. These come from the moments of log s^2 (Smyth 2004, 6.2),
    the typical variance from its likelihood given these: with one degree of freedom each, a mean of logs would throw
    away half of what they know.
    Raises `ValueError` for a negative or infinite variance.
    """
    s2, d = (np.asarray(given, dtype=np.float64).ravel() for given in (variances, freedoms))
    s2, d = s2[d > 0], d[d > 0]
    if not s2.size:
        return None
    if not (np.isfinite(s2) & (s2 >= 0)).all():
        raise ValueError("a variance is 0 or more, and finite")
    prior = max(_prior_freedom(s2, d), least_prior)
    known = float(d.sum()) if freedom is None else freedom
    return Pool(variance=_scale(s2, d, prior), freedom=known, prior=prior)


def joined(found: Pool | None, earlier: Sequence[Pool]) -> Pool | None:
    """`found` moderated towards what earlier pools of the same kind showed; `None` where there is none at all.

    Pools differ as things do, so that the same is done once more, one level up. Earlier ones never count for more
    degrees of freedom than they have.
    """
    if not earlier:
        return found
    every = [*earlier, found] if found else earlier
    typical = pooled([one.variance for one in every], [one.freedom for one in every])
    assert typical is not None, "every pool has degrees of freedom"
    prior = typical.prior if len(every) >= FEWEST_VARIANCES else UNKNOWN_PRIOR
    prior = min(prior, sum(one.freedom for one in earlier))
    if found is None:
        return Pool(variance=typical.variance, freedom=prior, prior=min(one.prior for one in earlier))
    variance = (prior * typical.variance + found.freedom * found.variance) / (prior + found.freedom)
    return Pool(variance=variance, freedom=prior + found.freedom, prior=found.prior)


def moderated(pool: Pool, variances: ArrayLike, freedoms: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each thing's variance moderated towards the pool's, and its degrees of freedom; shapes as given.

    A thing without repeats (0 degrees) has the pool's. No variance is known better than the pool together (as in
    limma), which pays for not knowing the typical one exactly.
    """
    s2, d = (np.asarray(given, dtype=np.float64) for given in (variances, freedoms))
    own = np.where(d > 0, s2, 0.0)
    return (pool.prior * pool.variance + d * own) / (pool.prior + d), np.minimum(pool.prior + d, pool.freedom)


def t_quantile(freedom: ArrayLike, probability: float) -> NDArray[np.float64]:
    """Student's t quantile, elementwise."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(np.asarray(freedom, dtype=np.float64), probability))


def _prior_freedom(s2: NDArray[np.float64], d: NDArray[np.float64]) -> float:
    """By how much log variances differ beyond what their own degrees of freedom explain."""
    from scipy.special import digamma, polygamma

    positive = s2[s2 > 0]
    if s2.size < FEWEST_VARIANCES or not positive.size:
        return ALIKE
    logs = np.log(np.maximum(s2, _SMALLEST * np.median(positive))) - digamma(d / 2) + np.log(d / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, d / 2).mean())
    return min(2 * _inverse_trigamma(excess), ALIKE) if excess > 0 else ALIKE


def _inverse_trigamma(value: float) -> float:
    """Newton's iteration on 1/trigamma, which is nearly linear (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        change = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += change
        if abs(change) < 1e-8 * x:
            break
    return x


def _scale(s2: NDArray[np.float64], d: NDArray[np.float64], prior: float) -> float:
    """The variance s0^2 that makes s^2 / s0^2 ~ F(d, prior) likeliest: where sum(d s^2 / moderated) = sum(d)."""
    scale = float((d * s2).sum() / d.sum())
    if prior == ALIKE or scale == 0:
        return scale
    for _ in range(200):
        factor = float((d * s2 * (prior + d) / (prior * scale + d * s2)).sum() / d.sum())
        scale *= factor
        if abs(factor - 1) < 1e-9:
            break
    return scale


def median_variance(count: ArrayLike) -> NDArray[np.float64]:
    """Variance of the median of so many independent values over that of one: about normal, 1/n up to two of them.

    (pi/2) / (n + pi/2 - 1) is within 2 % of the exact one for odd numbers, and up to 15 % above it for even ones.
    """
    n = np.asarray(count, dtype=np.float64)
    return np.where(n > 2, math.pi / 2 / (n + math.pi / 2 - 1), 1 / np.maximum(n, 1))


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
    far: tuple[str, ...] = ()
    if machines >= FEWEST_DEVICES:
        away = np.abs(effects - np.median(effects))
        limit = max(FAR, FAR_SDS * _MAD * float(np.median(away)), FAR_SDS * math.sqrt(float(noise.mean())))
        far = tuple(name for name, one in zip(names, away, strict=True) if one > limit)
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
