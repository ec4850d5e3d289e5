"""What differs and is counted, not timed, so that one process a side is enough; and which changes were meant.

Those stand in a file beside the suite, and a gate tells them without failing: `suites/speed.accepted.yaml` beside
`suites/speed.yaml`, committed with the change that it accepts:

    accepted:
      - cell: resnet50            # all of a network's cells, or one: resnet50@batch_size=8
        change: params            # the column of a finding, or `time`
        to: 25557032              # no further than this; of `time`, how many times as long
        reason: "a wider stem, +0.4 % accuracy"
        until: "2026-03-01"       # the last day on which it counts

An entry covers the one change that it came with: it counts neither after its day nor once the base has it too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, inspect, structs

from archbench.model.axes import Scalar
from archbench.model.cell import network_of, short_id
from archbench.model.comparison import CellComparison, Comparison, CountedDifference
from archbench.model.errors import UsageError
from archbench.model.reasons import LOWER_BOUND, REASONS
from archbench.model.record import FAILED
from archbench.model.units import MIB, change, percent, printable, whole
from archbench.results.files import write_bytes
from archbench.suite.document import parse_document, read_text

if TYPE_CHECKING:
    import pandas as pd

EQUAL = ("params", "macs")
"""Always countable: a head without them has a broken counter."""
MEMORY = ("peak_allocated_bytes", "predicted_peak_bytes")
RESERVED = "peak_reserved_bytes"
"""Judged where CUDA graphs hold memory that counts as freed; elsewhere the allocator's rounding would be."""
BREAKS = "graph_breaks"
MEMORY_SHARE = 0.005
MEMORY_BYTES = 2 * 2**20
"""Memory may grow by this share and this much on top: the allocator hands out blocks of 2 MiB."""
_MAY_GROW = f"may grow by {percent(MEMORY_SHARE)} and {whole(MEMORY_BYTES, MIB)} {MIB.symbol}"

DAYS = 30
"""For which an entry counts unless its `until` is edited: a change that takes longer to merge is looked at again."""
TIME = "time"
GONE = "gone"
"""What a cell that the head lacks has become."""
_HEADER = """\
# Changes that were meant: `archbench gate` tells them and does not fail. Written by its --accept; commit it with the
# change. Entries that are merged or out of date count no longer, and may be deleted.
accepted:
"""


def findings(base: pd.DataFrame, head: pd.DataFrame, *, may_lack: bool) -> tuple[CountedDifference, ...]:
    """What is counted differently, cells of the base first and in their order.

    `base`, `head`: summaries, one row a cell, indexed by cell_id. `may_lack`: that a cell is on one side alone is told
    and does not fail.
    """
    found = []
    for cell in base.index.difference(head.index, sort=False):
        status, what = str(base.loc[cell, "status"]), "is gone: the head has no row"
        found.append(_difference(cell, "cell_id", status, None, what, fails=not may_lack))
    for cell in head.index.difference(base.index, sort=False):
        found.append(_difference(cell, "cell_id", None, str(head.loc[cell, "status"]), "is new: the base has no row"))
    common = base.index.intersection(head.index, sort=False)
    base, head = base.loc[common], head.loc[common]
    return (*found, *_statuses(base, head), *_figures(base, head))


def _difference(
    cell: str, column: str, base: float | str | None, head: float | str | None, what: str, *, fails: bool = False
) -> CountedDifference:
    return CountedDifference(cell_id=cell, column=column, base=base, head=head, what=what, fails=fails)


def _statuses(base: pd.DataFrame, head: pd.DataFrame) -> Iterator[CountedDifference]:
    for cell in base.index[((base["status"] != head["status"]) | base["status"].isin(FAILED)).to_numpy()]:
        before, after = str(base.loc[cell, "status"]), str(head.loc[cell, "status"])
        what = _ending(before, after, base.loc[cell, "error_message"], head.loc[cell, "error_message"])
        fails = before == "ok" or (after in FAILED and before not in FAILED)
        yield _difference(cell, "status", before, after, what, fails=fails)
    # Processes that failed beside others that did not: the figures stand, and the failure is worth a look.
    partly = ((base["status"] == "ok") & (head["status"] == "ok") & head["error_message"].notna()).to_numpy()
    for cell, message in head.loc[partly, "error_message"].items():
        yield _difference(str(cell), "status", "ok", "ok", f"some processes of the head failed: {message}")


