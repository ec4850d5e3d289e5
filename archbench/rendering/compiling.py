"""What compiling costs and when it is repaid; and what every setting does to the output of a network."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.choose.toggles import Alike, BreakEven, Cost, Images, break_evens, costs
from archbench.model.units import NULL, RATIO, SECOND, figure, fixed, images, scientific
from archbench.rendering.content import Paragraph, Section
from archbench.rendering.listing import listed


def compiling(groups: Sequence[Alike]) -> list[Section]:
    """How many images repay each compilation; nothing where none was timed beside eager mode."""
    found = [one for one in break_evens(groups) if one.cold or one.warm]
    headings = ("Network", "Phase", "Setting", "Batch", "Rate ×", "Cold s", "Images, cold", "Warm s", "Images, warm")
    blocks = listed(
        found,
        _break_even_row,
        headings,
        numeric={"Batch", "Rate ×", "Cold s", "Images, cold", "Warm s", "Images, warm"},
        noun="compiled cells",
        caption="Images after which compiling has paid for itself",
    )
    if not blocks:
        return []
    note = Paragraph(
        "Images after which the time saved adds up to the time of compiling: compile time over the difference of the "
        "times per image, eager and compiled, all other toggles equal; never where compiled is not faster. Cold: with "
        "an empty compile cache; warm: with one filled by an earlier process. In brackets the 95 % interval."
    )
    return [Section(title="When compiling has paid for itself", blocks=(note, *blocks))]


def outputs(groups: Sequence[Alike]) -> list[Section]:
    """What the settings do to the output; nothing where it was not looked at."""
    headings = (
        "Network",
        "Phase",
        "Setting",
        "Batch",
        "Gain ×",
        "Relative error",
        "Cosine",
        "Compiled / eager",
        "Finite",
    )
    blocks = listed(
        costs(groups),
        _cost_row,
        headings,
        numeric={"Batch", "Gain ×", "Relative error", "Cosine", "Compiled / eager"},
        noun="cells",
        caption="Effect of the settings on the output",
    )
    if not blocks:
        return []
    note = Paragraph(
        "The output against that of plain fp32 with the same random weights: relative error in the L2 norm, and the "
        "cosine between the two. Compiled / eager: the error against fp64 of the compiled network over the eager one's "
        "at the same precision; about 1 is harmless. It is no accuracy, but what a setting could cost of it."
    )
    return [Section(title="What the settings do to the output", blocks=(note, *blocks))]


def _break_even_row(one: BreakEven) -> tuple[str, ...]:
    compiled = one.compiled
    return (
        compiled.network,
        compiled.phase,
        compiled.setting_label,
        str(compiled.batch_size),
        figure(one.gain.ratio, RATIO, one.gain.low, one.gain.high),
        figure(compiled.compile_cold_s, SECOND),
        _images(one.cold),
        figure(compiled.compile_warm_s, SECOND),
        _images(one.warm),
    )


def _images(number: Images | None) -> str:
    return NULL if number is None else images(number.value, number.low, number.high)


def _cost_row(one: Cost) -> tuple[str, ...]:
    cell = one.cell
    return (
        cell.network,
        cell.phase,
        cell.setting_label,
        str(cell.batch_size),
        NULL if one.gain is None else figure(one.gain.ratio, RATIO, one.gain.low, one.gain.high),
        scientific(cell.output_rel_error),
        fixed(cell.output_cosine, RATIO, 6),
        figure(cell.compile_error_ratio, RATIO),
        NULL if cell.output_finite is None else ("yes" if cell.output_finite else "NO"),
    )
