"""How far the figures can be trusted, and what to do about those that cannot."""

from __future__ import annotations

from collections import Counter

from archbench.model.reasons import REASONS
from archbench.model.record import VERDICTS
from archbench.model.units import percent
from archbench.rendering.content import Block, Bullets, Section, Table
from archbench.rendering.run_data import RunData

_VERDICT_MEANING = {
    "ok": "fit to be used",
    "suspect": "usable with care; ranked with a mark",
    "invalid": "not of this network on this machine; never ranked",
}


def in_short(run: RunData) -> str:
    """How far to trust the figures, in a sentence for the top of a report."""
    said = counted(run)
    verdicts = f"Verdicts: {said}" if said else "Nothing was measured"
    if run.floor is None:
        return f"{verdicts}; without a twin the noise floor is not known."
    return f"{verdicts}; the noise floor is {percent(run.floor.spread)}: smaller differences mean nothing."


def counted(run: RunData) -> str:
    """`22 ok, 6 suspect`; empty where nothing was measured."""
    counts = Counter(one.verdict for one in run.cells if one.status == "ok")
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts[verdict])


def trust(run: RunData) -> Section:
    """Verdicts counted, the noise floor, and each reason with its remedy."""
    counts = Counter(one.verdict for one in run.cells if one.status == "ok")
    rows = [(verdict, f"{counts[verdict]:,}", _VERDICT_MEANING[verdict]) for verdict in VERDICTS]
    failed = Counter(one.status for one in run.cells if one.status != "ok")
    rows += [(status, f"{count:,}", "no figures, see below") for status, count in failed.most_common()]
    verdicts = Table(headings=("Verdict", "Cells", "Meaning"), rows=tuple(rows), numeric=frozenset({1}))
    return Section(
        title="How far to trust this", blocks=(Bullets((_intervals(run), *_noise(run))), verdicts, *_reasons(run))
    )


def _intervals(run: RunData) -> str:
    most = max(one.processes_used for one in run.cells)
    if most < 2:
        return (
            "Every cell was measured by one process, and ± is the 95 % interval within it. "
            "How much processes differ needs several rounds (`--rounds 3`)."
        )
    between = (
        "A figure is the median over the rounds, each measured by a process of its own; "
        "± is the 95 % interval between those processes."
    )
    return f"{between} Two make it wide: a third round narrows it much." if run.rounds == 2 else between


def _noise(run: RunData) -> list[str]:
    notes = []
    if run.floor is not None:
        notes.append(
            f"Noise floor: by its {run.floor.visits} measurements of the very same thing ({run.floor.variant}, several "
            f"times a round), 19 of 20 pairs of measurements differ by less than {percent(run.floor.spread)}. Smaller "
            "differences between networks mean nothing. More rounds make it better known, and narrower."
        )
    if run.drift is not None:
        low, high = (percent(change, signed=True) for change in run.drift)
        notes.append(
            f"The time of a fixed kernel, taken beside every cell, stayed between {low} and {high} of its median in "
            "nine measurements of ten."
        )
    if run.corrected:
        notes.append("Times and rates below are corrected for that drift; the raw ones are in `results.parquet`.")
    return notes


def _reasons(run: RunData) -> list[Block]:
    counts = Counter(code for one in run.cells if one.status == "ok" for code in one.reasons if ":" not in code)
    order = {"invalid": 0, "suspect": 1, "label": 2}
    known = {code: REASONS[code] for code in counts if code in REASONS and REASONS[code].effect in order}
    rows = tuple(
        (code, f"{counts[code]:,}", f"{reason.effect}: {reason.meaning}", reason.remedy or "nothing to do")
        for code, reason in sorted(known.items(), key=lambda item: (order[item[1].effect], -counts[item[0]]))
    )
    if not rows:
        return []
    return [Table(headings=("Reason", "Cells", "Meaning", "What to do"), rows=rows, numeric=frozenset({1}))]
