"""A profile on one screen. Rich lays it out, and leaves the colours out for NO_COLOR and where nobody is looking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from archbench.choose.profile_difference import Aligned, difference
from archbench.cli.roofline_sketch import sketch
from archbench.model.cell import Cell
from archbench.model.profile import Finding, ModuleProfile, OperatorProfile, Profile
from archbench.model.units import GIGA, MIB, MILLION, MS, NULL, figure, fixed, percent

PIPE_WIDTH = 150
_BAR = 10
"""Characters of a full bar."""
_LONGEST_KERNEL = 70
_NUMBERS_FROM = 2
"""Columns of the table of modules before this one are words."""


class Line(Struct, frozen=True):
    """A row of the tree as it is shown: a module, or what is folded beneath one."""

    label: str
    kind: str
    depth: int
    row: ModuleProfile | None
    forward_s: float
    backward_s: float | None
    share: float


def show_profile(profile: Profile, *, depth: int | None, stage: str, top: int) -> None:
    """Print header, tree, operators, roofline and findings."""
    console = _console()
    _header(console, profile)
    console.print(_tree(profile, lines(profile, depth=depth, stage=stage)))
    _operators(console, profile, top)
    if profile.roofline is not None and profile.roofline.points:
        console.print(Text("\nRoofline", style="bold"))
        console.print(Text("\n".join(sketch(profile.roofline))), soft_wrap=True)
    _findings(console, profile.findings)
    for part, reason in profile.missing.items():
        console.print(Text(f"no {part}: {reason}", style="dim"), soft_wrap=True)


def lines(profile: Profile, *, depth: int | None, stage: str) -> list[Line]:
    """The rows to show: to `depth`, or the stages; `stage` shows one module's inside. What is folded is summed up."""
    rows = profile.modules
    if stage:
        rows = tuple(row for row in rows if row.path == stage or row.path.startswith(f"{stage}."))
    top = rows[0].depth
    shown = {row.path for row in rows if _is_shown(row, profile, depth=depth, top=top, inside=bool(stage))}
    found: list[Line] = []
    for position, row in enumerate(rows):
        if row.path not in shown:
            continue
        label = (row.path.rpartition(".")[2] if row.depth > top else row.path) or profile.network
        found.append(Line(label, row.kind, row.depth - top, row, row.forward_s, row.backward_s, row.share))
        inside = _inside(rows[position + 1 :], row)
        if any(child.path in shown for child in inside):
            found += _folded(row, [child for child in inside if child.depth == row.depth + 1], shown, top, profile)
    return found if stage else [*_in_order(found), *_parts(profile)]


def _is_shown(row: ModuleProfile, profile: Profile, *, depth: int | None, top: int, inside: bool) -> bool:
    if depth is not None:
        return row.depth - top <= depth
    if inside:
        return row.depth - top <= 1
    return row.depth <= 1 or any(stage == row.path or stage.startswith(f"{row.path}.") for stage in profile.stages)


def _inside(following: Sequence[ModuleProfile], row: ModuleProfile) -> list[ModuleProfile]:
    inside = []
    for other in following:
        if other.depth <= row.depth:
            break
        inside.append(other)
    return inside


def _folded(
    row: ModuleProfile, children: Sequence[ModuleProfile], shown: set[str], top: int, profile: Profile
) -> list[Line]:
    """What the children that are not shown take, and the module's own code: without it the rows would not add up."""
    hidden = [child for child in children if child.path not in shown]
    seen = [child for child in children if child.path in shown]
    rest_s = row.total_s - sum(child.total_s for child in seen)
    if not hidden and rest_s < 0.001 * profile.observed_step_s:
        return []
    forward_s = row.forward_s - sum(child.forward_s for child in seen)
    backward_s = None if row.backward_s is None else row.backward_s - sum(child.backward_s or 0.0 for child in seen)
    label = f"{len(hidden)} more" if hidden else "own code"
    return [Line(label, "", row.depth - top + 1, None, forward_s, backward_s, rest_s / profile.observed_step_s)]


