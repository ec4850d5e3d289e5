"""Toggles: what each contributes, what a setting gains over fp32, which is best, and when compiling is repaid."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

from archbench.choose import toggles as compared
from archbench.choose.cell_summary import WIDEST, CellSummary, duel
from archbench.choose.toggles import Alike, Best, BreakEven, Cost, Flip, Flips, Gain, Images, Step
from archbench.model.axes import PLAIN
from archbench.model.units import MIB, MS, NULL, RATIO, figure, fixed, images, percent, plain, rounded, whole
from archbench.rendering import content
from archbench.rendering.content import MOST_ROWS, Block, Columns, Section, fold, grouped, listed, of, section, wide
from archbench.rendering.decisions import MARK
from archbench.rendering.figures import BATCH, NETWORK, PHASE, PHASES, SETTING, CellColumns, by_phase
from archbench.rendering.run_data import RunData

_MOST_DUELS = 10
"""Ties whose duel is spelled out; one shows how, ten are work enough for a day."""
_MOST_FLIPS = 200
_Beside = tuple[CellSummary, dict[str, CellSummary]]
"""A cell in plain fp32, and its like under every setting by name."""


def toggles(run: RunData) -> Section | None:
    """All about toggles; `None` where no cell was measured under two settings."""
    groups = compared.alike(run.cells)
    taken = compared.steps(groups, list(run.settings))
    return section(
        "Toggles",
        _contributions(taken, run),
        _against_fp32(groups, run),
        _step_by_step(taken),
        _best(groups, run),
        _flips(run, taken),
        _compiling(groups),
        _converted(run),
        _outputs(groups),
        note="× is how many times faster, by the latency of cells that differ in nothing but the toggles named; 1.00 "
        f"is no gain, ± the 95 % interval. `{MARK}` marks a ratio with a suspect side; a word stands where there is "
        f"none: `wide` where an interval spans more than a factor of {WIDEST:g}, which is no evidence.",
    )


def _contributions(taken: Sequence[Step], run: RunData) -> Section | None:
    def place(members: Sequence[Step]) -> tuple[str, int, int]:
        after = members[0].after
        return after.phase, run.settings[after.setting_label], after.batch_size

    def ratios(members: Sequence[Step], *, told: bool = False) -> list[float]:
        return [step.gain.ratio for step in members if step.gain.told or not told]

    title = "What each toggle contributes"
    columns: Columns[list[Step]] = {
        "Toggle": lambda members: members[0].toggle,
        "On top of": lambda members: members[0].before.setting_label,
        **of(lambda members: members[0].after, PHASE, BATCH),
        ">Networks": lambda members: f"{len(members):,}",
        ">Median ×": lambda members: plain(statistics.median(ratios(members))),
        ">Range ×": lambda members: f"{plain(min(ratios(members)))} to {plain(max(ratios(members)))}",
        ">Faster": lambda members: f"{sum(ratio > 1 for ratio in ratios(members, told=True)):,}",
        ">Slower": lambda members: f"{sum(ratio < 1 for ratio in ratios(members, told=True)):,}",
    }
    together = grouped(
        taken, lambda step: (step.after.phase, step.toggle, step.before.setting_label, step.after.batch_size)
    )
    return section(
        title,
        listed(sorted(together.values(), key=place), columns, noun="combinations", caption=title),
        note="One toggle turned on, all else equal. On top of plain fp32 it stands alone; on top of another setting it "
        "is what it adds there. Faster, slower: networks whose ratio differs from 1 by more than its ±.",
    )


def _against_fp32(groups: Sequence[Alike], run: RunData) -> tuple[Block, ...]:
    """A table for each phase in which something was measured in plain fp32 and under another setting."""
    found = [
        (plain, {one.setting_label: one for one in group.values()})
        for group in groups
        if (plain := group.get(PLAIN)) is not None and len(group) > 1
    ]
    unaided = {one.setting_label for one in run.cells if one.is_plain}
    others = [label for label in run.settings if label not in unaided]
    lead: Columns[_Beside] = {
        **of(lambda pair: pair[0], NETWORK, BATCH),
        ">fp32 ms": lambda pair: rounded(
            pair[0].rank_latency_s, MS, pair[0].rank_latency_low_s, pair[0].rank_latency_high_s
        ),
    }
    ratios: Columns[_Beside] = {f">{label} ×": partial(_ratio, label) for label in others}

    def blocks(phase: str) -> list[Block]:
        pairs = [pair for pair in found if pair[0].phase == phase and pair[0].rank_latency_s]
        return wide(pairs, lead, ratios, noun="networks", caption=f"{PHASES[phase]}: speed over plain fp32")

    return by_phase("{}: gains over fp32", blocks)


def _ratio(label: str, beside: _Beside) -> str:
    plain, other = beside[0], beside[1].get(label)
    if other is None:
        return NULL
    if other.status != "ok":
        return other.status
    verdicts = {plain.verdict, other.verdict}
    if "invalid" in verdicts:
        return "invalid"
    found = compared.gain(plain, other)
    if found is None:
        return "wide" if plain.rank_latency_s and other.rank_latency_s else NULL
    return ratio_text(found, suspect="suspect" in verdicts)


def ratio_text(found: Gain, *, suspect: bool = False) -> str:
    """`1.59 ±0.02`, with a mark where one side is suspect."""
    ratio = figure(found.ratio, RATIO, found.low, found.high)
    return f"{ratio} {MARK}" if suspect else ratio


def _step_by_step(taken: Sequence[Step]) -> tuple[Block, ...]:
    """Each network's gain at each step that is not already a gain over plain fp32."""

    def label(step: Step) -> str:
        return f"{step.after.setting_label} / {step.before.setting_label}"

    def gained(name: str, found: dict[str, Step]) -> str:
        return ratio_text(found[name].gain, suspect=found[name].suspect) if name in found else NULL

    def blocks(phase: str) -> list[Block]:
        on_top = [step for step in taken if step.after.phase == phase and not step.alone]
        of_network = grouped(on_top, lambda one: (one.after.batch_size, one.after.variant, one.after.input_size))
        rows = [{label(step): step for step in members} for members in of_network.values()]
        lead: Columns[dict[str, Step]] = of(lambda found: next(iter(found.values())).after, NETWORK, BATCH)
        gains: Columns[dict[str, Step]] = {f">{name} ×": partial(gained, name) for name in map(label, on_top)}
        caption = f"{PHASES[phase]}: what each toggle adds to the settings before it"
        return wide(rows, lead, gains, noun="networks", caption=caption)

    return by_phase("{}: gains step by step", blocks)


