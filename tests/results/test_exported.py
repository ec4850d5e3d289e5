"""A run handed on as one file: the same answers from it, and no byte changed unnoticed; and runs behind URLs."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import fsspec
import msgspec
import pytest
from builders import make_environment, make_record, make_rows, make_run, make_samples, make_suite
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_runs import shard_run

import archbench
from archbench.cli import main
from archbench.model.errors import UnfitError, UsageError
from archbench.results import Remote, RunStore, export, located, url_of
from archbench.results.places import unpack

SUITE = make_suite(rounds=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(make_rows(SUITE, networks=["resnet18", "resnet50"]))
    return make_run(tmp_path_factory.mktemp("run"), rows, suite=SUITE)


def test_an_exported_run_gives_the_answers_of_the_run(run: Path, tmp_path: Path) -> None:
    made = archbench.export(run, out=tmp_path / "mine.archbench")
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    elsewhere = shutil.copy(made.path, tmp_path / "elsewhere.archbench")
    assert archbench.load(elsewhere).equals(archbench.load(run))
    assert archbench.Run(elsewhere).rows == archbench.Run(run).rows
    assert archbench.Run(elsewhere).environment == archbench.Run(run).environment
    assert RunStore.open(located(elsewhere)).samples() == RunStore.open(run).samples()
    assert archbench.report(elsewhere) == archbench.report(run)
    asked = {"where": "phase == inference", "minimize": "latency_median"}
    assert archbench.pick(elsewhere, **asked).rankings == archbench.pick(run, **asked).rankings
    assert archbench.compare(run, elsewhere).exit_code() == 0


def test_exporting_twice_gives_the_same_bytes_whether_or_not_the_journal_is_folded(tmp_path: Path) -> None:
    rows = [make_record(round=number) for number in range(3)]
    fresh, folded = (make_run(tmp_path / name, rows, merge=name == "folded") for name in ("fresh", "folded"))
    assert export(fresh, tmp_path / "a.archbench").sha256 == export(folded, tmp_path / "b.archbench").sha256
    assert (fresh / "cells").exists()
    assert not (fresh / "results.parquet").exists()  # who reads does not write


def test_what_earlier_runs_showed_travels_along(tmp_path: Path) -> None:
    """A run of one process a cell knows of the noise by the run before it alone."""
    before = list(make_rows(SUITE, networks=["resnet18"], noise=0.03))
    first = make_run(tmp_path, before, suite=SUITE)
    archbench.report(first, out=first / "report.md")
    assert (first / "spread.json").exists()
    later = [
        msgspec.structs.replace(row, started_at="2025-02-02T03:04:05.000+00:00", run_id="later")
        for row in make_rows(SUITE, networks=["resnet50"])
        if row.round == 0
    ]
    second = RunStore.create(first.parent / "later", SUITE, make_environment(), "suite: example\n")
    for row in later[:4]:
        second.append(row)
    made = export(second.path, tmp_path / "later.archbench")
    shutil.copy(made.path, tmp_path / "copy.archbench")
    assert "1 earlier run on this hardware" in archbench.Run(second.path).trust
    assert archbench.Run(tmp_path / "copy.archbench").trust == archbench.Run(second.path).trust


def test_passed_networks_stay_at_home(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "networks").mkdir()
    (copy / "networks" / "Tiny#00000000.pickle").write_bytes(b"code")
    with zipfile.ZipFile(export(copy, tmp_path / "a.archbench").path) as file:
        assert not any("pickle" in name for name in file.namelist())


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return export(run, tmp_path_factory.mktemp("exported") / "a.archbench").path.read_bytes()


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_changed_bit_passes_unnoticed(
    run: Path, exported: bytes, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """What a changed bit leaves as it was (a date in the zip's directory) may pass; a changed figure may not."""
    folder = tmp_path_factory.mktemp("bit")
    content = bytearray(exported)
    content[int(place * len(content))] ^= 1 << bit
    (folder / "b.archbench").write_bytes(content)
    found = None
    with suppress(UsageError):
        found = unpack(folder / "b.archbench", folder / "out")
    assert found is None or RunStore.open(found).records() == RunStore.open(run).records()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda parts: parts | {"extra.txt": b"x"}, "does not hold the files that its manifest names"),
        (lambda parts: {name: part for name, part in parts.items() if "samples" not in name}, "its manifest names"),
        (
            lambda parts: {n: part + b" " if "environment" in n else part for n, part in parts.items()},
            "environment.json",
        ),
        (lambda parts: {n: p.replace(b'"format": 1', b'"format": 2') for n, p in parts.items()}, "has format 2"),
        (lambda parts: {"manifest.json": b'{"format": 7, "sums": []}'}, "has format 7, .* or a newer one"),
        (lambda parts: {"manifest.json": b"{}"}, "is damaged"),
        (lambda parts: {"readme": b"hello"}, "is damaged"),
    ],
)
def test_a_file_that_was_changed_is_refused_by_name(run: Path, tmp_path: Path, change, said: str) -> None:
    with zipfile.ZipFile(export(run, tmp_path / "a.archbench").path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "b.archbench", "w") as file:
        for name, part in change(parts).items():
            file.writestr(name, part)
    with pytest.raises(UsageError, match=said):
        located(tmp_path / "b.archbench")


