"""A profile as a report of its own, with pictures: what `archbench profile --html` writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archbench.choose.profile_difference import difference
from archbench.model.profile import ModuleProfile, OperatorProfile, Profile, Roofline
from archbench.model.units import GIGA, MIB, MILLION, MS, NULL, figure, fixed, percent
from archbench.rendering.content import Block, Bullets, Fold, Paragraph, Picture, Report, Section, Table
from archbench.rendering.profile_memory import gradient_section, memory_section

if TYPE_CHECKING:
    from archbench.rendering.profile_charts import Chart

_MOST_OPERATORS = 25
_SHOWN_MODULES = 400
"""Rows of the table of all modules; deeper networks have their deepest levels left out."""


def profile_report(profile: Profile, against: Profile | None = None) -> Report:
    """All that a profile says, in the order in which it is read; of two, first where their difference comes from."""
    if against is None:
        return Report(title=f"Profile of {_label(profile)}", lead=_lead(profile), sections=_sections(profile, ""))
    names = _label(profile), _label(against)
    whole = (
        Section(title=name, blocks=(*_lead(one), *_sections(one, prefix)))
        for name, one, prefix in zip(names, (profile, against), ("a-", "b-"), strict=True)
    )
    title = f"Profile of {names[0]} against {names[1]}"
    return Report(title=title, lead=(), sections=(_difference(profile, against), *whole))


def _sections(profile: Profile, prefix: str) -> tuple[Section, ...]:
    """`prefix` goes before the names of pictures, so that two profiles fit on one page."""
    sections = (
        _time(profile, prefix),
        _roofline(profile.roofline, prefix) if profile.roofline else None,
        _operators(profile),
        _compiled(profile),
        _memory(profile, prefix),
        _gradients(profile, prefix),
        _left_out(profile),
    )
    return tuple(section for section in sections if section is not None)


def _label(profile: Profile) -> str:
    cell = profile.cell
    words = [f"{profile.network}, {cell.phase}, batch size {cell.batch_size}, {cell.precision}"]
    words += [cell.memory_format] if cell.memory_format != "contiguous" else []
    return ", ".join([*words, "eager" if cell.compile_mode == "off" else f"compiled ({cell.compile_mode})"])


def _lead(profile: Profile) -> tuple[Block, ...]:
    said = [f"{one.text}. {_sentence(one.remedy)}".strip() for one in profile.findings]
    return (Paragraph(f"On {_machine(profile)}."), *([Bullets(tuple(said))] if said else []))


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _difference(base: Profile, other: Profile) -> Section:
    found = difference(base, other)
    kept = base.cell.phase == other.cell.phase == "training"
    headings: tuple[str, ...] = (
        found.aligned_by.capitalize(),
        "Modules of A",
        "Modules of B",
        "A ms",
        "B ms",
        "B - A ms",
        "A GMACs",
        "B GMACs",
    )
    headings += ("A kept MiB", "B kept MiB") if kept else ()
    rows = [
        (
            row.name,
            ", ".join(row.base.names) or NULL,
            ", ".join(row.other.names) or NULL,
            figure(row.base.seconds, MS),
            figure(row.other.seconds, MS),
            figure(row.change_s, MS),
            fixed(row.base.macs, GIGA, 2),
            fixed(row.other.macs, GIGA, 2),
            *((fixed(row.base.saved_bytes, MIB, 1), fixed(row.other.saved_bytes, MIB, 1)) if kept else ()),
        )
        for row in found.rows
    ]
    line = (
        f"A is {_label(base)}: {figure(found.base_s, MS)} ms a step. B is {_label(other)}: "
        f"{figure(found.other_s, MS)} ms. The rows add up to the whole difference, {figure(found.change_s, MS)} ms."
    )
    table = Table(headings=headings, rows=tuple(rows), numeric=frozenset(range(3, len(headings))), caption="Difference")
    return Section(title="Where the difference comes from", blocks=(Paragraph(line), table))


def _machine(profile: Profile) -> str:
    where = profile.environment.hardware_class if profile.environment else profile.device
    threads = f", {profile.threads} thread{'s' if profile.threads != 1 else ''}" if profile.device == "cpu" else ""
    return f"{where}{threads}"


def _time(profile: Profile, prefix: str) -> Section:
    cost = percent(profile.observing_cost, signed=True)
    line = (
        f"A step takes {figure(profile.step_s, MS)} ms unobserved. The times of modules below add up to "
        f"{figure(profile.attributed_s, MS)} ms, means over {profile.steps} observed steps; observing cost {cost}."
    )
    blocks: list[Block] = [Paragraph(line)]
    if profile.stages:
        alt = "A bar for each stage of the network, and for the loss and the optimizer: its time forward and backward."
        blocks.append(_picture(f"{prefix}stages", "Time by stage", alt, lambda charts: charts.stage_times(profile)))
    alt = "Each module as wide as its share of the step, below the module that it is in."
    blocks.append(_picture(f"{prefix}modules", "Time by module", alt, lambda charts: charts.module_map(profile)))
    stages = [row for row in profile.modules if row.path in set(profile.stages)]
    blocks.append(_modules([profile.modules[0], *stages] if profile.modules else [], profile, "Stages"))
    deepest = max((row.depth for row in profile.modules), default=0)
    while deepest > 1 and sum(row.depth <= deepest for row in profile.modules) > _SHOWN_MODULES:
        deepest -= 1
    all_rows = [row for row in profile.modules if row.depth <= deepest]
    blocks.append(Fold(summary=f"All {len(all_rows)} modules", blocks=(_modules(all_rows, profile, "Modules"),)))
    return Section(title="Time", blocks=tuple(blocks))


def _modules(rows: list[ModuleProfile], profile: Profile, caption: str) -> Table:
    training = profile.cell.phase == "training"
    headings = ("Module", "Class", "Calls", "Forward ms", *(("Backward ms",) if training else ()), "Share")
    headings += ("Params M", "GMACs", "Activations MiB", "Moved MiB", "FLOP/byte", "GFLOP/s", "Of roofline")
    filled = tuple(
        (
            row.path or profile.network,
            row.kind,
            str(row.calls),
            figure(row.forward_s, MS),
            *((figure(row.backward_s, MS),) if training else ()),
            percent(row.share),
            fixed(row.params, MILLION, 2),
            fixed(row.macs, GIGA, 2),
            fixed(row.activation_bytes, MIB, 1),
            fixed(row.bytes_moved, MIB, 1),
            NULL if row.intensity is None else f"{row.intensity:,.3g}",
            figure(row.achieved_flops, GIGA),
            NULL if row.roofline_share is None else percent(row.roofline_share),
        )
        for row in rows
    )
    return Table(headings=headings, rows=filled, numeric=frozenset(range(2, len(headings))), caption=caption)


def _roofline(found: Roofline, prefix: str) -> Section:
    ridge = f"{found.ridge:,.3g} FLOP per byte"
    line = (
        f"Measured ceilings: {figure(found.peak_flops, GIGA)} GFLOP/s by a large matrix product, "
        f"{figure(found.bandwidth, GIGA)} GB/s by a large copy. Left of {ridge} memory is the limit, right of it "
        "arithmetic. A stage above its ceiling finds in the cache what is counted as moved."
    )
    blocks: list[Block] = [Paragraph(line)]
    if found.points:
        alt = "FLOP per second over FLOP per byte, on logarithmic axes, below the device's two measured ceilings."
        blocks.append(_picture(f"{prefix}roofline", "Roofline", alt, lambda charts: charts.roofline(found)))
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
    blocks: list[Block] = [_operator_table(profile.operators, "Operators by their own time")]
    if profile.kernels:
        blocks.append(_operator_table(profile.kernels, "Kernels"))
    return Section(title="Operators", blocks=tuple(blocks))


def _operator_table(operators: tuple[OperatorProfile, ...], caption: str) -> Table:
    rows = tuple(
        (
            one.name,
            "; ".join(one.shapes) or NULL,
            f"{one.calls:,.3g}",
            figure(one.self_s, MS),
            percent(one.share),
            one.bound or NULL,
            NULL if one.tensor_core is None else ("yes" if one.tensor_core else "no"),
            ", ".join(one.modules[:3]) + (", ..." if len(one.modules) > 3 else "") or NULL,
        )
        for one in operators[:_MOST_OPERATORS]
    )
    return Table(
        headings=("Name", "Shapes", "Calls", "Self ms", "Share", "Bound by", "Tensor cores", "Modules"),
        rows=rows,
        numeric=frozenset({2, 3, 4}),
        caption=caption,
    )


def _compiled(profile: Profile) -> Section | None:
    found = profile.compiled
    if found is None:
        return None
    line = (
        f"Compiled, the step takes {figure(found.step_s, MS)} ms against {figure(found.eager_step_s, MS)} ms in eager: "
        f"{found.eager_step_s / found.step_s:.2f} times as fast. Compiling took {found.compile_s:,.0f} s. "
        f"{percent(found.mapped_share)} of the kernels' time can be mapped back to modules."
    )
    return Section(title="Compiled", blocks=(Paragraph(line), _operator_table(found.kernels, "Compiled kernels")))


def _memory(profile: Profile, prefix: str) -> Section | None:
    timeline = profile.memory
    if timeline is None:
        return None
    section = memory_section(timeline, profile.cell.batch_size)
    pictures = [
        _picture(
            f"{prefix}memory",
            "Live memory over the step",
            "Live bytes by category, one operator after the other, with the peak marked.",
            lambda charts: charts.memory_over_step(timeline),
        )
    ]
    if timeline.saved_bytes:
        pictures.append(
            _picture(
                f"{prefix}saved",
                "What the backward pass needs",
                "A bar for each kind of operator: the bytes that it made and that are kept for the backward pass.",
                lambda charts: charts.saved_by_operator(timeline),
            )
        )
    first, *rest = section.blocks
    return Section(title=section.title, blocks=(first, *pictures, *rest))


def _gradients(profile: Profile, prefix: str) -> Section | None:
    health = profile.gradients
    if health is None:
        return None
    section = gradient_section(health)
    drawable = any(layer.gradient_norm and layer.gradient_norm.low > 0 for layer in health.layers)
    if not drawable:
        return section
    picture = _picture(
        f"{prefix}gradients",
        "Gradients from the first layer to the last",
        "Norms of the weights' gradients and of the gradients that arrive at the layers, on a logarithmic axis.",
        lambda charts: charts.gradients_by_layer(health),
    )
    first, *rest = section.blocks
    return Section(title=section.title, blocks=(first, picture, *rest))


def _left_out(profile: Profile) -> Section | None:
    if not profile.missing:
        return None
    points = tuple(f"{part}: {why}" for part, why in profile.missing.items())
    return Section(title="Not in this profile", blocks=(Bullets(points),))


def _picture(name: str, title: str, alt: str, draw: Callable[[Any], Chart]) -> Picture:
    from archbench.rendering import profile_charts

    return Picture(name=name, title=title, alt=alt, spec=draw(profile_charts).to_json(indent=None))
