"""Several runs in one report: which they are, in what they differ, and the cells that they share, column by column."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from msgspec import Struct

from archbench.choose.cell_summary import CellSummary
from archbench.choose.toggles import Measure, gain
from archbench.model.axes import Toggles
from archbench.model.environment import Environment
from archbench.model.units import MIB, NULL, excess, whole
from archbench.rendering.content import Block, Paragraph, Section, of, table, tabled, wide
from archbench.rendering.figures import BATCH, NETWORK, PHASES, SETTING, by_phase, latency, rate
from archbench.rendering.provenance import verdicts
from archbench.rendering.run_data import RunData
from archbench.rendering.toggles import ratio_text

_BEYOND = "Two networks of one run differ where their times differ by more than `Differ beyond` says."
_Columns = dict[str, Callable[[dict[str, CellSummary]], str]]
"""From the cell of each run that has it, by letter."""
_Key = tuple[str, int, Toggles, str, int, int]
_DIFFERENCES: tuple[tuple[str, Callable[[Environment], object]], ...] = (
    ("CPU", lambda here: f"{here.cpu_model} x{here.cpu_count}"),
    ("System", lambda here: f"{here.os}, {here.kernel}"),
    ("torch", lambda here: here.torch_version),
    ("torchvision", lambda here: here.torchvision_version),
    ("timm", lambda here: here.timm_version),
    ("CUDA", lambda here: here.cuda_version),
    ("Driver", lambda here: here.driver_version),
    ("Python", lambda here: here.python_version),
    ("Governor", lambda here: here.governor),
    ("archbench", lambda here: " ".join(filter(None, (here.archbench_version, (here.git_commit or "")[:10])))),
    ("Variables", lambda here: " ".join(f"{name}={value}" for name, value in here.settings.items())),
)


_PLACE: _Columns = of(lambda found: next(iter(found.values())), NETWORK, SETTING, BATCH)


class Named(Struct, frozen=True, kw_only=True):
    """A run with the letter that stands for it in headings, and a label that no other of the runs has."""

    letter: str
    label: str
    run: RunData


def named(runs: Sequence[RunData]) -> list[Named]:
    """The runs by hardware class, in the order in which classes come first, then by torch and time; with letters."""
    classes = list(dict.fromkeys(run.environment.hardware_class for run in runs))
    ordered = sorted(
        runs,
        key=lambda run: (
            classes.index(run.environment.hardware_class),
            run.environment.torch_version or "",
            run.begun or "",
        ),
    )
    labels = [
        (run.environment.hardware_class, f"torch {run.environment.torch_version or NULL}", run.run_id)
        for run in ordered
    ]
    letters = (*string.ascii_uppercase, *(f"R{number}" for number in range(27, len(runs) + 1)))
    return [
        Named(letter=letter, label=_shortest(label, labels), run=run)
        for letter, label, run in zip(letters, labels, ordered, strict=False)
    ]


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
        "Extent": lambda each: each.run.extent(),
        "Verdicts": lambda each: verdicts(each.run) or "none",
        ">Differ beyond": lambda each: NULL if each.run.trust.apart is None else excess(each.run.trust.apart),
    }
    classes = {each.run.environment.hardware_class for each in runs}
    note = (
        "Rows of different hardware classes stand side by side and are never ranked against each other. "
        if len(classes) > 1
        else ""
    )
    ratios = "Runs on one hardware class are held against the first of them (×: how many times faster)."
    return (
        tabled(runs, columns, "The runs"),
        Paragraph(f"{note}{_BEYOND} {ratios} `archbench compare` gives verdicts on two runs."),
        *_differences(runs),
    )


def side_by_side(runs: Sequence[Named]) -> list[Section]:
    """Latency, throughput and peak memory of every cell that two runs or more measured; a section for each phase."""
    cells: dict[_Key, dict[str, CellSummary]] = {}
    for each in runs:
        for one in each.run.cells:
            key = (one.phase, one.batch_size, one.toggles, one.variant, one.input_size or 0, one.threads or 0)
            cells.setdefault(key, {})[each.letter] = one

    def blocks(phase: str) -> list[Section]:
        keys = sorted((key for key in cells if key[0] == phase), key=lambda key: (key[1], key[2].order, key[3:]))
        shared = [cells[key] for key in keys if len(cells[key]) > 1]
        titles = ((f"{PHASES[phase]}: {what}", columns) for what, columns in _kinds(runs))
        tables = [(title, wide(shared, _PLACE, columns, noun="cells", caption=title)) for title, columns in titles]
        return [Section(title=title, blocks=tuple(found), phase=phase) for title, found in tables if found]

    nothing = Paragraph("No cell was measured in two of these runs; each stands by itself below.")
    return by_phase("{}, side by side", blocks) or [Section(title="Side by side", blocks=(nothing,))]


def _kinds(runs: Sequence[Named]) -> list[tuple[str, _Columns]]:
    """What is put side by side, with its columns: a figure a run, and a ratio to the first run on the same hardware."""
    return [
        ("latency", _columns(runs, " ms", latency, "latency")),
        ("throughput", _columns(runs, " img/s", rate, "throughput")),
        ("peak memory", _columns(runs, " MiB", lambda one: whole(one.peak_bytes, MIB), None)),
    ]


def _columns(runs: Sequence[Named], unit: str, text: Callable[[CellSummary], str], measure: Measure | None) -> _Columns:
    columns: _Columns = {}
    first: dict[str, str] = {}
    for each in runs:
        base = first.setdefault(each.run.environment.hardware_class, each.letter)
        columns[f">{each.letter}{unit}"] = partial(_figure, each.letter, text)
        if measure is not None and base != each.letter:
            columns[f">{each.letter} over {base} ×"] = partial(_ratio, base, each.letter, measure)
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


def _differences(runs: Sequence[Named]) -> list[Block]:
    """A row for each thing in which the machines or their software differ."""
    rows = []
    for name, told in _DIFFERENCES:
        values = [str(told(each.run.environment) or NULL) for each in runs]
        if len(set(values)) > 1:
            rows.append((name, *values))
    if not rows:
        return []
    return [table(("They differ in", *(each.letter for each in runs)), rows)]


def _shortest(label: tuple[str, str, str], labels: Sequence[tuple[str, str, str]]) -> str:
    """As much of the label as tells it from the others."""
    for length in (1, 2):
        if sum(other[:length] == label[:length] for other in labels) == 1:
            return ", ".join(label[:length])
    return ", ".join(label)
