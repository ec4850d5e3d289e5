"""Changes that were meant: a file beside the suite names them, and a gate tells them without failing.

`suites/speed.accepted.yaml` beside `suites/speed.yaml`, committed with the change that it accepts:

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

import msgspec
from msgspec import Struct, inspect, structs

from archbench.comparison.counted import EQUAL
from archbench.model.axes import Scalar
from archbench.model.cell import short_id
from archbench.model.comparison import CellComparison, Comparison, CountedDifference
from archbench.model.errors import UsageError
from archbench.model.units import printable
from archbench.results.files import write_bytes
from archbench.suite.document import Document, parse_document, read_text

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


class Accepted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change that was meant; the meaning of its fields is above."""

    cell: str
    change: str
    to: Scalar
    reason: str
    until: str

    def covers(self, one: CellComparison | CountedDifference) -> bool:
        """Whether it is about this, and this goes no further than was accepted."""
        if self.cell not in (one.cell_id, short_id(one.cell_id), one.cell_id.rpartition("@")[0]):
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
        _check_day(entry.until, document, number)
    return entries


def _check_day(day: str, document: Document, number: int) -> None:
    try:
        date.fromisoformat(day)
    except ValueError:
        raise document.error(("accepted", number, "until"), f"{day!r} is no day; write it as 2026-03-01") from None


def apply_accepted(comparison: Comparison, file: Path, before: str, accept: str | None, today: date) -> Comparison:
    """The comparison with what the entries of `file` cover marked as accepted.

    `before`: the text of that file in the base, whose entries are spent. `accept`: a reason for which all that still
    fails is accepted from now on, which is written there. Raises `UsageError` for a file that cannot be read as such.
    """
    entries, text = _read(file)
    try:
        spent = read_accepted(before, str(file))
    except UsageError:
        spent = ()  # what the base has there and nobody can read covers nothing
    found = _with_entries(comparison, entries, spent, file, today)
    if accept is None or not found.regressed:
        return found
    added = entries_for(found, accept, today)
    write_bytes(file, f"{text.rstrip() or _HEADER.rstrip()}\n{as_yaml(added)}".encode())
    return _with_entries(comparison, _read(file)[0], spent, file, today)


def _read(file: Path) -> tuple[tuple[Accepted, ...], str]:
    if not file.exists():
        return (), ""
    text = read_text(file)
    return read_accepted(text, str(file)), text


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
    reasons = [covered(finding) for finding in comparison.findings]
    findings = [
        structs.replace(finding, accepted=reason, fails=finding.fails and reason is None)
        for finding, reason in zip(comparison.findings, reasons, strict=True)
    ]
    states = ((late, "is out of date"), (spent, "is in the base already"), (counting, "covers nothing that differs"))
    idle = [
        f"{file}: the entry of {entry.cell} ({entry.change}) {state}: delete it."
        for entry in entries
        if entry not in used
        for state in [next(words for group, words in states if entry in group)]
    ]
    return structs.replace(comparison, cells=tuple(cells), findings=tuple(findings), notes=(*comparison.notes, *idle))


def entries_for(comparison: Comparison, reason: str, today: date) -> tuple[Accepted, ...]:
    """Entries that cover all that fails in a comparison: one a network and column where one can, else one a cell."""
    until, reason = (today + timedelta(days=DAYS)).isoformat(), printable(reason)
    alike: dict[tuple[str, str], list[CellComparison | CountedDifference]] = {}
    for one in comparison.everything:
        if one.fails:
            alike.setdefault((_network(one), _change(one)), []).append(one)
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
    return "".join(f"  {line}\n" for entry in entries for line in _lines(entry))


def _lines(entry: Accepted) -> Iterator[str]:
    for number, (name, value) in enumerate(structs.asdict(entry).items()):
        # JSON's text in quotation marks is YAML's, too.
        yield f"{'  ' if number else '- '}{name}: {json.dumps(value, ensure_ascii=False)}"


def _network(one: CellComparison | CountedDifference) -> str:
    return one.cell_id.rpartition("@")[0] or one.cell_id


def _change(one: CellComparison | CountedDifference) -> str:
    return TIME if isinstance(one, CellComparison) else one.column


def _reached(one: CellComparison | CountedDifference) -> Scalar:
    if isinstance(one, CellComparison):
        return round(one.ratio or 1.0, 3)
    if one.head is None:
        return GONE
    return int(one.head) if isinstance(one.head, float) and one.head.is_integer() else one.head
