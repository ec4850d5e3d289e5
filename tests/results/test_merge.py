"""Shards of many machines become one run a class; what does not belong together is refused by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from builders import make_environment, make_record, make_run, make_suite
from shard_runs import SMALL, machine, shard_run

from archbench.cli import main
from archbench.model.errors import UnfitError, UsageError
from archbench.results import RunStore, export, load_frame, merge
from archbench.suite.plan import make_plan


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return [shard_run(folder / f"s{number}", number, 4) for number in (1, 2, 3, 4)]


def test_all_rows_and_timings_are_kept_each_with_its_machine(shards: list[Path], tmp_path: Path) -> None:
    (run,) = merge(shards, tmp_path / "all")
    store = RunStore.open(run)
    before = [row for shard in shards for row in RunStore.open(shard).records()]
    after = {(row.cell_id, row.round, row.visit): row for row in store.records()}
    assert len(after) == len(before)
    for row in before:
        assert after[row.cell_id, row.round, row.visit] == msgspec.structs.replace(row, run_id="all")
        assert row.machine in store.machines
    assert set(store.machines) == {f"node{n:02d}/GPU-{n:08x}" for n in (1, 2, 3, 4)}
    assert store.machines["node03/GPU-00000003"] == machine(3)
    assert store.samples().num_rows == len(before)
    assert [part.shard.word for part in store.parts if part.shard] == ["1/4", "2/4", "3/4", "4/4"]
    planned = {cell.cell_id for cell in make_plan(SMALL, "cuda").cells}
    assert {row.cell_id for row in before} == planned
    assert set(load_frame(run)["cell_id"]) == planned
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all"]


def test_each_machine_is_held_against_its_own_usual_speed(tmp_path: Path) -> None:
    """A machine that is 30 % slower than another has not drifted, nor do the faster one's rows show drift."""
    runs = []
    for number, pace in ((1, 1.0), (2, 1.3)):
        path = shard_run(tmp_path / f"s{number}", number, 2)
        store = RunStore.open(path)
        rows = [msgspec.structs.replace(row, canary_s=0.001 * pace) for row in store.records()]
        shutil.rmtree(path)
        runs.append(make_run(path, rows, suite=SMALL, environment=machine(number)))
    (run,) = merge(runs, tmp_path / "all")
    assert {row.verdict for row in RunStore.open(run).judged_records()} == {"ok"}
    assert load_frame(run)["speed_index"].eq(1.0).all()


