"""Which setting is best for each network, and which networks change places between settings."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.choose.cell_summary import CellSummary
from archbench.choose.margins import duel
from archbench.choose.toggles import Alike, Best, Flip, Flips, Gain, Step, best_setting, rank_flips
from archbench.model.units import NULL, RATIO, figure, percent
from archbench.rendering.content import Block, Code, Fold, Paragraph, Section
from archbench.rendering.listing import listed
from archbench.rendering.run_data import RunData

_MOST_DUELS = 10
"""Ties whose duel is spelled out; one shows how, ten are work enough for a day."""
_MOST_FLIPS = 200


def best_sections(groups: Sequence[Alike], taken: Sequence[Step], run: RunData) -> list[Section]:
    """The best setting of every network, and the rank flips; each where there is one to tell."""
    return [*_best(groups, run), *_flips(run, taken)]


def _best(groups: Sequence[Alike], run: RunData) -> list[Section]:
    floor = run.floor.spread if run.floor else None
    ranked = [
        group for group in groups if sum(one.is_usable and one.rank_latency_s is not None for one in group.values()) > 1
    ]
    ties: list[tuple[CellSummary, CellSummary]] = []

    def row(group: Alike) -> tuple[str, ...]:
        best, rate = best_setting(group, floor), best_setting(group, floor, "throughput")
        assert best is not None, "two of its settings are timed"
        ties.extend((best.cell, other) for other in best.tied[:1])
        return (
            best.cell.network,
            best.cell.phase,
            str(best.cell.batch_size),
            best.cell.setting_label,
            _over_plain(best),
            rate.cell.setting_label if rate else NULL,
            _over_plain(rate) if rate else NULL,
            ", ".join(one.setting_label for one in best.tied) or "none",
        )

    headings = ("Network", "Phase", "Batch", "Lowest latency", "Gain ×", "Most img/s", "Rate ×", "Tied in latency")
    blocks = listed(
        ranked,
        row,
        headings,
        numeric={"Batch", "Gain ×", "Rate ×"},
        noun="networks and batch sizes",
        caption="The best setting of each network",
    )
    if not blocks:
        return []
    note = Paragraph(
        "Gains are over plain fp32 at the same batch size, latency and rate each by its own measurement. Tied settings "
        "cannot be told from the best: they differ by less than the noise floor, or than their intervals together."
    )
    return [Section(title="The best setting of each network", blocks=(note, *blocks, *_duels(ties)))]


def _duels(ties: Sequence[tuple[CellSummary, CellSummary]]) -> list[Block]:
    # A name that is not one line of plain text is none to copy from a page.
    ties = [pair for pair in ties if all(one.cell_id.isprintable() for one in pair)]
    if not ties:
        return []
    commands = Code("\n".join(duel(one.cell_id, other.cell_id) for one, other in ties[:_MOST_DUELS]))
    rest = f", the first {_MOST_DUELS} of {len(ties):,}" if len(ties) > _MOST_DUELS else ""
    return [Fold(summary=f"What would settle the ties{rest}", blocks=(commands,))]


def _flips(run: RunData, taken: Sequence[Step]) -> list[Section]:
    plain = next((one.setting_label for one in run.cells if one.is_plain), None)
    others = [label for label in run.setting_labels() if label != plain]
    changes = [(plain, label) for label in others] if plain is not None else []
    changes += [(step.before.setting_label, step.after.setting_label) for step in taken]
    floor = run.floor.spread if run.floor else None
    found = rank_flips(run.cells, list(dict.fromkeys(changes)), floor)
    if not found:
        return []
    blocks = listed(
        found,
        _flips_row,
        ("From", "To", "Phase", "Batch", "Pairs", "Change places", "Share"),
        numeric={"Batch", "Pairs", "Change places", "Share"},
        noun="changes of setting",
        caption="Pairs of networks that change places between settings",
    )
    note = Paragraph(
        "Does the ranking hold when toggles are turned on? Pairs of networks measured under both settings, each at its "
        "own image size. They change places where one is faster before, the other after, both by more than the noise."
    )
    return [Section(title="Networks that change places", blocks=(note, *blocks, *_named(found)))]


def _flips_row(flips: Flips) -> tuple[str, ...]:
    return (
        flips.before,
        flips.after,
        flips.phase,
        str(flips.batch_size),
        f"{flips.pairs:,}",
        f"{flips.flipped:,}",
        percent(flips.flipped / flips.pairs),
    )


def _named(found: Sequence[Flips]) -> list[Block]:
    """The pairs themselves, the strongest first."""
    flips = [(each, flip) for each in found for flip in each.named]
    flips.sort(key=lambda pair: -min(pair[1].before.ratio, pair[1].after.ratio))

    def row(pair: tuple[Flips, Flip]) -> tuple[str, ...]:
        each, flip = pair
        return (
            flip.faster_before.network,
            _times(flip.before),
            flip.faster_after.network,
            _times(flip.after),
            each.before,
            each.after,
            each.phase,
            str(each.batch_size),
        )

    headings = ("Faster before", "By ×", "Faster after", "By × then", "From", "To", "Phase", "Batch")
    return listed(flips, row, headings, numeric={"By ×", "By × then", "Batch"}, noun="pairs", most=_MOST_FLIPS)


def _over_plain(best: Best) -> str:
    if best.gain is None:
        return "1" if best.cell.is_plain else NULL
    return _times(best.gain)


def _times(found: Gain) -> str:
    return figure(found.ratio, RATIO, found.low, found.high)
