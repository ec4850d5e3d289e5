"""What is traded for what: accuracy against time and memory, throughput against the batch; what orders the times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from archbench.choose import curves
from archbench.choose.cell_summary import CellSummary, pareto_front
from archbench.choose.curves import FEWEST_BATCHES, FEWEST_NETWORKS, Correlation, Curve, Predictor
from archbench.choose.toggles import Measure
from archbench.model.units import GIB, NULL, RATIO, Unit, counted, fixed, memory_unit, percent
from archbench.rendering.content import Block, Columns, Part, Section, body, fold, grouped, listed, of, section
from archbench.rendering.figures import BATCH, NETWORK, PHASES, SETTING, CellColumns, by_phase, latency, peak, rate
from archbench.rendering.run_data import RunData

_OBJECTIVES: dict[str, Measure | None] = {"latency": "latency", "img/s": "throughput", "memory": None}
"""What accuracy is traded for, by its name in the table."""
_FEWEST = 3
"""Networks with an accuracy below which a front says nothing."""
_GOOD, _ROUGH = 0.9, 0.7
"""Rank correlations from which a predictor is called good, and rough: of normal figures, 14 % of the pairs are out of
order at 0.9 and a quarter at 0.7 (1/2 - asin(2 sin(pi rho / 6)) / pi)."""
_NAMES: dict[Predictor, str] = {"macs": "MACs", "activations": "activations", "params": "parameters"}


def pareto(run: RunData) -> Section | None:
    """Networks that no other beats in accuracy and one of time, rate and memory, by phase, setting and batch size.

    `None` where nowhere enough networks have an accuracy.
    """

    def blocks(phase: str) -> list[Block]:
        ranked = [one for one in run.cells if one.phase == phase and one.is_usable and one.top1 is not None]
        unit = memory_unit(one.peak_bytes for one in ranked if one.peak_bytes is not None)
        found: list[Block] = []
        for label in run.settings:
            caption = f"{PHASES[phase]}, {label}: accuracy against time and memory"
            table = _fronts(_on_fronts(one for one in ranked if one.setting_label == label), unit, caption)
            # The first setting is read by everybody, the others by who wants them.
            found += body(fold(label, table) if found else table)
        return found

    return section("Accuracy against time and memory", by_phase("{}: fronts", blocks), note=_about_fronts(run))


def _on_fronts(cells: Iterable[CellSummary]) -> list[tuple[CellSummary, str]]:
    """The fronts of one setting by data set and batch, the most accurate first; image sizes as published together."""
    alike = grouped(cells, lambda one: (one.accuracy_dataset or "", one.asked_size or 0, one.batch_size))
    found: list[tuple[CellSummary, str]] = []
    for _, members in sorted(alike.items()):
        if len(members) < _FEWEST:
            continue
        marks = {name: _marks(members, measure) for name, measure in _OBJECTIVES.items()}
        for place, one in sorted(enumerate(members), key=lambda placed: (-(placed[1].top1 or 0.0), placed[1].variant)):
            words = [name for name, (on, _) in marks.items() if on[place]]
            words += [f"nearly {name}" for name, (_, near) in marks.items() if near[place]]
            if words:
                found.append((one, ", ".join(words)))
    return found


def _marks(cells: Sequence[CellSummary], measure: Measure | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells are on the front of accuracy and one objective, and which would be were they better by the noise."""
    costs = np.array([(-(one.top1 or 0.0), _cost(one, measure)) for one in cells], dtype=float)
    on = pareto_front(costs)
    if measure is None:  # memory does not vary from one measurement to the next
        return on, np.zeros(len(cells), dtype=bool)
    halves = np.array([one.timed(measure).half for one in cells])
    lucky = np.repeat(costs[:, None], on.sum(), axis=1)
    lucky[..., 1] /= np.exp(np.hypot(halves[:, None], halves[on][None]))
    front = costs[on][None]
    beaten = np.any(np.all(front <= lucky, axis=2) & np.any(front < lucky, axis=2), axis=1)
    return on, ~on & ~beaten & ~np.isnan(costs).any(axis=1)


def _cost(one: CellSummary, measure: Measure | None) -> float:
    """Smaller is better; NaN where it was not measured, or its interval is too wide to be evidence."""
    if measure is None:
        return one.peak_bytes or one.process_bytes or np.nan  # the setting has the one or the other
    figure = one.timed(measure)
    if not figure.evidence or not figure.value:
        return np.nan
    return figure.value if measure == "latency" else 1 / figure.value


