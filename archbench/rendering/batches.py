"""Batch sizes: where throughput saturates, the largest batch that fits, and what orders the networks' times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from archbench.choose.cell_summary import CellSummary
from archbench.choose.curves import (
    BUDGETS,
    FEWEST_BATCHES,
    FEWEST_NETWORKS,
    KNEE,
    Correlation,
    Curve,
    Predictor,
    correlations,
    curves,
    fits,
)
from archbench.model.units import GIB, NULL, fixed, percent
from archbench.rendering.content import Block, Paragraph, Section, listed, of
from archbench.rendering.figures import NETWORK, PHASES, SETTING, by_phase, latency, rate
from archbench.rendering.run_data import RunData

_GOOD, _ROUGH = 0.9, 0.7
"""Rank correlations from which a predictor is called good, and rough: of normal figures, 14 % of the pairs are out of
order at 0.9 and a quarter at 0.7 (1/2 - asin(2 sin(pi rho / 6)) / pi)."""
_NAMES: dict[Predictor, str] = {"macs": "MACs", "activations": "activations", "params": "parameters"}


def batches(run: RunData) -> Section | None:
    """All about batch sizes and memory; `None` where there is nothing to tell."""
    found = curves(run.cells)
    parts = [*_knees(found, run), *_largest(found, run)]
    return Section(title="Batch sizes", blocks=tuple(parts)) if parts else None


def predictors(run: RunData) -> Section | None:
    """Time against counts; `None` below `FEWEST_NETWORKS` networks."""
    found = correlations(run.cells)
    if not found:
        return None
    by_place = {(_place(one), one.predictor): one for one in found}

    def rho(count: Predictor, one: Correlation) -> str:
        return _rho(by_place.get((_place(one), count)))

    columns: dict[str, Callable[[Correlation], str]] = {
        "Phase": lambda one: one.phase,
        "Setting": lambda one: one.setting,
        ">Batch": lambda one: str(one.batch_size),
        ">Networks": lambda one: f"{one.networks:,}",
        **{f">ρ of {name}": partial(rho, count) for count, name in _NAMES.items()},
    }
    each = list({_place(one): one for one in reversed(found)}.values())[::-1]
    blocks = listed(each, columns, noun="settings", caption="Rank correlation of latency with counts")
    note = Paragraph(
        f"{_answer(found)} ρ is Spearman's rank correlation of the latency with a count, over networks measured under "
        f"the same setting (at least {FEWEST_NETWORKS}), with its 95 % interval; 0 is no order, and perfect order, 1, "
        "has no interval."
    )
    return Section(title="Are MACs a good predictor here?", blocks=(note, *blocks))


def _knees(found: Sequence[Curve], run: RunData) -> list[Block]:
    bent = [curve for curve in found if curve.rising is not None]
    if not bent:
        few = f"Where throughput saturates takes {FEWEST_BATCHES} batch sizes of a network to see; none here has them."
        return [Paragraph(few)] if len({one.batch_size for one in run.cells}) > 1 else []
    note = (
        "The knee is the smallest batch whose throughput is not shown, by the ± of both, to be more than "
        f"{percent(KNEE)} below the best. An arrow: still rising there."
    )
    columns: dict[str, Callable[[Curve], str]] = {
        **of(_first, NETWORK, SETTING),
        ">Knee": lambda curve: f"{_knee(curve).batch_size:,}{' ↑' if curve.rising else ''}",
        ">img/s there": lambda curve: rate(_knee(curve)),
        ">Latency ms": lambda curve: latency(_knee(curve)),
        ">Most img/s": lambda curve: rate(curve.best or _knee(curve)),
        ">at batch": lambda curve: f"{(curve.best or _knee(curve)).batch_size:,}",
        ">Measured to": lambda curve: f"{curve.points[-1].batch_size:,}",
    }
    return [*_tables(bent, run, columns, "where throughput saturates", note)]


def _tables(
    told: Sequence[Curve], run: RunData, columns: dict[str, Callable[[Curve], str]], what: str, note: str
) -> list[Section]:
    """A table of curves for each phase, by setting and name; the note stands above the first."""
    above = [Paragraph(note)]

    def blocks(phase: str) -> list[Block]:
        chosen = [curve for curve in told if _first(curve).phase == phase]
        chosen.sort(key=lambda curve: (run.settings[_first(curve).setting_label], _first(curve).variant))
        tables = listed(chosen, columns, noun="networks and settings", caption=f"{PHASES[phase]}: {what}")
        return [*(above.pop() for _ in above[:1]), *tables] if tables else []

    return by_phase(f"{{}}: {what}", blocks)


def _knee(curve: Curve) -> CellSummary:
    assert curve.knee is not None, "a curve that rises or does not has rates"
    return curve.knee


def _largest(found: Sequence[Curve], run: RunData) -> list[Section]:
    gpus = run.environment.gpus
    memory = gpus[0].memory_bytes if gpus else run.environment.memory_bytes
    note = (
        "Images in one step whose live tensors fit into a memory of that size, by the network's predicted memory at "
        f"any batch size; `≤` by the peaks of two batch sizes, `{NULL}` of one, in a run of an older version. Where a "
        "batch was measured that does not fit, the largest that did and the smallest that did not stand in brackets. "
        "Allocators round up, kernels take scratch, and on a GPU CUDA's context and fragments take some more: leave a "
        "tenth. Compiled steps are not predicted. `archbench fits NAME --memory 8GiB --verify` tries the edge."
    )
    columns: dict[str, Callable[[Curve], str]] = {
        **of(_first, NETWORK, SETTING),
        **{f">{fixed(budget, GIB, 0)} GiB": partial(_fit, budget, memory) for budget in BUDGETS},
        ">Measured to": lambda curve: f"{_last(curve).batch_size:,}",
        ">Peak there": lambda curve: _peak(_last(curve)),
    }
    told = [curve for curve in found if _tells(curve)]
    return _tables(told, run, columns, "the largest batch that fits", note)


def _first(curve: Curve) -> CellSummary:
    return (*curve.points, *curve.failed)[0]


def _last(curve: Curve) -> CellSummary:
    return (curve.points or curve.failed)[-1]


def _tells(curve: Curve) -> bool:
    """A peak of it is predicted, or it ran out of memory; else `Measured to` is all there is, and stands elsewhere."""
    return bool(curve.failed) or any(one.predicted_peak_bytes is not None for one in curve.points)


def _fit(budget: int, memory_bytes: int | None, curve: Curve) -> str:
    (fit,) = fits(curve, (budget,), memory_bytes)
    text = NULL if fit.predicted is None else f"{'≤ ' if fit.at_most else ''}{fit.predicted:,}"
    return text if fit.exceeded is None else f"{text} ({fit.measured or 0:,} to {fit.exceeded:,})"


def _peak(one: CellSummary) -> str:
    return one.status if one.peak_bytes is None else f"{fixed(one.peak_bytes, GIB, 2)} GiB"


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
