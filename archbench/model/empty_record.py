"""The row of a cell before anything is measured: for the worker that fills it and whoever reports a failure."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct, structs

from archbench.model.calibration import Calibration
from archbench.model.cell import Cell
from archbench.model.environment import Environment
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.model.record import Record, Status


class RunContext(Struct, frozen=True, kw_only=True):
    """What every row of a run has in common."""

    run_id: str
    round: int
    visit: int = 0
    environment: Environment
    calibration: Calibration | None = None
    """The device's measured ceilings, once they are known."""


class Facts(Struct, frozen=True, kw_only=True):
    """What the catalogue knows of a network without building it; `None` where it does not."""

    family: str | None = None
    source: str | None = None
    input_size: int | None = None
    top1: float | None = None
    top5: float | None = None
    accuracy_source: str | None = None
    accuracy_dataset: str | None = None


def empty_record(cell: Cell, context: RunContext, facts: Facts) -> Record:
    """The row of a cell of which nothing has been measured yet: identity, circumstances, published accuracy."""
    environment = context.environment
    return Record(
        protocol_version=PROTOCOL_VERSION,
        run_id=context.run_id,
        cell_id=cell.cell_id,
        group_id=cell.group_id,
        round=context.round,
        visit=context.visit,
        status="skipped",
        architecture=cell.network.name,
        variant=cell.network.label,
        family=facts.family,
        source=facts.source,
        setting=cell.setting,
        input_size=cell.network.input_size or facts.input_size,
        batch_size=cell.batch_size,
        phase=cell.phase,
        precision=cell.precision,
        compile_mode=cell.compile_mode,
        memory_format=cell.memory_format,
        threads=cell.threads,
        device=cell.device,
        hardware_class=environment.hardware_class,
        top1=facts.top1,
        top5=facts.top5,
        accuracy_source=facts.accuracy_source,
        accuracy_dataset=facts.accuracy_dataset,
        torch_version=environment.torch_version,
        torchvision_version=environment.torchvision_version,
        timm_version=environment.timm_version,
        cuda_version=environment.cuda_version,
        driver_version=environment.driver_version,
    )


def failed_record(
    cell: Cell,
    context: RunContext,
    facts: Facts,
    status: Status,
    message: str,
    *,
    phase: str | None = None,
    began: datetime | None = None,
) -> Record:
    """The row of a cell that could not be measured, `phase` being where it ended. `began`: null for one not tried."""
    return structs.replace(
        empty_record(cell, context, facts),
        status=status,
        error_phase=phase,
        error_message=message,
        started_at=began.isoformat(timespec="milliseconds") if began else None,
        duration_s=(datetime.now(UTC) - began).total_seconds() if began else None,
    )