def _fronts(found: Sequence[tuple[CellSummary, str]], unit: Unit, caption: str) -> Block:
    words = {one.cell_id: on for one, on in found}
    columns: CellColumns = {
        **NETWORK | SETTING | BATCH,
        ">Top-1 %": lambda one: fixed(one.top1, RATIO, 1),
        "Data set": lambda one: one.accuracy_dataset or NULL,
        ">Latency ms": latency,
        ">img/s": rate,
        f">Peak {unit.symbol}": partial(peak, unit),
        "On the front of": lambda one: words[one.cell_id],
    }
    if len({one.accuracy_dataset for one, _ in found}) == 1:
        del columns["Data set"]
    return listed([one for one, _ in found], columns, noun="cells on a front", caption=caption)


def _about_fronts(run: RunData) -> str:
    known = [one for one in run.cells if one.top1 is not None]
    without = {one.variant for one in run.cells if one.top1 is None}
    note = (
        "Networks that no other beats in accuracy without being slower, or larger in memory, among cells of one "
        "setting and batch size. Nearly: would be on the front were it faster by its ± and the other's."
    )
    if len({one.accuracy_dataset for one in known}) > 1:
        note += " Networks whose accuracies are of different data sets stand on different fronts."
    if len({one.input_size for one in known} - {None}) > 1:
        note += (
            " Image sizes differ: each network is ranked at the size at which it was measured, and its accuracy is "
            "that of its own size and recipe (see the sources below)."
        )
    if without:
        named = counted(len(without), "network")
        note += f" Of {named} archbench knows no accuracy, so that they cannot be ranked here; a suite can state it."
    return note


def batches(run: RunData) -> Section | None:
    """Where throughput saturates, and the largest batch that fits; `None` where there is nothing to tell."""
    found = curves.curves(run.cells)
    return section("Batch sizes", _knees(found, run), _largest(found, run))


def _knees(found: Sequence[Curve], run: RunData) -> Part:
    bent = [curve for curve in found if curve.rising is not None]
    if not bent:
        few = f"Where throughput saturates takes {FEWEST_BATCHES} batch sizes of a network to see; none here has them."
        return few if len({one.batch_size for one in run.cells}) > 1 else None
    note = (
        "The knee is the smallest batch whose throughput is not shown, by the ± of both, to be more than "
        f"{percent(curves.KNEE)} below the best. An arrow: still rising there."
    )
    columns: Columns[Curve] = {
        **of(_first, NETWORK, SETTING),
        ">Knee": lambda curve: f"{_knee(curve).batch_size:,}{' ↑' if curve.rising else ''}",
        ">img/s there": lambda curve: rate(_knee(curve)),
        ">Latency ms": lambda curve: latency(_knee(curve)),
        ">Most img/s": lambda curve: rate(curve.best or _knee(curve)),
        ">at batch": lambda curve: f"{(curve.best or _knee(curve)).batch_size:,}",
        ">Measured to": lambda curve: f"{curve.points[-1].batch_size:,}",
    }
    return _of_curves(bent, run, columns, "where throughput saturates", note)


def _largest(found: Sequence[Curve], run: RunData) -> tuple[Block, ...]:
    gpus = run.environment.gpus
    memory = gpus[0].memory_bytes if gpus else run.environment.memory_bytes
    note = (
        "Images in one step whose live tensors fit into a memory of that size, by the network's predicted memory at "
        f"any batch size; `≤` by the peaks of two batch sizes, `{NULL}` of one, in a run of an older version. Where a "
        "batch was measured that does not fit, the largest that did and the smallest that did not stand in brackets. "
        "Allocators round up, kernels take scratch, and on a GPU CUDA's context and fragments take some more: leave a "
        "tenth. Compiled steps are not predicted. `archbench fits NAME --memory 8GiB --verify` tries the edge."
    )

    def last(curve: Curve) -> CellSummary:
        return (curve.points or curve.failed)[-1]

    def peak(one: CellSummary) -> str:
        return one.status if one.peak_bytes is None else f"{fixed(one.peak_bytes, GIB, 2)} GiB"

    def fitting(budget: int, curve: Curve) -> str:
        fit = curves.fit_within(budget, curve, memory)
        text = NULL if fit.predicted is None else f"{'≤ ' if fit.at_most else ''}{fit.predicted:,}"
        return text if fit.exceeded is None else f"{text} ({fit.measured or 0:,} to {fit.exceeded:,})"

    columns: Columns[Curve] = {
        **of(_first, NETWORK, SETTING),
        **{f">{fixed(budget, GIB, 0)} GiB": partial(fitting, budget) for budget in curves.BUDGETS},
        ">Measured to": lambda curve: f"{last(curve).batch_size:,}",
        ">Peak there": lambda curve: peak(last(curve)),
    }
    # A peak of it is predicted, or it ran out of memory; else `Measured to` is all there is, and stands elsewhere.
    told = [
        curve for curve in found if curve.failed or any(one.predicted_peak_bytes is not None for one in curve.points)
    ]
    return _of_curves(told, run, columns, "the largest batch that fits", note)