def test_a_missing_shard_is_named(shards: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match=r"shard 2/4, 4/4 are missing"):
        merge([shards[0], shards[2]], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    (run,) = merge([shards[0], shards[2]], tmp_path / "all", partial=True)
    assert "shard 2/4, 4/4 are missing" in caplog.text
    assert len(RunStore.open(run).parts) == 2


def test_an_unfinished_shard_is_named(shards: list[Path], tmp_path: Path) -> None:
    half = shard_run(tmp_path / "half", 4, 4, rows=3)
    with pytest.raises(UsageError, match=r"shard 4/4 \(.*half\) is unfinished: 3 of \d+ rows"):
        merge([*shards[:3], half], tmp_path / "all")


def test_a_row_that_two_runs_have_is_refused_with_both_files(shards: list[Path], tmp_path: Path) -> None:
    again = shard_run(tmp_path / "again", 2, 4, environment=machine(9))
    with pytest.raises(UsageError) as caught:
        merge([*shards, again], tmp_path / "all")
    assert str(shards[1] / "results.parquet") in str(caught.value)
    assert str(again / "results.parquet") in str(caught.value)
    for twice in (shards[0], shards[0] / "results.parquet", shards[0] / ".." / shards[0].name):
        with pytest.raises(UsageError, match="named twice"):
            merge([*shards, twice], tmp_path / "all")


def test_what_lies_elsewhere_goes_by_the_name_that_the_user_gave(shards: list[Path], tmp_path: Path) -> None:
    """Not by that of its copy here."""
    file = export(shards[1], tmp_path / "second.archbench").path
    assert len(merge([shards[0], file, *shards[2:]], tmp_path / "all")) == 1
    with pytest.raises(UsageError) as caught:
        merge([*shards, file], tmp_path / "again")
    assert f"is in {shards[1] / 'results.parquet'} and {file}," in str(caught.value)
    url = f"local://{shards[1]}"
    with pytest.raises(UsageError) as caught:
        merge([*shards, url], tmp_path / "again")
    assert f"is in {shards[1] / 'results.parquet'} and {url}," in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"suite": make_suite(suite="other", axes=SMALL.axes, rounds=1)}, "differ in their suite: example and other"),
        ({"suite": make_suite(axes=SMALL.axes, rounds=1, seed=7)}, r"their suite's content \(seed\)"),
        (
            {"suite": make_suite(axes=SMALL.axes, rounds=1, protocol={"min_samples": 99})},
            r"content \(protocol\)",
        ),
        ({"environment": machine(2, torch_version="2.11.0")}, r"their torch: 2.15.0\+cu132 and 2.11.0"),
        ({"of": 5}, "number of shards: 4 and 5"),
        ({"only": ("resnet*",)}, "differ in their split"),
    ],
)
def test_what_does_not_belong_together_is_refused(shards: list[Path], tmp_path: Path, other, said: str) -> None:
    stranger = shard_run(tmp_path / "stranger", 2, **{"of": 4, **other})
    with pytest.raises(UsageError, match=said):
        merge([shards[0], stranger, *shards[2:]], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_rows_of_another_protocol_are_refused(tmp_path: Path) -> None:
    old, new = (make_run(tmp_path / f"v{v}", [make_record(round=v, protocol_version=v)]) for v in (1, 2))
    with pytest.raises(UsageError, match="differ in their protocol"):
        merge([old, new], tmp_path / "all")


def test_each_class_becomes_a_run_of_its_own(tmp_path: Path) -> None:
    """A matrix over runner labels: both shards on either label."""
    runs = [
        shard_run(tmp_path / f"{row}-{number}", number, 2, environment=machine(10 * row + number, name))
        for row, name in enumerate(("NVIDIA H200", "NVIDIA A100-SXM4-80GB"))
        for number in (1, 2)
    ]
    merged = merge(runs, tmp_path / "all")
    assert [path.name for path in merged] == ["nvidia-a100-sxm4-80gb", "nvidia-h200"]
    for path in merged:
        assert load_frame(path)["hardware_class"].nunique() == 1
        assert len(RunStore.open(path).machines) == 2
    with pytest.raises(UsageError, match="shard 2/2 of NVIDIA H200 is missing"):
        merge([runs[0], *runs[2:]], tmp_path / "short")
    # Where a scheduler has dealt one suite to two classes, nothing is missing.
    assert len(merge([runs[0], runs[3]], tmp_path / "dealt")) == 2


def test_a_full_disk_leaves_nothing_and_the_shards_as_they_were(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = {path: path.stat().st_mtime_ns for shard in shards for path in shard.rglob("*")}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnfitError, match="No space left"):
        merge(shards, tmp_path / "all")
    assert list(tmp_path.iterdir()) == []
    assert before == {path: path.stat().st_mtime_ns for shard in shards for path in shard.rglob("*")}


def test_the_command_says_what_it_made_and_exits_2_for_a_missing_shard(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_words = [str(path) for path in shards]
    with pytest.raises(SystemExit) as ended:
        main(["merge", *main_words, "--out", str(tmp_path / "all")])
    assert ended.value.code == 0
    assert "devices of NVIDIA H200" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["merge", *main_words[1:], "--out", str(tmp_path / "short")])
    assert ended.value.code == 2
    assert "shard 1/4 is missing" in capsys.readouterr().err


def test_a_shard_goes_on_anywhere_in_its_class_and_a_whole_run_only_where_it_began() -> None:
    from archbench.model.cell import Shard
    from archbench.results import run_identity

    shard = Shard(number=1, of=2, split="x")
    assert run_identity(SMALL, machine(1), shard) == run_identity(SMALL, machine(2), shard)
    assert run_identity(SMALL, machine(1)) != run_identity(SMALL, machine(2))
    assert run_identity(SMALL, machine(1), shard) != run_identity(SMALL, machine(1, torch_version="2.11.0"), shard)
    assert run_identity(SMALL, make_environment(node="a")) == run_identity(SMALL, make_environment(node="b"))