def test_a_file_cannot_write_outside_of_its_folder(tmp_path: Path) -> None:
    content = b"x"
    manifest = {
        "format": 1,
        "archbench_version": "0.1.0",
        "run_id": "r",
        "rows": 1,
        "files": {"../evil": hashlib.sha256(content).hexdigest()},
    }
    with zipfile.ZipFile(tmp_path / "b.archbench", "w") as file:
        file.writestr("manifest.json", msgspec.json.encode(manifest))
        file.writestr("../evil", content)
    with pytest.raises(UsageError, match="lies outside"):
        unpack(tmp_path / "b.archbench", tmp_path / "inside")
    assert not (tmp_path / "evil").exists()


def test_the_commands_read_an_exported_file_and_leave_nothing_beside_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["export", str(run)], ["report", f"example-{run.name}.archbench"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    out = capsys.readouterr().out.splitlines()
    name = f"example-{run.name}.archbench"
    assert out[0] == f"{hashlib.sha256(Path(name).read_bytes()).hexdigest()}  {name}"
    assert out[1] == "archbench-report.md"
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--out", "run.zip"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("given_as", "url"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        (Path("s3://bucket/a"), "s3://bucket/a"),
        (Path("memory://a"), "memory://a"),
        ("file:///tmp/x", "file:///tmp/x"),
        ("results/a", None),
        ("C:/x", None),
        ("/tmp/x", None),
    ],
)
def test_what_is_a_url(given_as, url: str | None) -> None:
    assert url_of(given_as) == url


@pytest.fixture(params=["memory", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://bucket/runs"
    return f"local://{tmp_path}/there"


def test_a_run_behind_a_url_is_read_as_one_that_lies_here(run: Path, place: str) -> None:
    files, root = fsspec.core.url_to_fs(f"{place}/{run.name}")
    files.put(str(run), root, recursive=True)
    assert archbench.load(f"{place}/{run.name}").equals(archbench.load(run))
    assert archbench.Run(Path(f"{place}/{run.name}")).rows == archbench.Run(run).rows
    with pytest.raises(UsageError, match="nothing is there"):
        archbench.load(f"{place}/none")


def test_shards_behind_urls_are_merged_and_exported_there(place: str, tmp_path: Path) -> None:
    urls = []
    for number in (1, 2):
        shard = shard_run(tmp_path / f"s{number}", number, 2)
        remote = Remote(f"{place}/s{number}", tmp_path)
        remote.push()
        shutil.rmtree(shard)
        urls.append(f"{place}/s{number}")
    (merged,) = archbench.merge(urls, out=f"{place}/merged")
    assert len(archbench.Run(f"{place}/merged").rows) == len(merged.rows)
    archbench.export(f"{place}/merged", out=f"{place}/shared.archbench")
    assert archbench.Run(f"{place}/shared.archbench").rows == merged.rows


def test_what_is_written_for_a_url_goes_on_where_another_machine_left_it(place: str, tmp_path: Path) -> None:
    here, there = (Remote(f"{place}/run", tmp_path / name) for name in ("one", "other"))
    store = RunStore.create(here.local, SUITE, make_environment(), "suite: example\n")
    rows = [make_record(round=number) for number in range(4)]
    for row in rows[:2]:
        store.append(row, make_samples(row))
        here.push()
    assert there.pull()
    other = RunStore.open(there.local)
    other.append(rows[2])
    other.merge()
    there.push()
    assert not list(there._files.glob(f"{there._place}/cells/*.parquet"))  # folded, there as well
    assert here.pull()
    assert len(RunStore.open(here.local).records()) == 3
    assert RunStore.open(here.local).samples().num_rows == 24


def test_a_url_that_cannot_be_written_loses_nothing_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").store.clear()
    remote = Remote("memory://bucket/run", tmp_path)
    store = RunStore.create(remote.local, SUITE, make_environment(), "suite: example\n")
    remote.push()
    store.append(make_record())

    def down(*words: object) -> None:
        raise ConnectionError("the network is down")

    with monkeypatch.context() as broken:
        broken.setattr(remote._files, "put_file", down)
        with pytest.raises(UnfitError, match=r"the network is down; all is kept in"):
            remote.push()
    again = Remote("memory://bucket/run", tmp_path)
    assert again.pull()
    assert len(RunStore.open(again.local).records()) == 1  # not replaced by the older copy
    again.push()
    assert len(archbench.Run("memory://bucket/run").rows) == 1


@pytest.mark.parametrize(("url", "said"), [("nonsense://a/b", "nonsense"), ("s3://bucket/run", "s3fs")])
def test_a_url_that_no_package_knows_is_refused(url: str, said: str) -> None:
    if find_spec(said):
        pytest.skip("that package is installed here")
    with pytest.raises(UsageError, match=said):
        archbench.load(url)
