"""One changed byte, or a value that cannot be, in what is stored: named, left out, and the rest is used."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from builders import make_record, make_rows, make_run, make_suite

import archbench
from archbench.choose.summary import Spread, earlier_spreads, shown
from archbench.comparison.history import history, read_runs
from archbench.model.errors import ArchbenchError
from archbench.rendering.report import write_reports
from archbench.results import RunStore, Session
from archbench.results.files import is_whole, sealed_json
from archbench.results.journal import RECORDS, to_table
from archbench.results.rows import sound

READERS: dict[str, Callable[[Path], object]] = {
    "load": archbench.load,
    "rows": lambda run: archbench.Run(run).rows,
    "pick": archbench.pick,
    "summary": archbench.summary,
    "report": archbench.report,
    "compare": lambda run: archbench.compare(run, run),
    "history": lambda run: history(str(run.parent), *read_runs(run.parent)),
}
"""All that reads a stored run."""


def two_networks(root: Path, *, merge: bool = True) -> Path:
    suite = make_suite(rounds=1)
    return make_run(root, list(make_rows(suite, networks=["resnet18", "resnet50"])), merge=merge)


def flip(file: Path, rng: random.Random) -> bytes:
    """Change one bit of a file; return what was there before."""
    before = file.read_bytes()
    after = bytearray(before)
    after[rng.randrange(len(after))] ^= 1 << rng.randrange(8)
    file.write_bytes(after)
    return before


def refusal(read: Callable[[Path], object], run: Path) -> ArchbenchError | None:
    """What a reader says in one line where it refuses; any other exception is let through."""
    try:
        assert read(run) is not None
    except ArchbenchError as error:
        return error
    return None


def stored_files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.suffix in (".parquet", ".json"))


@pytest.mark.parametrize("merge", [True, False])
def test_every_flipped_bit_of_every_file_is_noticed(tmp_path: Path, merge: bool) -> None:
    """All bits of a small file, and many of each large one."""
    rng = random.Random(5)
    files = stored_files(two_networks(tmp_path, merge=merge))
    assert {file.suffix for file in files} == {".parquet", ".json"}
    for file in files:
        before = file.read_bytes()
        assert is_whole(before)
        for _ in range(40):
            flip(file, rng)
            changed = file.read_bytes()
            # A flip in the word that announces the checksum hides it, and changes nothing else.
            assert not is_whole(changed) or b"archbench.crc32" not in changed
            file.write_bytes(before)


def test_a_damaged_row_is_named_and_the_others_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = two_networks(tmp_path, merge=False)
    whole = archbench.load(run)
    victim = sorted((run / "cells").glob("*.parquet"))[3]
    at = victim.read_bytes().index(b"PAR1", 4) - 400  # in the middle of the file
    content = bytearray(victim.read_bytes())
    content[at] ^= 16
    victim.write_bytes(content)
    assert len(archbench.load(run)) == len(whole) - 1
    assert f"{victim} is damaged" in caplog.text
    RunStore.open(run).merge()
    assert len(archbench.load(run)) == len(whole) - 1
    assert victim.with_name(f"{victim.name}.damaged").read_bytes() == content


def test_damaged_files_are_never_written_over(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    results = run / "results.parquet"
    for number, junk in enumerate((b"one", b"two", b"three")):
        results.write_bytes(junk)
        store = RunStore.open(run)
        store.append(make_record(round=number))
        store.merge()
    kept = sorted(path.read_bytes() for path in run.glob("results.parquet.damaged*"))
    assert kept == [b"one", b"three", b"two"]


def test_files_without_a_checksum_are_read_as_they_are(tmp_path: Path) -> None:
    """Older versions wrote none, and another program that writes a file anew drops it."""
    run = make_run(tmp_path, [make_record()])
    results = run / "results.parquet"
    pq.write_table(pq.read_table(results), results)
    assert b"archbench.crc32" not in results.read_bytes()
    suite = run / "suite.json"
    suite.write_bytes(msgspec.json.encode(RunStore.open(run).suite))
    for read in READERS.values():
        assert read(run) is not None


def test_the_runs_of_the_repository_tell_of_damage() -> None:
    """Whichever version measured them: of one changed byte no reader is to lose more than a group of rows."""
    stored = [*(Path(__file__).parents[2] / "results").glob("*/*/*.parquet")]
    tables = [one.read_bytes() for one in stored if one.name in ("results.parquet", "samples.parquet")]
    assert tables
    assert all(is_whole(content) and b"archbench.groups" in content for content in tables)


def test_one_changed_byte_of_a_large_file_costs_its_group_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of another network, 200 of them, so that there are several groups."""
    run = make_run(tmp_path, [make_record(round=number) for number in range(200)])
    results, rng = run / "results.parquet", random.Random(3)
    before = results.read_bytes()
    whole = set(RunStore.open(run).records())
    kept = []
    for _ in range(60):
        flip(results, rng)
        rows = RunStore.open(run).records()
        assert set(rows) <= whole
        kept.append(len(rows))
        results.write_bytes(before)
    assert set(kept) <= {200, 200 - 64, 200 - (200 - 3 * 64)}
    assert {200, 136} <= set(kept)
    assert "of its 200 rows 64 are left out, and count as not measured" in caplog.text
    assert "all its rows are whole" in caplog.text


