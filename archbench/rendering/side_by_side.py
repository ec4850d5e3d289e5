"""Several runs in one report: which they are, in what they differ, and the cells that they share, column by column."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
from msgspec import Struct

from archbench.choose.cell_summary import CellSummary
from archbench.choose.toggles import Measure, gain
from archbench.model.cell import short_id
from archbench.model.units import MIB, NULL, excess, whole
from archbench.rendering.content import Block, Columns, Part, body, fold, grouped, of, section, table, tabled, wide
from archbench.rendering.figures import BATCH, NETWORK, PHASES, SETTING, by_phase, latency, rate
from archbench.rendering.provenance import devices_in_short, machine_facts, verdicts
from archbench.rendering.run_data import RunData
from archbench.rendering.toggles import ratio_text

_RATIOS = (
    "Each figure is a time over that of the reference, {reference}, on the device that measured it: 2.00 takes twice "
    "as long as the reference there. A cell that is nearer to it on one machine than on another suits the first better."
)
_MOST_RATIOS = 100
"""Rows of a table that stands open."""
_BEYOND = "Two networks of one run differ where their times differ by more than `Differ beyond` says."
_Columns = dict[str, Callable[[dict[str, CellSummary]], str]]
"""From the cell of each run that has it, by letter."""
_PLACE: _Columns = of(lambda found: next(iter(found.values())), NETWORK, SETTING, BATCH)


class Named(Struct, frozen=True, kw_only=True):
    """A run with the letter that stands for it in headings, and a label that no other of the runs has."""

    letter: str
    label: str
    run: RunData


def named(runs: Sequence[RunData]) -> list[Named]:
    """The runs by hardware class, in the order in which classes come first, then by torch and time; with letters."""
    ordered = [
        run
        for alike in grouped(runs, lambda run: run.environment.hardware_class).values()
        for run in sorted(alike, key=lambda run: (run.environment.torch_version or "", run.begun or ""))
    ]
    labels = [
        (run.environment.hardware_class, f"torch {run.environment.torch_version or NULL}", run.run_id)
        for run in ordered
    ]
    letters = (*string.ascii_uppercase, *(f"R{number}" for number in range(27, len(runs) + 1)))

    def shortest(label: tuple[str, str, str]) -> str:
        """As much of the label as tells it from the others."""
        alone = (length for length in (1, 2) if sum(other[:length] == label[:length] for other in labels) == 1)
        return ", ".join(label[: next(alone, 3)])

    each = zip(letters, labels, ordered, strict=False)
    return [Named(letter=letter, label=shortest(label), run=run) for letter, label, run in each]


def together(runs: Sequence[Named]) -> tuple[CellSummary, ...]:
    """The cells of all runs, each under its run's label in place of the hardware class: what plots tell apart."""
    return tuple(msgspec.structs.replace(one, hardware_class=each.label) for each in runs for one in each.run.cells)


def overview(runs: Sequence[Named]) -> tuple[Block, ...]:
    """Which runs these are, how far to trust each, and in what their machines differ."""
    columns: dict[str, Callable[[Named], str]] = {
        "Run": lambda each: each.letter,
        "Hardware": lambda each: each.run.environment.hardware_class,
        "torch": lambda each: each.run.environment.torch_version or NULL,
        "Suite": lambda each: f"{each.run.suite.suite}, `{each.run.run_id}`",
        "Devices": lambda each: devices_in_short(each.run),
        "Extent": lambda each: each.run.extent(),
        "Verdicts": lambda each: verdicts(each.run) or "none",
        ">Differ beyond": lambda each: NULL if each.run.trust.apart is None else excess(each.run.trust.apart),
    }
    facts = [machine_facts(each.run.environment) for each in runs]
    values = {name: [one.get(name, NULL) for one in facts] for name in dict.fromkeys(n for one in facts for n in one)}
    differ = ((name, *told) for name, told in values.items() if len(set(told)) > 1)
    note = (
        "Times of different hardware classes never stand side by side: only ratios to each device's reference do. "
        if len(_classes(runs)) > 1
        else ""
    )
    ratios = "Runs on one hardware class are held against the first of them (×: how many times faster)."
    return body(
        tabled(runs, columns, "The runs"),
        f"{note}{_BEYOND} {ratios} `archbench compare` gives verdicts on two runs.",
        table(("They differ in", *(each.letter for each in runs)), differ),
    )