def _in_order(found: list[Line]) -> list[Line]:
    """Each fold behind the last of its siblings."""
    ordered: list[Line] = []
    waiting: list[Line] = []
    for line in found:
        while waiting and waiting[-1].depth > line.depth:
            ordered.append(waiting.pop())
        if line.row is None:
            waiting.append(line)
        else:
            ordered.append(line)
    return [*ordered, *reversed(waiting)]


def _parts(profile: Profile) -> list[Line]:
    return [
        Line(part.name, "", 0, None, part.forward_s, part.backward_s, part.share)
        for part in profile.parts
        if part.share >= 0.001
    ]


def describe(cell: Cell) -> str:
    """The cell's settings in words."""
    words = [cell.phase, f"batch size {cell.batch_size}", cell.precision]
    if cell.memory_format != "contiguous":
        words.append(cell.memory_format)
    words.append("eager" if cell.compile_mode == "off" else f"compiled ({cell.compile_mode})")
    return ", ".join(words)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def _header(console: Console, profile: Profile) -> None:
    where = profile.environment.hardware_class if profile.environment else profile.device
    threads = f", {profile.threads} thread{'s' if profile.threads != 1 else ''}" if profile.device == "cpu" else ""
    console.print(Text(f"{profile.network}: {describe(profile.cell)}", style="bold"))
    console.print(Text(f"on {where}{threads}"), soft_wrap=True)
    rate = profile.cell.batch_size / profile.step_s
    peak = profile.memory.measured_peak_bytes if profile.memory else None
    facts = [
        f"step {figure(profile.step_s, MS)} ms ({rate:.3g} img/s)",
        f"{figure(profile.macs, GIGA)} GMACs an image",
        f"{figure(profile.params, MILLION)} M parameters",
        f"peak {figure(peak, MIB)} MiB",
    ]
    console.print(Text(", ".join(facts)), soft_wrap=True)
    off = profile.attributed_s / profile.step_s - 1
    sums = (
        f"modules and parts add up to {figure(profile.attributed_s, MS)} ms ({percent(off, signed=True)}) over "
        f"{profile.steps} observed steps; observing cost {percent(profile.observing_cost, signed=True)}"
    )
    console.print(Text(sums, style="dim"), soft_wrap=True)