def test_what_is_lost_is_measured_again_and_the_damaged_file_is_kept(tmp_path: Path) -> None:
    rows = [make_record(round=number) for number in range(100)]
    run = make_run(tmp_path, rows)
    results = run / "results.parquet"
    content = bytearray(results.read_bytes())
    content[40] ^= 1  # in the first group
    results.write_bytes(content)
    store = RunStore.open(run)
    assert {key[1] for key in store.finished()} == set(range(64, 100))
    for row in rows[:64]:
        store.append(row)
    store.merge()
    assert store.records() == rows
    assert (run / "results.parquet.damaged").read_bytes() == content


def test_the_suite_is_read_from_its_text_where_the_exact_one_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, [make_record()])
    (run / "suite.yaml").write_text("suite: example\narchitectures: [resnet50, resnet18]\n")
    (run / "suite.json").write_bytes((run / "suite.json").read_bytes().replace(b"resnet", b"restnt"))
    assert "resnet50" in str(archbench.report(run))
    assert "suite.json is damaged" in caplog.text
    assert "suite.yaml is read in its place" in caplog.text


def test_a_damaged_note_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How long sessions took, the device's ceilings, how far the processes of earlier runs differed."""
    run = two_networks(tmp_path)
    store = RunStore.open(run)
    store.note_session(Session(measurements=1, predicted_s=1.0, predicted_from="a fit", took_s=2.0))
    (run / "calibration.json").write_bytes(b"{")
    write_reports(run)
    rows = archbench.load(run)
    earlier = [msgspec.structs.replace(shown(rows, Spread()), begun="2020", spread=Spread(groups=9))]
    for number, changed in enumerate((b"9", b"8")):
        other = run.with_name(f"earlier{number}") / "spread.json"
        other.parent.mkdir()
        other.write_bytes(sealed_json(earlier[0]).replace(b'"groups": 9', b'"groups": ' + changed))
    assert [one.groups for one in earlier_spreads(run, rows)] == [9]
    (run / "sessions.json").write_bytes(b"[")
    assert archbench.report(run)
    assert store.sessions == []
    assert store.calibration is None
    for name in ("sessions.json", "calibration.json"):
        assert f"{run / name} is damaged" in caplog.text
    assert is_whole((run / "spread.json").read_bytes())
    assert b"archbench.crc32" in (run / "spread.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("merge", [True, False])
def test_three_hundred_flips_end_in_no_traceback(tmp_path: Path, merge: bool) -> None:
    rng = random.Random(7)
    run = two_networks(tmp_path, merge=merge)
    files, readers = stored_files(run), sorted(READERS)
    logging.disable(logging.CRITICAL)
    try:
        for turn in range(150):
            file = rng.choice(files)
            before = flip(file, rng)
            refusal(READERS[readers[turn % len(readers)]], run)
            file.write_bytes(before)
    finally:
        logging.disable(logging.NOTSET)


IMPOSSIBLE: dict[str, list[Any]] = {
    "latency_median_s": [float("inf"), float("nan"), -1.0, 0.0, 1e308],
    "throughput_img_s": [float("inf"), -3.0],
    "canary_s": [0.0, -1.0, float("-inf")],
    "peak_allocated_bytes": [-1, 2**62 * 2 - 1],
    "batch_size": [0, -4],
    "round": [-1],
    "cell_id": [None],
    "variant": [None],
    "status": ["splendid", None],
    "precision": ["fp12"],
    "phase": ["dreaming"],
    "device": ["abacus"],
    "started_at": ["yesterday", "9999-99-99", ""],
    "applied": ["{", "[" * 100_000, "7", "null"],
    "top1": [float("nan")],
}


@pytest.mark.parametrize("column", sorted(IMPOSSIBLE))
def test_a_value_that_cannot_be_is_named_and_its_row_left_out(caplog: pytest.LogCaptureFixture, column: str) -> None:
    table = to_table([make_record(cell_id=name, variant=name) for name in "ab"], RECORDS)
    for value in IMPOSSIBLE[column]:
        caplog.clear()
        assert sound(with_value(table, 0, column, value), Path("x"))["variant"].to_pylist() == ["b"]
        assert f"x: a row cannot be and is left out: {column} " in caplog.text


def with_value(table: pa.Table, row: int, column: str, value: Any) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    position = table.schema.get_field_index(column)
    return table.set_column(position, table.schema.field(position), pa.array(values, table.schema.field(position).type))


def test_no_reader_meets_a_value_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = [(column, value) for column, values in IMPOSSIBLE.items() for value in values]
    names = ["good", *(f"n{number}" for number in range(len(cases)))]
    run = make_run(tmp_path, [make_record(cell_id=name, variant=name) for name in names])
    table = pq.read_table(run / "results.parquet")
    for number, (column, value) in enumerate(cases):
        table = with_value(table, table["cell_id"].to_pylist().index(f"n{number}"), column, value)
    pq.write_table(table, run / "results.parquet")
    for name, read in READERS.items():
        assert read(run) is not None, name
    assert archbench.load(run)["variant"].tolist() == ["good"]
    assert len(archbench.load(run / "results.parquet")) == 1  # one that travels alone
    assert f"{len(cases) - 3} further rows likewise" in caplog.text


def test_control_characters_in_stored_names_are_escaped(tmp_path: Path) -> None:
    """They steer terminals, and the plotting library ends the process over them."""
    name = "net\x1b[2J\x00\x9b"
    run = make_run(tmp_path, [make_record(cell_id=name, variant=name, architecture=name, error_message="a\nb\x07")])
    assert archbench.load(run)["variant"].tolist() == ["net\\x1b[2J\\x00\\x9b"]
    assert archbench.load(run)["error_message"].tolist() == ["a\nb\\x07"]
    text = str(archbench.report(run))
    assert not any(ord(char) < 32 and char not in "\n\t" for char in text)


@pytest.mark.parametrize("name", ["results.parquet", "suite.json", "environment.json", "cells", "run"])
def test_a_link_to_itself_ends_in_one_line(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, [make_record()])
    place = run if name == "run" else run / name
    if place.is_dir():
        place.rename(tmp_path / "aside")
    else:
        place.unlink()
    place.symlink_to(place)
    for what, read in READERS.items():
        said = refusal(read, run)
        assert said is None or said.exit_code == 2, what


def test_reading_the_samples_checks_them_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path, [make_record()])
    file = run / "samples.parquet"
    table = pq.read_table(file)
    times = pc.if_else(pa.array([index == 2 for index in range(table.num_rows)]), float("inf"), table["host_s"])
    pq.write_table(table.set_column(table.schema.get_field_index("host_s"), "host_s", times), file)
    assert RunStore.open(run).samples().num_rows == table.num_rows - 1
    assert "host_s is no number that was measured" in caplog.text