def side_by_side(runs: Sequence[Named]) -> tuple[Block, ...]:
    """What cells have in two runs or more: across classes of hardware ratios to the reference, within a class figures.

    These are latency, throughput and peak memory, in a section for each phase.
    """
    classes = _classes(runs)

    def blocks(phase: str) -> Iterator[Part]:
        for name, alike in classes.items():
            yield _of_class(alike, phase, f" on {name}" if len(classes) > 1 else "")

    nothing = "No cell was measured in two of these runs; each stands by itself below."
    return body(
        section("Against the reference", against_reference(runs) if len(classes) > 1 else None),
        by_phase("{}, side by side", blocks),
    ) or body(section("Side by side", nothing))


def against_reference(runs: Sequence[Named]) -> Iterator[Part]:
    """Ratios of each cell's time to the reference's on the device that measured it, a column a run.

    A table for each reference: ratios to different ones do not compare.
    """

    def ratio(ratios: dict[str, float], cell: str) -> str:
        return f"{ratios[cell]:.2f}" if cell in ratios else NULL

    of_each = {each.letter: short_id(each.run.reference) for each in runs if each.run.reference and each.run.ratios}
    for reference in dict.fromkeys(of_each.values()):
        alike = [each for each in runs if of_each.get(each.letter) == reference]
        cells = sorted({cell for each in alike for cell in each.run.ratios})
        ratios = {f">{each.letter} ×": partial(ratio, each.run.ratios) for each in alike}
        columns: Columns[str] = {"Cell": str, **ratios}
        found = tabled(cells, columns, f"Time over {reference}")
        yield _RATIOS.format(reference=reference)
        yield found if len(cells) <= _MOST_RATIOS else fold(f"{len(cells):,} cells", found)
    without = [each.letter for each in runs if each.letter not in of_each]
    if without:
        yield f"Without a reference (`twin:` in the suite, with a latency): {', '.join(without)}."


def _classes(runs: Sequence[Named]) -> dict[str, list[Named]]:
    return grouped(runs, lambda each: each.run.environment.hardware_class)


def _of_class(runs: Sequence[Named], phase: str, where: str) -> Iterator[Part]:
    """The cells of one phase that two runs or more of one class have; none for a class of one run."""

    def key(one: CellSummary) -> tuple[int, tuple[int, ...], str, int, int]:
        return one.batch_size, one.toggles.order, one.variant, one.input_size or 0, one.threads or 0

    of_run = ((each.letter, one) for each in runs for one in each.run.cells if one.phase == phase)
    cells = grouped(of_run, lambda pair: key(pair[1]))
    shared = [found for _, members in sorted(cells.items()) if len(found := dict(members)) > 1]
    kinds: dict[str, _Columns] = {
        "latency": _columns(runs, " ms", latency, "latency"),
        "throughput": _columns(runs, " img/s", rate, "throughput"),
        "peak memory": _columns(runs, " MiB", lambda one: whole(one.peak_bytes, MIB), None),
    }
    for what, columns in kinds.items():
        title = f"{PHASES[phase]}{where}: {what}"
        yield section(title, wide(shared, _PLACE, columns, noun="cells", caption=title), phase=phase)


def _columns(runs: Sequence[Named], unit: str, text: Callable[[CellSummary], str], measure: Measure | None) -> _Columns:
    """A figure a run, and a ratio to the first of them."""
    columns: _Columns = {}
    for each in runs:
        columns[f">{each.letter}{unit}"] = partial(_figure, each.letter, text)
        if measure is not None and each is not runs[0]:
            columns[f">{each.letter} over {runs[0].letter} ×"] = partial(_ratio, runs[0].letter, each.letter, measure)
    return columns


def _figure(letter: str, text: Callable[[CellSummary], str], found: dict[str, CellSummary]) -> str:
    one = found.get(letter)
    return NULL if one is None else one.status if one.status != "ok" else text(one)


def _ratio(base: str, letter: str, measure: Measure, found: dict[str, CellSummary]) -> str:
    one, other = found.get(base), found.get(letter)
    if one is None or other is None or not (one.is_usable and other.is_usable):
        return NULL
    ratio = gain(one, other, measure)
    return NULL if ratio is None else ratio_text(ratio, suspect="suspect" in (one.verdict, other.verdict))
