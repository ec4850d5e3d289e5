"""`archbench plan`: what a run would measure, in which order, and what it would skip and why."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from archbench.cli.console import AsJson, WhatArgument, print_json, taking
from archbench.model.cell import sides_of
from archbench.options import PlanOptions

if TYPE_CHECKING:
    from archbench.model.cell import Cell, Plan
    from archbench.model.suite import Suite
    from archbench.rendering.content import Report, Table
    from archbench.suite.duration import Prediction

NO_CELL = "-"


class PlannedGroup(Struct, frozen=True, kw_only=True):
    """One process's work."""

    group_id: str
    visit: int
    cells: tuple[str, ...]


class SkippedCell(Struct, frozen=True, kw_only=True):
    """A cell that would not be measured."""

    cell_id: str
    reason: str


class PlanDocument(Struct, frozen=True, kw_only=True):
    """What `--json` prints. `cells` and `groups` count each once, whatever the rounds and the twin's visits."""

    suite: str
    description: str
    device: str
    seed: int
    twin: str | None
    cells: int
    groups: int
    skipped: tuple[SkippedCell, ...]
    rounds: tuple[tuple[PlannedGroup, ...], ...]
    predicted_s: dict[str, float]
    """Expected seconds by phase, and their `total`."""
    predicted_from: str


@taking(PlanOptions)
def plan_command(
    what: WhatArgument,
    predict: Annotated[bool, typer.Option("--predict", help="Show the expected duration by phase.")] = False,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Show what a run would measure, how long it would take, what it would skip and why; cuda where there is none."""
    from archbench.asked import foreseen
    from archbench.rendering.terminal import print_report

    suite, plan, prediction = foreseen(what, PlanOptions(**given))
    if as_json:
        print_json(_document(suite, plan, prediction))
    else:
        print_report(_report(suite, plan, prediction, by_phase=predict))


def _document(suite: Suite, plan: Plan, prediction: Prediction) -> PlanDocument:
    return PlanDocument(
        suite=suite.suite,
        description=suite.description,
        device=plan.device,
        seed=plan.seed,
        twin=suite.twin,
        cells=len(plan.cells),
        groups=_distinct_groups(plan),
        skipped=tuple(SkippedCell(cell_id=skip.cell.cell_id, reason=skip.reason) for skip in plan.skipped),
        rounds=tuple(
            tuple(
                PlannedGroup(
                    group_id=group.group_id, visit=group.visit, cells=tuple(cell.cell_id for cell in group.cells)
                )
                for group in groups
            )
            for groups in plan.rounds
        ),
        predicted_s={name: round(seconds, 1) for name, seconds in prediction.phases.items()}
        | {"total": round(prediction.total, 1)},
        predicted_from=prediction.basis,
    )


def _distinct_groups(plan: Plan) -> int:
    return len({group.group_id for group in plan.rounds[0]})


def _report(suite: Suite, plan: Plan, prediction: Prediction, *, by_phase: bool) -> Report:
    from archbench.model.units import counted
    from archbench.rendering.content import Block, Paragraph, Report, table

    networks = len({cell.network.label for cell in plan.cells})
    counts = (
        f"{counted(len(plan.cells), 'cell')} of {counted(networks, 'network')} in "
        f"{counted(_distinct_groups(plan), 'group')}, {counted(len(plan.rounds), 'round')}, seed {plan.seed}"
    )
    said = [suite.description] if suite.description else []
    twin = next((group for group in plan.rounds[0] if group.visit), None)
    if twin is not None:
        cell = twin.cells[0]
        what = f"{cell.network.label} ({cell.phase}, {_setting(cell)})"
        said.append(f"twin: {what} is measured first, in between and last in each round")
    for reason, number in Counter(skip.reason for skip in plan.skipped).items():
        said.append(f"skipped: {counted(number, 'cell')}: {reason}")
    cells: list[Block] = [_table(suite, plan.cells)] if plan.cells else []
    said.append(prediction.in_words)
    if by_phase:
        rows = ((name, f"{seconds:.0f}") for name, seconds in prediction.phases.items() if seconds >= 0.5)
        cells.append(table(("phase", ">seconds"), rows))
    part = f", shard {plan.shard.word}" if plan.shard else ""
    title = f"{suite.suite} on {plan.device}{part}: {counts}"
    return Report(title=title, lead=(*map(Paragraph, said), *cells), sections=())


def _table(suite: Suite, cells: tuple[Cell, ...]) -> Table:
    """Networks down, settings across; in each field the number of cells, inference/training where both occur."""
    from archbench.rendering.content import table

    numbers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for cell in sorted(cells, key=lambda cell: _place(suite, cell)):
        numbers[cell.network.label, _setting(cell)][cell.phase] += 1
    phases = [phase for phase in ("inference", "training") if any(phase in count for count in numbers.values())]
    networks = list(dict.fromkeys(network for network, _ in numbers))
    settings = list(dict.fromkeys(_setting(cell) for cell in sorted(cells, key=lambda cell: _toggles(suite, cell))))

    def field(network: str, setting: str) -> str:
        found = numbers.get((network, setting))
        return "/".join(str(found[phase] or NO_CELL) for phase in phases) if found else NO_CELL

    headings = (f"cells ({'/'.join(phases)})", *(f">{setting}" for setting in settings))
    return table(headings, ((network, *(field(network, setting) for setting in settings)) for network in networks))


def _place(suite: Suite, cell: Cell) -> tuple[int, int, str]:
    """Where the cell's network stands in the suite, its sizes ascending."""
    position = next(n for n, network in enumerate(suite.architectures) if network.name == cell.network.name)
    return position, math.prod(sides_of(cell.network.input_size or 0)), cell.network.label


def _toggles(suite: Suite, cell: Cell) -> tuple[int, ...]:
    """Where the cell's setting stands in the suite; without one, its toggles, the plain ones first."""
    if cell.setting is not None:
        return (list(suite.settings).index(cell.setting), cell.threads or 0)
    return (len(suite.settings), *cell.toggles.order, cell.threads or 0)


def _setting(cell: Cell) -> str:
    """The setting's name; without one, the toggles that are not at their default."""
    from archbench.model.units import counted

    label = cell.setting or cell.toggles.label
    return label if cell.threads is None else f"{label}, {counted(cell.threads, 'thread')}"
