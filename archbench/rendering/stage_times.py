"""Which stages take the time, for each network that a run has profiled."""

from __future__ import annotations

from archbench.choose.cell_summary import CellSummary
from archbench.model.profile import StageProfile
from archbench.model.units import MS, NULL, figure, percent
from archbench.rendering.content import Paragraph, Section
from archbench.rendering.listing import listed
from archbench.rendering.run_data import RunData

_STAGES = 3
Pair = tuple[CellSummary, StageProfile]


def stage_times(run: RunData) -> Section | None:
    """The largest stages of each profiled cell; `None` where none was profiled."""
    tables: dict[str, StageProfile] = {}
    for one in run.profiles:
        tables.setdefault(one.cell_id, one)
    pairs: list[Pair] = [(one, tables[one.cell_id]) for one in run.cells if one.cell_id in tables]
    numbers = ("Batch", "Step ms", "Of roofline")
    blocks = listed(
        pairs,
        _row,
        ("Network", "Setting", "Phase", "Batch", "Step ms", "Largest stages", "Of roofline"),
        numeric=set(numbers),
        noun="cells",
        caption="Where the time goes, by stage",
    )
    if not blocks:
        return None
    note = Paragraph(
        "From a profile of its own, of the first round: shares of the observed step, backward pass included. "
        "The whole tables are in `profile/`; `archbench profile NETWORK` shows every module."
    )
    return Section(title="Where the time goes", blocks=(note, *blocks))


def _row(pair: Pair) -> tuple[str, ...]:
    one, table = pair
    largest = sorted(table.stages, key=lambda stage: -stage.share)[:_STAGES]
    reached = table.whole.roofline_share
    return (
        one.network,
        one.setting_label,
        one.phase,
        f"{one.batch_size:,}",
        figure(table.step_s, MS),
        ", ".join(f"{stage.path} {percent(stage.share)}" for stage in largest) or NULL,
        NULL if reached is None else percent(reached),
    )