def _ending(before: str, after: str, base_error: object, head_error: object) -> str:
    """How a cell ended on each side, with the error that is the latest news of it."""
    base_error, head_error = (error if isinstance(error, str) else "" for error in (base_error, head_error))
    if after == "ok":
        return f"was {before}{f' ({base_error})' if base_error else ''}, is ok"
    how = f"ended with {after} on both sides" if before == after else f"was {before}, is {after}"
    return f"{how}: {head_error}" if head_error else how


def _figures(base: pd.DataFrame, head: pd.DataFrame) -> Iterator[CountedDifference]:
    """Figures that changed beyond their rule, and those that the head no longer has."""
    launches = [side["cuda_graph_launches"].astype("Float64") for side in (head, base)]
    graphs = launches[0].fillna(launches[1]).fillna(0) > 0
    ran = (base["status"] == "ok") & (head["status"] == "ok")
    for column in (*EQUAL, *MEMORY, RESERVED, BREAKS):
        before, after = base[column].astype("Float64"), head[column].astype("Float64")
        lost = ran & before.notna() & after.isna()
        if column in EQUAL:
            broken, rule = before != after, "must be equal"
        elif column == BREAKS:
            broken, rule = after > before, "may not grow"
        else:
            broken, rule = after - before > MEMORY_SHARE * before + MEMORY_BYTES, _MAY_GROW
        if column == RESERVED:
            broken, lost = broken & graphs, lost & graphs
        for cell in base.index[broken.fillna(False).to_numpy(dtype=bool)]:
            one, other = float(before[cell]), float(after[cell])
            by = f", {change(other / one - 1)}" if one else ""
            what = f"{column} {one:,.0f} → {other:,.0f}{by} ({rule})"
            yield _difference(cell, column, one, other, what, fails=True)
        for cell in base.index[lost.to_numpy(dtype=bool)]:
            own = f"{column}:"
            codes = [code.removeprefix(own) for code in head.loc[cell, "reasons"] if code.startswith(own)]
            if "not_requested" in codes:
                continue  # taken away from the suite on purpose, and nothing lost
            why = next((REASONS[code].meaning for code in codes if code in REASONS), "its rows give no reason")
            what = f"{column} {before[cell]:,.0f} → none: {why}"
            yield _difference(cell, column, float(before[cell]), None, what, fails=column in EQUAL)
    for cell, before, after in zip(base.index, base["reasons"], head["reasons"], strict=True):
        if LOWER_BOUND in after and LOWER_BOUND not in before:
            what = f"macs is a lower bound in the head, not in the base: {REASONS[LOWER_BOUND].meaning}"
            yield _difference(cell, "macs", None, None, what)


