"""A run on disk: what goes in comes out, the same run is found again, and what is no run says so."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_environment, make_record, make_rows, make_run, make_samples, make_suite
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_runs import reference_runs

from archbench.model.cell import Cell, Network, file_stem
from archbench.model.errors import UsageError
from archbench.model.record import Record, Sample, columns
from archbench.model.suite import Decision
from archbench.results import RunStore, load_frame, new_run_id, read_table, run_identity, runs_alike
from archbench.results.journal import RECORDS, SAMPLES, Journal
from archbench.suite import suite_from_names

SUITE, MACHINE = make_suite(), make_environment()


def test_rows_and_samples_come_back_exactly(tmp_path: Path) -> None:
    rows = list(make_rows(make_suite(rounds=1), networks=["vgg16"]))
    run = make_run(tmp_path, rows, merge=False)
    store = RunStore.open(run)
    assert store.records() == rows
    store.merge()
    assert store.records() == rows
    samples = msgspec.convert(store.samples().to_pylist(), list[Sample])
    assert sorted(samples, key=repr) == sorted(
        (one for row in rows if row.status == "ok" for one in make_samples(row)), key=repr
    )
    assert sorted(path.name for path in run.iterdir() if path.is_file()) == [
        "environment.json",
        "protocol.json",
        "results.parquet",
        "samples.parquet",
        "suite.json",
        "suite.yaml",
    ]


text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=15, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400),
    number=st.none() | st.integers(-(2**63), 2**63 - 1),
    real=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    flag=st.none() | st.booleans(),
    message=text,
    reasons=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3).map(tuple),
)
def test_any_row_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    number: int | None,
    real: float | None,
    flag: bool | None,
    message: str | None,
    reasons: tuple[str, ...],
) -> None:
    row = make_record(
        cell_id=name, macs=number, latency_median_s=real, host_bound=flag, error_message=message, reasons=reasons
    )
    folder = tmp_path_factory.mktemp("any")
    journal = Journal(folder, folder / "merged", RECORDS, ("round",))
    journal.add("row.parquet", [row])
    assert msgspec.convert(journal.read().to_pylist(), list[Record]) == [row]
    journal.fold()
    assert msgspec.convert(journal.read().to_pylist(), list[Record]) == [row]


def test_nan_is_stored_as_null(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record(latency_median_s=math.nan, canary_s=math.inf)])
    assert read_table(run)["latency_median_s"].null_count == 1
    assert read_table(run)["canary_s"].null_count == 1


def test_every_column_keeps_its_type_though_all_null(tmp_path: Path) -> None:
    make = {"text": pa.string(), "real": pa.float64(), "whole": pa.int64(), "flag": pa.bool_()}
    expected = {
        name: pa.list_(pa.string()) if column.kind == "texts" else make[column.kind]
        for name, column in columns().items()
    }
    run = make_run(tmp_path, [make_record(status="error")])
    stored = pq.read_schema(run / "results.parquet")
    assert {field.name: field.type for field in stored} == expected
    assert stored.metadata[b"archbench.schema_version"] == b"1"
    assert stored.field("latency_median_s").metadata[b"unit"] == b"s"


def test_a_cell_is_stored_under_its_own_stem(tmp_path: Path) -> None:
    cell = Cell(network=Network(name="resnet50"), batch_size=1)
    run = make_run(tmp_path, [make_record(cell_id=cell.cell_id, round=2, visit=1)], merge=False)
    assert [path.name for path in (run / "cells").iterdir()] == [f"{file_stem(cell.cell_id)}-r2-v1.parquet"]
    assert [path.name for path in (run / "samples").iterdir()] == [f"{file_stem(cell.cell_id)}-r2-v1.parquet"]


def test_fresh_cells_are_plain_parquet_for_other_readers(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record(round=number) for number in range(3)], merge=False)
    assert pq.read_table(run / "cells").num_rows == 3


def test_finished_holds_every_row_and_may_leave_out_failures(tmp_path: Path) -> None:
    statuses = ["ok", "unsupported", "skipped", "oom", "error", "timeout", "crashed"]
    rows = [make_record(round=number, status=status) for number, status in enumerate(statuses)]
    rows.append(make_record(round=7, verdict="invalid"))
    store = RunStore.open(make_run(tmp_path, rows))
    cell = rows[0].cell_id
    assert store.finished() == {(cell, number, 0) for number in range(8)}
    assert store.finished(retry_failed=True) == {(cell, number, 0) for number in range(3)}


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ({"verdict": "suspect"}, {"verdict": "ok"}, "after"),
        ({"verdict": "suspect"}, {"verdict": "suspect"}, "after"),  # at a tie the newer
        ({"verdict": "suspect"}, {"verdict": "invalid"}, "before"),
        ({"verdict": "suspect"}, {"status": "crashed", "verdict": None}, "before"),
        ({"verdict": "invalid"}, {"verdict": "suspect"}, "after"),
        ({"status": "oom", "verdict": None}, {"verdict": "invalid"}, "after"),
    ],
)
def test_of_a_cell_measured_again_the_better_row_counts_and_no_figure_is_lost(
    tmp_path: Path, before: dict[str, str], after: dict[str, str], counts: str
) -> None:
    first = make_record(**before, started_at="2025-01-02T03:04:05.000+00:00")
    second = make_record(**after, started_at="2025-01-03T03:04:05.000+00:00", latency_median_s=0.021)
    other = make_record(round=1, verdict="suspect")
    store = RunStore.open(make_run(tmp_path, [first, other]))
    assert store.finished(retry_suspect=True) == {
        (row.cell_id, row.round, row.visit) for row in (first, other) if row.verdict != "suspect"
    }
    store.measure_again({(first.cell_id, 0, 0)})
    store.append(second, make_samples(second))
    kept, aside = (second, first) if counts == "after" else (first, second)
    assert [row for row in store.records() if row.round == 0] == [kept]
    assert store.samples().num_rows == len(make_samples(kept)) * (kept.status == "ok") + len(make_samples(other))
    store.merge()
    assert RunStore.open(store.path).records() == [kept, other]
    replaced = list((store.path / "replaced" / "cells").glob("*.parquet"))
    if aside.status == "ok":
        assert msgspec.convert(read_table(replaced[0]).to_pylist(), list[Record]) == [aside]
        timings = pq.read_table(store.path / "replaced" / "samples")
        assert timings.num_rows == len(make_samples(aside))
    else:
        assert not replaced  # nothing was measured


def test_a_row_measured_again_replaces_the_merged_one(tmp_path: Path) -> None:
    store = RunStore.open(make_run(tmp_path, [make_record(status="oom"), make_record(round=1)]))
    again = make_record()
    store.append(again, make_samples(again))
    assert store.records() == [again, make_record(round=1)]
    store.merge()
    assert store.records() == [again, make_record(round=1)]
    assert store.samples().num_rows == 24


def test_samples_without_a_row_are_not_given_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()], merge=False)
    Journal(run / "samples", run / "samples.parquet", SAMPLES, ("round",)).add(
        "dead.parquet", make_samples(make_record(round=5))
    )
    store = RunStore.open(run)
    assert set(store.samples()["round"].to_pylist()) == {0}
    store.merge()
    assert set(store.samples()["round"].to_pylist()) == {0}


def test_reading_changes_nothing_on_disk(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record(round=number) for number in range(3)], merge=False)

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in [run, *run.rglob("*")]}

    before = state()
    store = RunStore.open(run)
    assert (store.table().num_rows, store.samples().num_rows, len(store.finished())) == (3, 36, 3)
    assert (store.suite, store.environment) == (SUITE, MACHINE)
    assert state() == before


def test_the_same_suite_and_environment_find_their_runs_the_last_begun_first(tmp_path: Path) -> None:
    """By the clock of their first cells: directories are named as anybody likes."""
    assert runs_alike(tmp_path, SUITE, MACHINE) == []
    begun = {"a": "2025-02-01", "b": "2025-03-01", "c": "2025-01-01", "without-a-cell": None}
    for name, day in begun.items():
        store = RunStore.create(tmp_path / SUITE.suite / name, SUITE, MACHINE, "")
        if day is not None:
            store.append(make_record(started_at=f"{day}T03:04:05.000+00:00"))
    # One without a cell counts from when it was made: now.
    assert [path.name for path in runs_alike(tmp_path, SUITE, MACHINE)] == ["without-a-cell", "b", "a", "c"]
    (tmp_path / SUITE.suite / "b" / "environment.json").write_text("{}")  # of another version: no error
    assert [path.name for path in runs_alike(tmp_path, SUITE, MACHINE)] == ["without-a-cell", "a", "c"]


def test_where_a_run_could_be_made_nothing_is_left(tmp_path: Path) -> None:
    RunStore.check(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        RunStore.check(tmp_path)
    with pytest.raises(UsageError, match="cannot store results"):
        RunStore.check(tmp_path / "thesis.txt" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_identity_changes_with_what_is_measured_and_where_but_not_with_prose() -> None:
    same = run_identity(SUITE, MACHINE)
    assert run_identity(make_suite(description="other words"), MACHINE) == same
    assert run_identity(make_suite(decisions=(Decision(situation="first look"),)), MACHINE) == same
    assert run_identity(make_suite(settings=dict(reversed(SUITE.settings.items()))), MACHINE) == same
    others = [
        run_identity(make_suite(rounds=2), MACHINE),
        run_identity(make_suite(protocol={"min_samples": 40}), MACHINE),
        run_identity(SUITE, make_environment(torch_version="2.11.0")),
        run_identity(SUITE, make_environment("cuda:0")),
    ]
    assert len({same, *others}) == 5
    assert new_run_id(SUITE, MACHINE).endswith(f"Z-{same[:8]}")


def test_adopt_renews_the_stored_suite(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    store = RunStore.open(run)
    assert store.suite == SUITE
    newer = make_suite(description="other words")
    store.adopt(newer, "suite: example\ndescription: other words\n")
    assert store.suite == RunStore.open(run).suite == newer
    assert (run / "suite.yaml").read_text().endswith("other words\n")


def test_a_run_whose_empty_folders_are_gone_is_continued(tmp_path: Path) -> None:
    """As after git, which keeps none."""
    first, second = make_record(), make_record(round=1)
    path = make_run(tmp_path, [first])
    for folder in ("cells", "samples"):
        (path / folder).rmdir()
    store = RunStore.open(path)
    store.adopt(make_suite(), "suite: example\n")
    store.append(second, make_samples(second))
    assert RunStore.open(path).records() == [first, second]


def test_create_refuses_what_is_in_use(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    with pytest.raises(UsageError, match="already holds a run, of suite 'example'; give another directory"):
        RunStore.create(run, make_suite(suite="other"), MACHINE, "")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"is not empty \(it holds 'thesis.tex'\)"):
        RunStore.create(tmp_path / "home", SUITE, MACHINE, "")
    with pytest.raises(UsageError, match=r"cannot store results in .*Not a directory"):
        RunStore.create(tmp_path / "home" / "thesis.tex" / "run", SUITE, MACHINE, "")


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    (tmp_path / "notes.txt").write_text("hello")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    empty = make_run(tmp_path / "empty", [], merge=False)
    cases = {
        tmp_path / "nowhere": "no such file or directory",
        tmp_path: "is not a run; it has no environment.json",
        run.parent: f"is not a run; name one of its 1 runs, such as {run}, the newest",
        tmp_path / "notes.txt": "is not a parquet file, or a damaged one",
        tmp_path / "other.parquet": "is parquet, but not a file of archbench's results",
        run / "samples.parquet": "has no column",
        empty: "holds no finished cell yet",
    }
    for path, message in cases.items():
        with pytest.raises(UsageError) as caught:
            read_table(path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    (run / "suite.json").write_text('{"suite": 3}')
    with pytest.raises(UsageError, match=r"suite\.json: cannot be read by this version"):
        _ = RunStore.open(run).suite


def test_of_a_folder_of_runs_the_newest_is_named_whatever_they_are_called(tmp_path: Path) -> None:
    for name, day in (("zzz", 1), ("aaa", 2), ("mmm", 1)):
        made = make_run(tmp_path / "made" / name, [make_record(started_at=f"2026-02-0{day}T00:00:00.000+00:00")])
        made.rename(tmp_path / name)
    with pytest.raises(UsageError, match=r"name one of its 3 runs, such as .*aaa, the newest"):
        RunStore.open(tmp_path)


def restamp(path: Path, version: bytes | None, drop: tuple[str, ...] = ()) -> None:
    table = pq.read_table(path).drop_columns(list(drop))
    metadata = {} if version is None else {b"archbench.schema_version": version}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_versions_are_read_or_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, [make_record()])
    merged = run / "results.parquet"
    for bad in (b"2", b"0", b"-1", b"new"):
        restamp(merged, bad)
        with pytest.raises(UsageError, match=f"has schema version {bad.decode()}, and this archbench reads 1 to 1"):
            read_table(run)
    # A later archbench reads a file that lacks a column added since, whether or not the version rose with it.
    restamp(merged, b"1", drop=("mfu",))
    for version in (1, 2):
        monkeypatch.setattr("archbench.results.journal.SCHEMA_VERSION", version)
        table = read_table(run)
        assert table.schema.equals(RECORDS)
        assert table["mfu"].null_count == 1
        (record,) = RunStore.open(run).records()
        assert (record.mfu, record.latency_median_s) == (None, 0.0232)


def test_every_column_that_may_be_null_may_be_younger_than_the_file(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    merged = run / "results.parquet"
    hints = get_type_hints(Record)
    optional = {name for name in columns() if type(None) in get_args(hints[name])}
    restamp(merged, b"1", drop=tuple(optional))
    table = read_table(run)
    assert {name for name in table.column_names if table[name].null_count} == optional
    assert load_frame(run)["verdict"].isna().all()
    for required in sorted(set(columns()) - optional):
        run = make_run(tmp_path / required, [make_record()])
        restamp(run / "results.parquet", b"1", drop=(required,))
        with pytest.raises(UsageError, match=f"has no column '{required}', so it is not a file of archbench's rows"):
            read_table(run)


def test_a_column_of_a_newer_archbench_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()], merge=False)
    for path in (next((run / "cells").iterdir()), run / "results.parquet"):
        source = path if path.exists() else next((run / "cells").iterdir())
        table = pq.read_table(source)
        pq.write_table(table.append_column("tokens_s", pa.array([3.0])), path)
    assert RunStore.open(run).records() == [make_record()]
    assert "tokens_s" not in read_table(run / "results.parquet").column_names


def test_the_committed_run_is_readable() -> None:
    run = reference_runs("imagenet_backbones")[0]
    assert len(load_frame(run)) == len(RunStore.open(run).records()) >= 84


def test_storing_and_resuming_need_no_pandas(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record(round=number) for number in range(3)], merge=False)
    script = (
        "import sys, pathlib\n"
        "from archbench.results import RunStore\n"
        f"store = RunStore.open(pathlib.Path({str(run)!r}))\n"
        "row = store.records()[0]\n"
        "store.append(row)\n"
        "assert len(store.finished()) == 3\n"
        "store.merge()\n"
        "assert len(store.finished()) == 3\n"
        "print([name for name in ('pandas', 'torch', 'scipy') if name in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_record_default_version_is_the_stored_one(tmp_path: Path) -> None:
    row: Record = make_record()
    assert read_table(make_run(tmp_path, [row]))["schema_version"].to_pylist() == [row.schema_version]


def test_other_constants_are_another_run_even_where_only_a_default_changed(tmp_path: Path) -> None:
    run = tmp_path / SUITE.suite / "20250101T000000Z-00000000"
    store = RunStore.create(run, SUITE, MACHINE, "")
    assert store.identity == run_identity(SUITE, MACHINE)
    constants = msgspec.json.decode((run / "protocol.json").read_bytes())
    (run / "protocol.json").write_bytes(msgspec.json.encode({**constants, "max_sampling_s": 4.5}))
    assert runs_alike(tmp_path, SUITE, MACHINE) == []
    (run / "protocol.json").unlink()  # of a version that did not keep them
    assert runs_alike(tmp_path, SUITE, MACHINE) == []


def test_a_suite_with_whole_numbers_in_its_protocol_finds_its_run_again(tmp_path: Path) -> None:
    """As every run of networks by name has them."""
    suite = suite_from_names(["resnet18"], {"batch_size": "1,4"})
    assert any(isinstance(value, int) for value in suite.protocol.values())
    run = tmp_path / suite.suite / "20250101T000000Z-00000000"
    RunStore.create(run, suite, MACHINE, "")
    assert RunStore.open(run).identity == run_identity(suite, MACHINE)
    assert runs_alike(tmp_path, suite, MACHINE) == [run]
