"""How far the figures can be trusted, what to do about those that cannot, and the cells that have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from archbench.choose.cell_summary import CellSummary
from archbench.model.reasons import REASONS
from archbench.model.record import FAILED, VERDICTS
from archbench.model.units import NULL, percent
from archbench.rendering.content import Block, Bullets, Section, listed, table
from archbench.rendering.figures import BATCH, NETWORK, PHASE, SETTING, CellColumns
from archbench.rendering.run_data import RunData

_MOST_ROWS = 100
_LONGEST_MESSAGE = 160
_EXAMPLES = 3
_VERDICT_MEANING = {
    "ok": "fit to be used",
    "suspect": "usable with care; ranked with a mark",
    "invalid": "not of this network on this machine; never ranked",
}


def in_short(run: RunData) -> str:
    """How far to trust the figures, in a few sentences for the top of a report."""
    said = counted(run)
    return f"Verdicts: {said}. {run.trust.statement}" if said else "Nothing was measured."


def counted(run: RunData) -> str:
    """`22 ok, 6 suspect` of its cells, by verdict; empty where nothing was measured."""
    counts = Counter(one.verdict for one in run.cells if one.status == "ok")
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts[verdict])


def outcome(run: RunData) -> str:
    """`18 of 32 planned cells measured; unfinished; 16 ok, 2 suspect; 1 oom`: every cell once, whatever the rounds."""
    without = Counter(one.status for one in run.cells if one.status != "ok")
    failed = ", ".join(f"{number:,} {status}" for status, number in without.items())
    return "; ".join(filter(None, (run.extent(), counted(run), failed)))


def trust(run: RunData) -> Section:
    """Which differences are differences, verdicts counted, and each reason with its remedy."""
    counts = Counter(one.verdict for one in run.cells if one.status == "ok")
    rows = [(verdict, f"{counts[verdict]:,}", _VERDICT_MEANING[verdict]) for verdict in VERDICTS]
    failed = Counter(one.status for one in run.cells if one.status != "ok")
    rows += [(status, f"{count:,}", "no figures, see below") for status, count in failed.most_common()]
    verdicts = table(("Verdict", ">Cells", "Meaning"), rows)
    return Section(
        title="How far to trust this",
        blocks=(Bullets((run.trust.statement, _intervals(run), *_noise(run))), verdicts, *_reasons(run)),
    )


def _intervals(run: RunData) -> str:
    if run.trust.apart is None:
        return "± is the 95 % interval within a process."
    return (
        "A figure is the median over its processes; ± is its 95 % interval, which contains how far processes differ: "
        "as far as its own do, moderated towards how far those of all cells do (empirical Bayes). One pair of equal "
        "networks in twenty differs by more than is said here; more rounds make it less."
    )


def _noise(run: RunData) -> list[str]:
    notes = []
    if run.drift is not None:
        low, high = (percent(change, signed=True) for change in run.drift)
        notes.append(
            f"The time of a fixed kernel, taken beside every cell, stayed between {low} and {high} of its median in "
            "nine measurements of ten."
        )
    if run.corrected:
        notes.append(
            "Times and rates in this report are corrected for that drift; the raw ones are in `results.parquet`."
        )
    return notes


def _reasons(run: RunData) -> list[Block]:
    counts = Counter(code for one in run.cells if one.status == "ok" for code in one.reasons if ":" not in code)
    order = {"invalid": 0, "suspect": 1, "label": 2}
    known = {code: REASONS[code] for code in counts if code in REASONS and REASONS[code].effect in order}
    rows = [
        (code, f"{counts[code]:,}", f"{reason.effect}: {reason.meaning}", reason.remedy or "nothing to do")
        for code, reason in sorted(known.items(), key=lambda item: (order[item[1].effect], -counts[item[0]]))
    ]
    return [table(("Reason", ">Cells", "Meaning", "What to do"), rows)] if rows else []


def failures(run: RunData) -> Section | None:
    """Failed cells one by one, cells that were not run by reason; `None` where there are neither."""
    failed = [one for one in run.cells if one.status in FAILED or (one.status == "ok" and one.error_message)]
    not_run = [one for one in run.cells if one.status in ("unsupported", "skipped")]
    failed.sort(key=lambda one: (one.variant, one.phase, one.setting_label, one.batch_size))
    blocks = [*_failed(failed), *_not_run(not_run)]
    return Section(title="Without figures", blocks=tuple(blocks)) if blocks else None


def _failed(cells: Sequence[CellSummary]) -> list[Block]:
    columns: CellColumns = {
        **NETWORK,
        **PHASE,
        **SETTING,
        **BATCH,
        # A process that failed where others did not has left its message, and no figure is missing.
        "Status": lambda one: (
            f"{one.processes - one.processes_used} of {one.processes}" if one.status == "ok" else one.status
        ),
        "During": lambda one: one.error_phase or NULL,
        "Message": _message,
    }
    return listed(cells, columns, noun="cells", most=_MOST_ROWS)


def _not_run(cells: Sequence[CellSummary]) -> list[Block]:
    groups: dict[tuple[str, str], list[CellSummary]] = {}
    for one in cells:
        groups.setdefault((one.status, _message(one)), []).append(one)
    columns: dict[str, Callable[[list[CellSummary]], str]] = {
        "Not run": lambda members: members[0].status,
        ">Cells": lambda members: f"{len(members):,}",
        "Why": lambda members: _message(members[0]),
        "Such as": _examples,
    }
    return listed(sorted(groups.values(), key=len, reverse=True), columns, noun="reasons", most=_MOST_ROWS)


def _message(one: CellSummary) -> str:
    """What went wrong, or else the reasons that are about the whole cell."""
    text = one.error_message or ", ".join(code for code in one.reasons if ":" not in code) or NULL
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def _examples(cells: list[CellSummary]) -> str:
    names = list(dict.fromkeys(one.network for one in cells))
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