def _of_curves(told: Sequence[Curve], run: RunData, columns: Columns[Curve], what: str, note: str) -> tuple[Block, ...]:
    """A table of curves for each phase, by setting and name; the note stands above the first."""
    above = [note]

    def blocks(phase: str) -> Part:
        chosen = [curve for curve in told if _first(curve).phase == phase]
        chosen.sort(key=lambda curve: (run.settings[_first(curve).setting_label], _first(curve).variant))
        tables = listed(chosen, columns, noun="networks and settings", caption=f"{PHASES[phase]}: {what}")
        return (above.pop() if above else None, tables) if chosen else None

    return by_phase(f"{{}}: {what}", blocks)


def _first(curve: Curve) -> CellSummary:
    return (*curve.points, *curve.failed)[0]


def _knee(curve: Curve) -> CellSummary:
    assert curve.knee is not None, "a curve that rises or does not has rates"
    return curve.knee


def predictors(run: RunData) -> Section | None:
    """Time against counts; `None` below `FEWEST_NETWORKS` networks."""
    found = curves.correlations(run.cells)
    by_place = {(_place(one), one.predictor): one for one in found}

    def rho(count: Predictor, one: Correlation) -> str:
        of_count = by_place.get((_place(one), count))
        if of_count is None:
            return NULL
        low, high = of_count.low, of_count.high
        return f"{of_count.rho:.2f}{'' if low is None or high is None else f' ({low:.2f} to {high:.2f})'}"

    columns: Columns[Correlation] = {
        "Phase": lambda one: one.phase,
        "Setting": lambda one: one.setting,
        ">Batch": lambda one: str(one.batch_size),
        ">Networks": lambda one: f"{one.networks:,}",
        **{f">ρ of {name}": partial(rho, count) for count, name in _NAMES.items()},
    }
    each = list({_place(one): one for one in reversed(found)}.values())[::-1]
    return section(
        "Are MACs a good predictor here?",
        listed(each, columns, noun="settings", caption="Rank correlation of latency with counts"),
        note=f"{_answer(found)} ρ is Spearman's rank correlation of the latency with a count, over networks measured "
        f"under the same setting (at least {FEWEST_NETWORKS}), with its 95 % interval; 0 is no order, and perfect "
        "order, 1, has no interval.",
    )


def _answer(found: Sequence[Correlation]) -> str:
    macs, activations = (
        next((one for one in found if one.predictor == name), None) for name in ("macs", "activations")
    )
    if macs is None:
        return "All networks have the same MACs, so they predict nothing."
    word = "good" if macs.rho >= _GOOD else "rough" if macs.rho >= _ROUGH else "poor"
    where = f"{macs.phase}, {macs.setting}, batch {macs.batch_size:,}"
    answer = f"MACs are a {word} predictor of the order of latencies ({where}: ρ = {macs.rho:.2f})"
    if activations is None or _place(activations) != _place(macs):
        return f"{answer}."
    pairs = ((activations, macs), (macs, activations))  # without an interval nothing is told
    if any(one.low is not None and one.low > other.rho for one, other in pairs):
        better = "activations are a better one" if activations.rho > macs.rho else "activations are a worse one"
    else:
        better = "activations cannot be told from them"
    return f"{answer}; {better} (ρ = {activations.rho:.2f})."


def _place(one: Correlation) -> tuple[str, str, int]:
    return one.phase, one.setting, one.batch_size