def _best(groups: Sequence[Alike], run: RunData) -> Section | None:
    both = [(compared.best_setting(group), compared.best_setting(group, "throughput")) for group in groups]
    ranked = [(best, rate) for best, rate in both if best is not None]
    title = "The best setting of each network"
    columns: Columns[tuple[Best, Best | None]] = {
        **of(lambda pair: pair[0].cell, NETWORK, PHASE, BATCH),
        "Lowest latency": lambda pair: pair[0].cell.setting_label,
        ">Gain ×": lambda pair: _over_plain(pair[0]),
        "Most img/s": lambda pair: pair[1].cell.setting_label if pair[1] else NULL,
        ">Rate ×": lambda pair: _over_plain(pair[1]) if pair[1] else NULL,
        "Tied in latency": lambda pair: ", ".join(one.setting_label for one in pair[0].tied) or "none",
    }
    ties = [(best.cell.cell_id, other.cell_id) for best, _ in ranked[:MOST_ROWS] for other in best.tied[:1]]
    # A name that is not one line of plain text is none to copy from a page.
    ties = [pair for pair in ties if all(map(str.isprintable, pair))]
    commands = content.Code("\n".join(duel(*pair) for pair in ties[:_MOST_DUELS]))
    rest = f", the first {_MOST_DUELS} of {len(ties):,}" if len(ties) > _MOST_DUELS else ""
    return section(
        title,
        listed(ranked, columns, noun="networks and batch sizes", caption=title),
        fold(f"What would settle the ties{rest}", commands),
        note="Gains are over plain fp32 at the same batch size, latency and rate each by its own measurement. Tied "
        "settings cannot be told from the best: they differ by less than their ± together.",
    )


_CHANGE: Columns[Flips] = {
    "From": lambda flips: flips.before,
    "To": lambda flips: flips.after,
    "Phase": lambda flips: flips.phase,
    ">Batch": lambda flips: str(flips.batch_size),
}


def _flips(run: RunData, taken: Sequence[Step]) -> Section | None:
    plain = next((one.setting_label for one in run.cells if one.is_plain), None)
    others = [label for label in run.settings if label != plain]
    changes = [(plain, label) for label in others] if plain is not None else []
    changes += [(step.before.setting_label, step.after.setting_label) for step in taken]
    found = compared.rank_flips(run.cells, list(dict.fromkeys(changes)))
    columns: Columns[Flips] = {
        **_CHANGE,
        ">Pairs": lambda flips: f"{flips.pairs:,}",
        ">Change places": lambda flips: f"{flips.flipped:,}",
        ">Share": lambda flips: percent(flips.flipped / flips.pairs),
    }
    flips = [(each, flip) for each in found for flip in each.named]
    flips.sort(key=lambda pair: -min(pair[1].before.ratio, pair[1].after.ratio))
    pairs: Columns[tuple[Flips, Flip]] = {
        "Faster before": lambda pair: pair[1].faster_before.network,
        ">By ×": lambda pair: ratio_text(pair[1].before),
        "Faster after": lambda pair: pair[1].faster_after.network,
        ">By × then": lambda pair: ratio_text(pair[1].after),
        **of(lambda pair: pair[0], _CHANGE),
    }
    caption = "Pairs of networks that change places between settings"
    return section(
        "Networks that change places",
        listed(found, columns, noun="changes of setting", caption=caption),
        listed(flips, pairs, noun="pairs", most=_MOST_FLIPS),
        note="Does the ranking hold when toggles are turned on? Pairs of networks measured under both settings, each "
        "at its own image size. They change places where one is faster before, the other after, both by more than "
        "their ±.",
    )


