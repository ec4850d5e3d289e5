"""All that a gate's pairs say together: verdicts, what is counted, and what to know before believing either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from archbench.comparison.counted import findings
from archbench.comparison.gate.books import CellLog, GateSpec
from archbench.comparison.gate.noise import Threshold
from archbench.comparison.gate.play import from_tree
from archbench.comparison.gate.sides import SideRun, SideSpec
from archbench.comparison.gate.verdicts import judge
from archbench.model.comparison import Comparison, Finding, Side
from archbench.model.environment import Environment
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.model.units import percent

_NAMED = 4
"""Cells that a note names before it only counts the rest."""
_VERSIONS = ("torch_version", "torchvision_version", "timm_version", "cuda_version", "python_version")


def conclude(
    spec: GateSpec,
    logs: Sequence[CellLog],
    thresholds: Mapping[str, Threshold],
    sides: Sequence[SideRun] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Judge the pairs so far. `sides` say where code was expected to come from; `notes` go before the gate's own."""
    started = min((pair.started_at for log in logs for pair in log.everything), default=None)
    return Comparison(
        kind="turns",
        base=_side(spec, spec.base, spec.base_environment, started),
        head=_side(spec, spec.head, spec.head_environment, started),
        cells=judge([log for log in logs if not _never_timed(log)], thresholds),
        findings=_findings(logs),
        notes=(*notes, *_notes(spec, logs, thresholds, sides)),
        duration_s=sum(pair.duration_s for log in logs for pair in log.everything),
    )


def _side(spec: GateSpec, side: SideSpec, environment: Environment, started: str | None) -> Side:
    return Side(
        label=side.described,
        hardware_class=environment.hardware_class,
        protocol_version=PROTOCOL_VERSION,
        suite=spec.suite,
        driver_version=environment.driver_version,
        archbench_version=environment.archbench_version,
        started_at=started,
        **{name: getattr(environment, name) for name in _VERSIONS},
    )


def _never_timed(log: CellLog) -> bool:
    """Both sides say that the cell cannot be run at all: no verdict on a time is to be had, or missed."""
    return bool(log.everything) and all({row.status for row in pair.rows} == {"unsupported"} for pair in log.everything)


def _findings(logs: Sequence[CellLog]) -> tuple[Finding, ...]:
    import pandas as pd

    played = [log for log in logs if log.everything]
    if not played:
        return ()
    frames = []
    for side in (0, 1):
        rows = [msgspec.structs.asdict(log.standing_for(side)) for log in played]
        frames.append(pd.DataFrame(rows).set_index("cell_id"))
    return findings(*frames, may_lack=False)


def _notes(
    spec: GateSpec, logs: Sequence[CellLog], thresholds: Mapping[str, Threshold], sides: Sequence[SideRun]
) -> Iterator[str]:
    ours, theirs = spec.base_environment, spec.head_environment
    changed = [
        f"{name.removesuffix('_version')} {getattr(ours, name)} → {getattr(theirs, name)}"
        for name in _VERSIONS
        if getattr(ours, name) != getattr(theirs, name)
    ]
    changed += [
        f"{name} {ours.libraries.get(name, 'none')} → {theirs.libraries.get(name, 'none')}"
        for name in sorted(ours.libraries.keys() | theirs.libraries.keys())
        if ours.libraries.get(name) != theirs.libraries.get(name)
    ]
    if changed:
        yield f"Between the sides this changed: {', '.join(changed)}."
    if spec.base.identity == spec.head.identity and not spec.learning:
        yield "Base and head are the same: whatever is called slower or faster here is a false alarm."
    yield from _of_code(logs, sides)
    yield from _of_noise(logs, thresholds)
    alternated = [log.cell.cell_id for log in logs if log.frozen is not None and log.frozen.alternate]
    if alternated:
        yield (
            f"Two processes of {_names(alternated)} do not fit in memory together, so whole processes alternated: "
            "the machine's drift between them is in the ratio."
        )
    rows = [row for log in logs for pair in log.everything for row in pair.rows if row.contention is not None]
    contended = sum("contended" in row.reasons for row in rows)
    if contended:
        share = percent(contended / len(rows))
        yield f"Other work took CPU time from {share} of the processes; taking turns makes both sides pay for it."


def _of_code(logs: Sequence[CellLog], sides: Sequence[SideRun]) -> Iterator[str]:
    """Two revisions of a project from which no network comes are the same thing twice."""
    origins = [origin for log in logs for pair in log.everything[:1] for origin in pair.origins if origin]
    revisions = bool(sides) and all(side.tree is not None for side in sides)
    if origins and revisions and not any(from_tree(origin, side) for origin in origins for side in sides):
        yield (
            "No network of the suite comes from the project's own code, so base and head ran the same code: name its "
            "networks as module:function, with --allow-code."
        )


def _of_noise(logs: Sequence[CellLog], thresholds: Mapping[str, Threshold]) -> Iterator[str]:
    noisy = {log.cell.cell_id: one for log in logs if (one := thresholds[log.cell.cell_id]).noisy}
    for cell_id, one in noisy.items():
        yield (
            f"{cell_id} is noisy (its A/A pairs scatter by {percent(one.spread or 0.0)}) and has its own threshold of "
            f"{percent(one.confirm)}."
        )
    unknown = [log.cell.cell_id for log in logs if thresholds[log.cell.cell_id].spread is None]
    if unknown:
        which = "any cell" if len(unknown) == len(logs) else _names(unknown)
        yield f"How widely {which} scatters here is not known: `archbench gate SUITE --base X --aa` learns it."


def _names(cell_ids: Sequence[str]) -> str:
    more = len(cell_ids) - _NAMED
    return ", ".join(cell_ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")