def _tree(profile: Profile, shown: Iterable[Line]) -> Table:
    training = profile.cell.phase == "training"
    headings = [
        "module",
        "class",
        "calls",
        "forward ms",
        *(["backward ms"] if training else []),
        "share",
        "",
        "params M",
        "GMACs",
        "kept MiB" if training else "written MiB",
        "moved MiB",
        "FLOP/byte",
        "GFLOP/s",
        "of roofline",
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for number, heading in enumerate(headings):
        words = number < _NUMBERS_FROM or not heading
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for line in shown:
        table.add_row(*_fields(line, training=training), style=None if line.row else "dim")
    return table


def _fields(line: Line, *, training: bool) -> list[Text | str]:
    row = line.row
    bar = Text("█" * max(round(line.share * _BAR), 0), style="cyan") if line.depth else Text("")
    fields: list[Text | str] = [
        Text("  " * line.depth + line.label),
        Text(line.kind),
        "" if row is None else str(row.calls or ""),
        fixed(line.forward_s, MS, 2),
        *([fixed(line.backward_s, MS, 2)] if training else []),
        f"{100 * line.share:.1f} %",
        bar,
    ]
    if row is None:
        return [*fields, *[""] * 7]
    kept = row.saved_bytes if training else row.activation_bytes
    return [
        *fields,
        fixed(row.params, MILLION, 2),
        fixed(row.macs, GIGA, 3),
        fixed(kept, MIB, 1),
        fixed(row.bytes_moved, MIB, 1),
        NULL if row.intensity is None else f"{row.intensity:.3g}",
        figure(row.achieved_flops, GIGA) if row.flops else NULL,
        NULL if row.roofline_share is None else f"{100 * row.roofline_share:.0f} % {row.bound or ''}",
    ]


def _operators(console: Console, profile: Profile, top: int) -> None:
    groups = [("Operators, by their own time", profile.operators), ("Kernels", profile.kernels)]
    if profile.compiled is not None:
        groups.append(("Kernels of the compiled step", profile.compiled.kernels))
    for title, found in groups:
        if found and top:
            console.print(Text(f"\n{title}", style="bold"))
            console.print(_operator_table(found[:top], with_modules=title.endswith("compiled step")))


def _operator_table(found: Sequence[OperatorProfile], *, with_modules: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_header=False)
    for justify in ("right", "right", "right", "left", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for one in found:
        unit = "" if one.tensor_core is None else "tensor cores" if one.tensor_core else "plain cores"
        modules = _modules(one.modules) if with_modules else ""
        table.add_row(
            f"{fixed(one.self_s, MS, 2)} ms",
            f"{100 * one.share:.1f} %",
            f"{one.calls:g} x",
            Text(_clipped(one.name)),
            Text(", ".join(one.shapes[:3]) or modules),
            Text(", ".join(filter(None, (unit, f"{one.bound}-bound" if one.bound else ""))), style="dim"),
        )
    return table


def _modules(paths: Sequence[str]) -> str:
    if not paths:
        return "unmapped"
    return f"{paths[0]}" if len(paths) == 1 else f"{paths[0]} ... {paths[-1]} ({len(paths)} modules)"


def _clipped(name: str) -> str:
    return name if len(name) <= _LONGEST_KERNEL else f"{name[: _LONGEST_KERNEL - 1]}…"


def _findings(console: Console, found: Sequence[Finding]) -> None:
    console.print(Text("\nFindings", style="bold"))
    for finding in found:
        console.print(Text(f"- {finding.text.replace('`', '')}"), soft_wrap=False)
        if finding.remedy:
            console.print(Text(f"    -> {finding.remedy.replace('`', '')}", style="green"), soft_wrap=False)


def show_difference(base: Profile, other: Profile, *, depth: int | None) -> None:
    """Print two profiles side by side, row by row, adding up to the difference of their steps."""
    console = _console()
    for letter, profile in (("A", base), ("B", other)):
        console.print(Text(f"{letter} ", style="bold"), end="")
        _header(console, profile)
    found = difference(base, other, depth)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    kept = base.cell.phase == other.cell.phase == "training"
    headings = [found.aligned_by, "modules of A", "modules of B", "A ms", "B ms", "B - A ms", "of the difference"]
    headings += ["A GMACs", "B GMACs", *(["A kept MiB", "B kept MiB"] if kept else [])]
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 3 else "right", no_wrap=number != 1 and number != 2)
    for row in found.rows:
        table.add_row(*_aligned(row, found.change_s, kept=kept))
    table.add_row(
        "all",
        "",
        "",
        fixed(found.base_s, MS, 2),
        fixed(found.other_s, MS, 2),
        _signed_ms(found.change_s),
        "100 %",
        fixed(base.macs, GIGA, 3),
        fixed(other.macs, GIGA, 3),
        *([fixed(one.modules[0].saved_bytes, MIB, 1) for one in (base, other)] if kept else []),
        style="bold",
    )
    console.print(table)
    for letter, profile in (("A", base), ("B", other)):
        console.print(Text(f"\n{letter}: {profile.network}, {describe(profile.cell)}", style="bold"), end="")
        _findings(console, profile.findings)


def _aligned(row: Aligned, change_s: float, *, kept: bool) -> list[Text | str]:
    share = row.change_s / change_s if change_s else 0.0
    fields: list[Text | str] = [
        Text(row.name),
        Text(", ".join(row.base.names)),
        Text(", ".join(row.other.names)),
        fixed(row.base.seconds, MS, 2),
        fixed(row.other.seconds, MS, 2),
        Text(_signed_ms(row.change_s), style="red" if row.change_s > 0 else "green"),
        f"{round(100 * share)} %",
        fixed(row.base.macs, GIGA, 3),
        fixed(row.other.macs, GIGA, 3),
    ]
    return [*fields, *([fixed(one.saved_bytes, MIB, 1) for one in (row.base, row.other)] if kept else [])]


def _signed_ms(seconds: float) -> str:
    return f"{'+' if seconds > 0 else ''}{fixed(seconds, MS, 2)}"