class Accepted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change that was meant; the meaning of its fields is above."""

    cell: str
    change: str
    to: Scalar
    reason: str
    until: str

    def covers(self, one: CellComparison | CountedDifference) -> bool:
        """Whether it is about this, and this goes no further than was accepted."""
        if self.cell not in (one.cell_id, short_id(one.cell_id), network_of(one.cell_id)):
            return False
        if self.change != _change(one):
            return False
        if isinstance(one, CellComparison):
            # What was accepted was measured with an error, and so is this: it must be shown to go further.
            least = one.ci_low if one.ci_low is not None else one.ratio
            return not isinstance(self.to, str | None) and least is not None and least <= self.to
        head = GONE if one.head is None else one.head
        if isinstance(head, str) or isinstance(self.to, str | None):
            return head == self.to
        return head == self.to if one.column in EQUAL else head <= self.to


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accepted: tuple[Accepted, ...]


def accepted_file(suite: Path) -> Path:
    """Where the accepted changes of a suite stand."""
    return suite.with_name(f"{suite.stem}.accepted.yaml")


def read_accepted(text: str, file: str) -> tuple[Accepted, ...]:
    """The entries of a file of this name. Raises `UsageError` with the line of the first mistake."""
    from archbench.suite.shape import shaped

    if not text.strip():
        return ()
    document = parse_document(text, file)
    entries = msgspec.convert(shaped(document.value, inspect.type_info(_File), (), document), _File).accepted
    for number, entry in enumerate(entries):
        try:
            date.fromisoformat(entry.until)
        except ValueError:
            wrong = f"{entry.until!r} is no day; write it as 2026-03-01"
            raise document.error(("accepted", number, "until"), wrong) from None
    return entries


def apply_accepted(comparison: Comparison, file: Path, before: str, accept: str | None, today: date) -> Comparison:
    """The comparison with what the entries of `file` cover marked as accepted.

    `before`: the text of that file in the base, whose entries are spent. `accept`: a reason for which all that still
    fails is accepted from now on, which is written there. Raises `UsageError` for a file that cannot be read as such.
    """
    text = read_text(file) if file.exists() else ""
    try:
        spent = read_accepted(before, str(file))
    except UsageError:
        spent = ()  # what the base has there and nobody can read covers nothing
    found = _with_entries(comparison, read_accepted(text, str(file)), spent, file, today)
    if accept is None or not found.regressed:
        return found
    text = f"{text.rstrip() or _HEADER.rstrip()}\n{as_yaml(entries_for(found, accept, today))}"
    write_bytes(file, text.encode())
    return _with_entries(comparison, read_accepted(text, str(file)), spent, file, today)


def _with_entries(
    comparison: Comparison, entries: Sequence[Accepted], spent: Collection[Accepted], file: Path, today: date
) -> Comparison:
    late = [entry for entry in entries if date.fromisoformat(entry.until) < today]
    counting = [entry for entry in entries if entry not in spent and entry not in late]
    used: set[Accepted] = set()

    def covered(one: CellComparison | CountedDifference) -> str | None:
        entry = next((entry for entry in counting if one.fails and entry.covers(one)), None)
        used.update([entry] if entry else [])
        return entry.reason if entry else None

    cells = [structs.replace(cell, accepted=covered(cell)) for cell in comparison.cells]
    counted = [
        structs.replace(one, accepted=(reason := covered(one)), fails=one.fails and reason is None)
        for one in comparison.findings
    ]
    states = ((late, "is out of date"), (spent, "is in the base already"), (counting, "covers nothing that differs"))
    idle = [
        f"{file}: the entry of {entry.cell} ({entry.change}) {state}: delete it."
        for entry in entries
        if entry not in used
        for state in [next(words for group, words in states if entry in group)]
    ]
    return structs.replace(comparison, cells=tuple(cells), findings=tuple(counted), notes=(*comparison.notes, *idle))


def entries_for(comparison: Comparison, reason: str, today: date) -> tuple[Accepted, ...]:
    """Entries that cover all that fails in a comparison: one a network and column where one can, else one a cell."""
    until, reason = (today + timedelta(days=DAYS)).isoformat(), printable(reason)
    alike: dict[tuple[str, str], list[CellComparison | CountedDifference]] = {}
    for one in comparison.everything:
        if one.fails:
            alike.setdefault((network_of(one.cell_id), _change(one)), []).append(one)
    found = []
    for (network, what), failing in alike.items():
        reached = {short_id(one.cell_id): _reached(one) for one in failing}
        figures = [value for value in reached.values() if isinstance(value, int | float)]
        if len(set(reached.values())) > 1 and what not in EQUAL and len(figures) == len(reached):
            reached = {network: max(figures)}
        elif len(set(reached.values())) == 1:
            reached = {network: next(iter(reached.values()))}
        found += [Accepted(cell=cell, change=what, to=to, reason=reason, until=until) for cell, to in reached.items()]
    return tuple(found)


def as_yaml(entries: Sequence[Accepted]) -> str:
    """The entries as they stand in a file."""
    return "".join(
        # JSON's text in quotation marks is YAML's, too.
        f"  {'  ' if number else '- '}{name}: {json.dumps(value, ensure_ascii=False)}\n"
        for entry in entries
        for number, (name, value) in enumerate(structs.asdict(entry).items())
    )


def _change(one: CellComparison | CountedDifference) -> str:
    return TIME if isinstance(one, CellComparison) else one.column


def _reached(one: CellComparison | CountedDifference) -> Scalar:
    if isinstance(one, CellComparison):
        return round(one.ratio or 1.0, 3)
    if one.head is None:
        return GONE
    return int(one.head) if isinstance(one.head, float) and one.head.is_integer() else one.head