def _over_plain(best: Best) -> str:
    if best.gain is None:
        return "1" if best.cell.is_plain else NULL
    return ratio_text(best.gain)


def _compiling(groups: Sequence[Alike]) -> Section | None:
    found = [one for one in compared.break_evens(groups) if one.cold or one.warm]
    columns: Columns[BreakEven] = {
        **of(lambda one: one.compiled, NETWORK, PHASE, SETTING, BATCH),
        ">Rate ×": lambda one: ratio_text(one.gain),
        ">Cold s": lambda one: plain(one.compiled.compile_cold_s),
        ">Images, cold": lambda one: _images(one.cold),
        ">Warm s": lambda one: plain(one.compiled.compile_warm_s),
        ">Images, warm": lambda one: _images(one.warm),
    }
    caption = "Images after which compiling has paid for itself"
    too = " Converting and quantising count as compiling, the artifact that they leave as the cache."
    return section(
        "When compiling has paid for itself",
        listed(found, columns, noun="compiled cells", caption=caption),
        note="Images after which the time saved adds up to the time of compiling: compile time over the difference of "
        "the times per image, eager and compiled, all other toggles equal; never where compiled is not faster. Cold: "
        "with an empty compile cache; warm: with one filled by an earlier process. In brackets the 95 % interval."
        + (too if any(one.compiled.is_converted for one in found) else ""),
    )


def _converted(run: RunData) -> Section | None:
    columns: CellColumns = {
        **NETWORK | PHASE | SETTING | BATCH,
        ">Cold s": lambda one: plain(one.compile_cold_s),
        ">Warm s": lambda one: plain(one.compile_warm_s),
        ">File MiB": lambda one: fixed(one.artifact_bytes, MIB, 1),
        ">Process MiB": lambda one: whole(one.process_bytes, MIB),
        ">In eight bits": lambda one: percent(one.quantized_share),
    }
    fine = [one for one in run.cells if one.status == "ok"]
    made = {(one.variant, one.phase, one.batch_size) for one in fine if one.is_converted}
    shown = sorted(
        (one for one in fine if (one.variant, one.phase, one.batch_size) in made),
        key=lambda one: (one.network, one.phase, run.settings.get(one.setting_label, 0), one.batch_size),
    )
    title = "What runtimes and quantisers make of the networks"
    return section(
        title,
        listed(shown, columns, noun="cells", caption=title),
        note="Cold: exporting, quantising, converting and the first step; warm: the same of a fresh process with what "
        "that left. File: what is shipped, weights included. Process: memory that serving adds to one. In eight bits: "
        "share of convolutions and linear layers, counted in what runs.",
    )


def _outputs(groups: Sequence[Alike]) -> Section | None:
    def measured(one: Cost) -> str:
        cell = one.cell
        shares = (cell.top1_measured, cell.top1_measured_low, cell.top1_measured_high)
        value, low, high = (fixed(share, RATIO, 1) for share in shares)
        return value if cell.top1_measured is None else f"{value} ({low} to {high})"

    columns: dict[str, Callable[[Cost], str]] = {
        **of(lambda one: one.cell, NETWORK, PHASE, SETTING, BATCH),
        ">Gain ×": lambda one: NULL if one.gain is None else ratio_text(one.gain),
        ">Relative error": lambda one: plain(one.cell.output_rel_error, 2),
        ">Cosine": lambda one: fixed(one.cell.output_cosine, RATIO, 6),
        ">Compiled / eager": lambda one: plain(one.cell.compile_error_ratio),
        ">Same class": lambda one: percent(one.cell.output_top1_agreement),
        "Finite": lambda one: {None: NULL, True: "yes", False: "NO"}[one.cell.output_finite],
    }
    found = compared.costs(groups)
    if any(one.cell.top1_measured is not None for one in found):
        columns |= {">Top-1 %, measured": measured, ">Drop, points": lambda one: fixed(one.cell.top1_drop, RATIO, 2)}
    caption = "Effect of the settings on the output"
    return section(
        "What the settings do to the output",
        listed(found, columns, noun="cells", caption=caption),
        note="The output against that of plain fp32 with the same weights, random ones unless the network has its own, "
        "on seeded images: relative error in the L2 norm, and the cosine between the two. Compiled / eager: the error "
        "against fp64 of the compiled network over the eager one's at the same precision; about 1 is harmless. Same "
        "class: share of the images whose top class is the same. None of it is an accuracy, which stays unproven for a "
        "setting until `archbench run --images` measures it.",
    )


def _images(number: Images | None) -> str:
    return NULL if number is None else images(number.value, number.low, number.high)
