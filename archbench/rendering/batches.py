"""Batch sizes: where throughput saturates, the largest batch that fits, and what orders the networks' times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from archbench.choose.cell_summary import CellSummary
from archbench.choose.curves import BUDGETS, FEWEST_NETWORKS, KNEE, Correlation, Curve, correlations, curves, fits
from archbench.model.units import GIB, NULL, fixed, percent
from archbench.rendering.content import Paragraph, Section, listed
from archbench.rendering.figures import PHASES, latency, rate
from archbench.rendering.run_data import RunData

_GOOD, _ROUGH = 0.9, 0.7
"""Rank correlations from which a predictor is called good, and rough: of normal figures, 14 % of the pairs are out of
order at 0.9 and a quarter at 0.7 (1/2 - asin(2 sin(pi rho / 6)) / pi)."""
_NAMES = {"macs": "MACs", "activations": "activations", "params": "parameters"}


def batches(run: RunData) -> Section | None:
    """All about batch sizes and memory; `None` where there is nothing to tell."""
    found = curves(run.cells)
    parts = [*_knees(found, run), *_largest(found, run)]
    return Section(title="Batch sizes", blocks=tuple(parts)) if parts else None


def predictors(run: RunData) -> Section | None:
    """Time against counts; `None` below `FEWEST_NETWORKS` networks."""
    found = correlations(run.cells)
    together: dict[tuple[str, str, int], dict[str, Correlation]] = {}
    for one in found:
        together.setdefault((one.phase, one.setting, one.batch_size), {})[one.predictor] = one

    def row(item: tuple[tuple[str, str, int], dict[str, Correlation]]) -> tuple[str, ...]:
        (phase, setting, batch_size), by_name = item
        networks = next(iter(by_name.values())).networks
        return (phase, setting, str(batch_size), f"{networks:,}", *(_rho(by_name.get(name)) for name in _NAMES))

    headings = ("Phase", "Setting", ">Batch", ">Networks", *(f">ρ of {name}" for name in _NAMES.values()))
    caption = "Rank correlation of latency with counts"
    blocks = listed(list(together.items()), row, headings, noun="settings", caption=caption)
    if not blocks:
        return None
    note = Paragraph(
        f"{_answer(found)} ρ is Spearman's rank correlation of the latency with a count, over networks measured under "
        f"the same setting (at least {FEWEST_NETWORKS}), with its 95 % interval; 0 is no order, and perfect order, 1, "
        "has no interval."
    )
    return Section(title="Are MACs a good predictor here?", blocks=(note, *blocks))


def _knees(found: Sequence[Curve], run: RunData) -> list[Section]:
    note = "The knee is the smallest batch whose throughput is within 5 % of the best. An arrow: still rising there."
    if run.floor is not None and run.floor.spread > KNEE:
        note += (
            f" The noise floor, {percent(run.floor.spread)}, is more than these 5 %, so a knee may be off by one batch."
        )
    bent = [curve for curve in found if curve.rising is not None]
    numbers = (">Knee", ">img/s there", ">Latency ms", ">Most img/s", ">at batch", ">Measured to")
    headings = ("Network", "Setting", *numbers)
    return _by_phase(bent, run, _knee_row, headings, "where throughput saturates", note)


def _by_phase(
    told: Sequence[Curve],
    run: RunData,
    row: Callable[[Curve], tuple[str, ...]],
    headings: tuple[str, ...],
    what: str,
    note: str,
) -> list[Section]:
    """A table of curves for each phase, by setting and name; the note stands above the first."""
    place = {label: number for number, label in enumerate(run.setting_labels())}
    parts: list[Section] = []
    for phase, name in PHASES.items():
        chosen = [curve for curve in told if _ends(curve)[0].phase == phase]
        chosen.sort(key=lambda curve: (place[_ends(curve)[0].setting_label], _ends(curve)[0].variant))
        title = f"{name}: {what}"
        blocks = listed(chosen, row, headings, noun="networks and settings", caption=title)
        if blocks:
            above = () if parts else (Paragraph(note),)
            parts.append(Section(title=title, blocks=(*above, *blocks), phase=phase))
    return parts


def _knee_row(curve: Curve) -> tuple[str, ...]:
    knee, best, last = curve.knee, curve.best, curve.points[-1]
    assert knee is not None, "a curve that rises or does not has rates"
    assert best is not None, "a curve that rises or does not has rates"
    return (
        knee.network,
        knee.setting_label,
        f"{knee.batch_size:,}{' ↑' if curve.rising else ''}",
        rate(knee),
        latency(knee),
        rate(best),
        f"{best.batch_size:,}",
        f"{last.batch_size:,}",
    )


def _largest(found: Sequence[Curve], run: RunData) -> list[Section]:
    gpus = run.environment.gpus
    memory = gpus[0].memory_bytes if gpus else run.environment.memory_bytes
    note = (
        "Images in one step whose live tensors fit into a memory of that size, by the line through the peaks predicted "
        f"for two batch sizes; `{NULL}` where only one was predicted, which gives no line. Where a batch was measured "
        "that does not fit, the largest that did and the smallest that did not stand in brackets. Allocators round up, "
        "and on a GPU CUDA's context and fragments take some more: leave a tenth. Compiled steps are not predicted."
    )
    budgets = (f">{fixed(budget, GIB, 0)} GiB" for budget in BUDGETS)
    headings = ("Network", "Setting", *budgets, ">Measured to", ">Peak there")
    told = [curve for curve in found if _tells(curve)]
    return _by_phase(
        told, run, lambda curve: _largest_row(curve, memory), headings, "the largest batch that fits", note
    )


def _ends(curve: Curve) -> tuple[CellSummary, CellSummary]:
    cells = (*curve.points, *curve.failed)
    return cells[0], (curve.points or curve.failed)[-1]


def _tells(curve: Curve) -> bool:
    """A peak of it is predicted, or it ran out of memory; else `Measured to` is all there is, and stands elsewhere."""
    return bool(curve.failed) or any(one.predicted_peak_bytes is not None for one in curve.points)


def _largest_row(curve: Curve, memory_bytes: int | None) -> tuple[str, ...]:
    cells = []
    for fit in fits(curve, memory_bytes=memory_bytes):
        text = NULL if fit.predicted is None else f"{fit.predicted:,}"
        if fit.exceeded is not None:
            text += f" ({fit.measured or 0:,} to {fit.exceeded:,})"
        cells.append(text)
    first, last = _ends(curve)
    peak = f"{fixed(last.peak_bytes, GIB, 2)} GiB" if last.peak_bytes is not None else last.status
    return (first.network, first.setting_label, *cells, f"{last.batch_size:,}", peak)


def _rho(one: Correlation | None) -> str:
    if one is None:
        return NULL
    interval = "" if one.low is None or one.high is None else f" ({one.low:.2f} to {one.high:.2f})"
    return f"{one.rho:.2f}{interval}"


def _answer(found: Iterable[Correlation]) -> str:
    """The question answered at the first setting and smallest batch, where both counts are known."""
    first: dict[str, Correlation] = {}
    for one in found:
        first.setdefault(one.predictor, one)
    macs, activations = first.get("macs"), first.get("activations")
    if macs is None:
        return "All networks have the same MACs, so they predict nothing."
    word = "good" if macs.rho >= _GOOD else "rough" if macs.rho >= _ROUGH else "poor"
    where = f"{macs.phase}, {macs.setting}, batch {macs.batch_size:,}"
    answer = f"MACs are a {word} predictor of the order of latencies ({where}: ρ = {macs.rho:.2f})"
    if activations is None or _place(activations) != _place(macs):
        return f"{answer}."
    if _exceeds(activations, macs) or _exceeds(macs, activations):
        better = "activations are a better one" if activations.rho > macs.rho else "activations are a worse one"
    else:
        better = "activations cannot be told from them"
    return f"{answer}; {better} (ρ = {activations.rho:.2f})."


def _place(one: Correlation) -> tuple[str, str, int]:
    return one.phase, one.setting, one.batch_size


def _exceeds(one: Correlation, other: Correlation) -> bool:
    """All of its interval lies above the other's value; without an interval nothing is told."""
    return one.low is not None and one.low > other.rho
