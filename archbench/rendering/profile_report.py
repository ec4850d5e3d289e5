"""A profile as a report of its own, with pictures: what `archbench profile --html` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from archbench.choose.profile_difference import Aligned, Difference, Share, difference
from archbench.model.profile import KernelMap, ModuleProfile, OperatorProfile, Profile, Roofline
from archbench.model.reasons import explain
from archbench.model.units import GIGA, MIB, MILLION, MS, NULL, counted, figure, fixed, percent, plain
from archbench.rendering import profile_charts
from archbench.rendering.content import (
    Block,
    Bullets,
    Fold,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
    sections,
    tabled,
)
from archbench.rendering.profile_findings import compiled_line, of_ceiling
from archbench.rendering.profile_memory import gradient_section, memory_section

_MOST_OPERATORS = 25
_BAR = 10
"""Characters of a full bar."""
_SHOWN_MODULES = 400
"""Rows of the table of all modules; deeper networks have their deepest levels left out."""


def profile_report(profile: Profile, against: Profile | None = None) -> Report:
    """All that a profile says, in the order in which it is read; of two, first where their difference comes from."""
    if against is None:
        return Report(
            title=f"Profile of {profile_label(profile)}", lead=_lead(profile), sections=_sections(profile, "")
        )
    names = profile_label(profile), profile_label(against)
    whole = (
        Section(title=name, blocks=(*_lead(one), *_sections(one, prefix)))
        for name, one, prefix in zip(names, (profile, against), ("a-", "b-"), strict=True)
    )
    title = f"Profile of {names[0]} against {names[1]}"
    return Report(title=title, lead=(), sections=(_difference(profile, against), *whole))


def _sections(profile: Profile, prefix: str) -> tuple[Section, ...]:
    """`prefix` goes before the names of pictures, so that two profiles fit on one page."""
    return sections(
        _time(profile, prefix),
        _roofline(profile.roofline, prefix) if profile.roofline else None,
        _operators(profile),
        _compiled(profile.compiled),
        memory_section(profile, prefix),
        gradient_section(profile.gradients, prefix),
        _left_out(profile),
    )


def profile_label(profile: Profile) -> str:
    """`resnet50: inference, batch size 1, fp32, eager`."""
    cell = profile.cell
    words = [cell.phase, f"batch size {cell.batch_size}", cell.precision]
    words += [cell.memory_format] if cell.memory_format != "contiguous" else []
    words.append("eager" if cell.compile_mode == "off" else f"compiled ({cell.compile_mode})")
    return f"{profile.network}: {', '.join(words)}"


def _lead(profile: Profile) -> tuple[Block, ...]:
    said = findings_said(profile)
    measured = f"On {machine_words(profile)}: {step_words(profile)}. {verdict_words(profile)}."
    return (Paragraph(measured), *([Bullets(said)] if said else []))


def findings_said(profile: Profile) -> tuple[str, ...]:
    """Each finding with its remedy."""
    remedies = (one.remedy and f" {one.remedy[0].upper()}{one.remedy[1:]}." for one in profile.findings)
    return tuple(f"{one.text}.{remedy or ''}" for one, remedy in zip(profile.findings, remedies, strict=True))


def step_words(profile: Profile) -> str:
    """`step 20.1 ms (49.8 img/s)`; of a compiled cell the compiled step, beside the eager one that is taken apart."""

    def timed(seconds: float) -> str:
        return f"{figure(seconds, MS)} ms ({plain(profile.cell.batch_size / seconds)} img/s)"

    if profile.cell.compile_mode == "off":
        return f"step {timed(profile.step_s)}"
    own = "not timed" if profile.cell_step_s is None else timed(profile.cell_step_s)
    return f"compiled step {own}; in eager, of which the modules are: {timed(profile.step_s)}"


def verdict_words(profile: Profile) -> str:
    """`Verdict ok`, or what else with its reasons and remedies."""
    reasons = [(code, explain(code)) for code in profile.reasons]
    told = [
        f"{code}: {reason.meaning}" + (f" ({reason.remedy})" if reason.remedy else "")
        for code, reason in reasons
        if reason.effect in ("invalid", "suspect")
    ]
    unusable = ", not to be used" if profile.verdict == "invalid" else ""
    return f"Verdict {profile.verdict}{unusable}" + (f"; {'; '.join(told)}" if told else "")


def machine_words(profile: Profile) -> str:
    """`Intel Xeon x2, 2 threads`."""
    where = profile.environment.hardware_class if profile.environment else profile.device
    return f"{where}, {counted(profile.threads, 'thread')}" if profile.device == "cpu" else where


def _difference(base: Profile, other: Profile) -> Section:
    found = difference(base, other)
    line = (
        f"A is {profile_label(base)}: {figure(found.base_s, MS)} ms a step. B is {profile_label(other)}: "
        f"{figure(found.other_s, MS)} ms. The rows add up to the whole difference, {figure(found.change_s, MS)} ms."
    )
    return Section(
        title="Where the difference comes from", blocks=(Paragraph(line), difference_table(base, other, found))
    )


def difference_table(base: Profile, other: Profile, found: Difference) -> Table:
    """Row by row, adding up to the difference of the two steps in the last row."""
    kept = base.cell.phase == other.cell.phase == "training"
    whole = [
        Share(seconds=seconds, macs=one.macs, saved_bytes=one.modules[0].saved_bytes or 0 if one.modules else 0)
        for one, seconds in ((base, found.base_s), (other, found.other_s))
    ]

    def both(heading: str, text: Callable[[Share], str]) -> dict[str, Callable[[Aligned], str]]:
        return {
            heading.format("A"): lambda row: text(row.base),
            heading.format("B"): lambda row: text(row.other),
        }

    columns: dict[str, Callable[[Aligned], str]] = {
        found.aligned_by.capitalize(): lambda row: row.name,
        **both("Modules of {}", lambda side: ", ".join(side.names) or NULL),
        **both(">{} ms", lambda side: fixed(side.seconds, MS, 2)),
        ">B - A ms": lambda row: f"{'+' if row.change_s > 0 else ''}{fixed(row.change_s, MS, 2)}",
        ">of the difference": lambda row: f"{round(100 * row.change_s / found.change_s) if found.change_s else 0} %",
        **both(">{} GMACs", lambda side: fixed(side.macs, GIGA, 3)),
        **(both(">{} kept MiB", lambda side: fixed(side.saved_bytes, MIB, 1)) if kept else {}),
    }
    return tabled((*found.rows, Aligned(name="all", base=whole[0], other=whole[1])), columns, "Difference")


class Line(Struct, frozen=True):
    """A row of a table of modules: a module, or what is folded beneath one."""

    label: str
    kind: str
    depth: int
    row: ModuleProfile | None
    forward_s: float
    backward_s: float | None
    share: float


def _time(profile: Profile, prefix: str) -> Section:
    cost = percent(profile.observing_cost, signed=True)
    eager = "" if profile.cell.compile_mode == "off" else "n eager"
    line = (
        f"A{eager} step takes {figure(profile.step_s, MS)} ms unobserved. The times of modules below add up to "
        f"{figure(profile.attributed_s, MS)} ms, means over {profile.steps} observed steps; observing cost {cost}."
    )
    blocks: list[Block] = [Paragraph(line)]
    if profile.stages:
        alt = "A bar for each stage of the network, and for the loss and the optimizer: its time forward and backward."
        blocks.append(
            Picture(name=f"{prefix}stages", title="Time by stage", alt=alt, spec=profile_charts.stage_times(profile))
        )
    alt = "Each module as wide as its share of the step, below the module that it is in."
    blocks.append(
        Picture(name=f"{prefix}modules", title="Time by module", alt=alt, spec=profile_charts.module_map(profile))
    )
    blocks.append(_modules([*profile.modules[:1], *profile.stage_rows], profile, "Stages"))
    deepest = max((row.depth for row in profile.modules), default=0)
    while deepest > 1 and sum(row.depth <= deepest for row in profile.modules) > _SHOWN_MODULES:
        deepest -= 1
    all_rows = [row for row in profile.modules if row.depth <= deepest]
    blocks.append(Fold(summary=f"All {len(all_rows)} modules", blocks=(_modules(all_rows, profile, "Modules"),)))
    return Section(title="Time", blocks=tuple(blocks))


def _modules(rows: Sequence[ModuleProfile], profile: Profile, caption: str) -> Table:
    lines = [
        Line(row.path or profile.network, row.kind, row.depth, row, row.forward_s, row.backward_s, row.share)
        for row in rows
    ]
    return module_table(lines, profile, caption)


def module_table(lines: Iterable[Line], profile: Profile, caption: str, *, screen: bool = False) -> Table:
    """A row for each module or fold; on a `screen` indented as they lie in each other, with a bar for the share."""
    training = profile.cell.phase == "training"

    def figures(text: Callable[[ModuleProfile], str]) -> Callable[[Line], str]:
        return lambda line: "" if line.row is None else text(line.row)

    def bar(line: Line) -> str:
        return "█" * max(round(line.share * _BAR), 0) if line.depth else ""

    kept: dict[str, Callable[[Line], str]] = (
        {">Kept MiB": figures(lambda row: fixed(row.saved_bytes, MIB, 1))}
        if training
        else {">Written MiB": figures(lambda row: fixed(row.activation_bytes, MIB, 1))}
    )
    backward: dict[str, Callable[[Line], str]] = {">Backward ms": lambda line: fixed(line.backward_s, MS, 2)}
    columns: dict[str, Callable[[Line], str]] = {
        "Module": lambda line: "  " * (line.depth if screen else 0) + line.label,
        "Class": lambda line: line.kind,
        ">Calls": figures(lambda row: str(row.calls or "")),
        ">Forward ms": lambda line: fixed(line.forward_s, MS, 2),
        **(backward if training else {}),
        ">Share": lambda line: f"{100 * line.share:.1f} %",
        **({"": bar} if screen else {}),
        ">Params M": figures(lambda row: fixed(row.params, MILLION, 2)),
        ">GMACs": figures(lambda row: fixed(row.macs, GIGA, 3)),
        **kept,
        ">Moved MiB": figures(lambda row: fixed(row.bytes_moved, MIB, 1)),
        ">FLOP/byte": figures(lambda row: plain(row.intensity)),
        ">GFLOP/s": figures(lambda row: figure(row.achieved_flops, GIGA) if row.flops else NULL),
        ">Of roofline": figures(lambda row: of_ceiling(row, profile)),
    }
    return tabled(lines, columns, caption)


def _roofline(found: Roofline, prefix: str) -> Section:
    ridge = f"{plain(found.ridge)} FLOP per byte"
    line = (
        f"Measured ceilings: {figure(found.peak_flops, GIGA)} GFLOP/s by a matrix product or convolution, "
        f"{figure(found.bandwidth, GIGA)} GB/s by a large copy. Left of {ridge} memory is the limit, right of it "
        "arithmetic. What does more than they allow says why: a cache served what is counted as moved, or the ceiling "
        "is under-measured, by a busy machine or for a kernel that needs fewer FLOP than are counted."
    )
    blocks: list[Block] = [Paragraph(line)]
    if found.points:
        alt = "FLOP per second over FLOP per byte, on logarithmic axes, below the device's two measured ceilings."
        blocks.append(Picture(name=f"{prefix}roofline", title="Roofline", alt=alt, spec=profile_charts.roofline(found)))
    lost = []
    if found.device_busy_s is not None and found.launch_gap_s is not None:
        busy, waited = figure(found.device_busy_s, MS), figure(found.launch_gap_s, MS)
        lost.append(f"Of a step the device computed for {busy} ms and waited for the host for {waited} ms.")
    if found.host_s is not None:
        lost.append(f"Outside of operators (Python, dispatch) a step spends {figure(found.host_s, MS)} ms.")
    return Section(title="Roofline", blocks=(*blocks, *(Paragraph(text) for text in lost)))


def _operators(profile: Profile) -> Section | None:
    if not profile.operators:
        return None
    blocks: list[Block] = [operator_table(profile.operators, "Operators by their own time")]
    if profile.kernels:
        blocks.append(operator_table(profile.kernels, "Kernels"))
    return Section(title="Operators", blocks=tuple(blocks))


def operator_table(found: Sequence[OperatorProfile], caption: str, name: Callable[[str], str] = str) -> Table:
    """A row for each operator or kernel, the first of them; `name` shortens long ones."""
    columns: dict[str, Callable[[OperatorProfile], str]] = {
        "Name": lambda one: name(one.name),
        "Shapes": lambda one: "; ".join(one.shapes) or NULL,
        ">Calls": lambda one: plain(one.calls) if one.calls % 1 else f"{one.calls:,.0f}",
        ">Self ms": lambda one: fixed(one.self_s, MS, 2),
        ">Share": lambda one: percent(one.share),
        "Bound by": lambda one: one.bound or NULL,
        "Tensor cores": lambda one: {None: NULL, True: "yes", False: "no"}[one.tensor_core],
        "Modules": lambda one: ", ".join(one.modules[:3]) + (", ..." if len(one.modules) > 3 else "") or NULL,
    }
    return tabled(found[:_MOST_OPERATORS], columns, caption)


def _compiled(found: KernelMap | None) -> Section | None:
    if found is None:
        return None
    kernels = operator_table(found.kernels, "Compiled kernels")
    return Section(title="Compiled", blocks=(Paragraph(f"{compiled_line(found)}."), kernels))


def _left_out(profile: Profile) -> Section | None:
    if not profile.missing:
        return None
    points = tuple(f"{part}: {why}" for part, why in profile.missing.items())
    return Section(title="Not in this profile", blocks=(Bullets(points),))
