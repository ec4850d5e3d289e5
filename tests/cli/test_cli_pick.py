"""`archbench pick` as people call it: what it prints, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_run
from decision_cells import row

from archbench.cli import main
from archbench.model.record import SCHEMA_VERSION

ROWS = (
    row("resnet50", 0.020, top1=76.1, verdict="suspect", reasons=("contended",)),
    row("resnet50", 0.015, top1=76.1, compile_mode="default"),
    row("resnet101", 0.0151, top1=77.4),
    row("vgg16", 0.060, top1=71.6, family="vgg"),
    row("alexnet", status="oom", error_message="out of memory", top1=56.5),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("pick"), ROWS)


def pick(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["pick", *map(str, words)])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_a_shortlist_for_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = pick(capsys, run, "--where", "top1 >= 75", "--minimize", "latency_median")
    assert (code, err) == (0, "")
    assert "Networks that satisfy top1 >= 75; smallest latency_median first." in out
    assert "Inference, batch 1, fp32: 2 of 4 networks" in out
    lines = out.splitlines()
    table = next(number for number, line in enumerate(lines) if line.startswith("#"))
    assert lines[table].split("  ")[0:2] == ["#", "network"]
    assert lines[table + 1].split()[:4] == ["1", "resnet50", "fp32,", "compile=default"]
    assert "tie (1.007x" in lines[table + 2]
    assert "vgg16    top1 >= 75: 71.6 % (3.4 points off)" in out
    assert "alexnet  oom: out of memory; top1 >= 75: 56.5 % (18.5 points off)" in out
    assert "archbench duel resnet50@batch_size=1,compile_mode=default resnet101@batch_size=1" in out
    assert "\x1b" not in out


def test_a_tie_that_no_duel_settles(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = pick(capsys, run, "--minimize", "peak_allocated")
    assert "Too close to call with" in out
    assert "duel" not in out


def test_without_a_goal_the_smallest_latency_comes_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "smallest latency_median first" in pick(capsys, run)[1]


def test_a_front_for_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = pick(capsys, run, "--minimize", "latency_median", "--maximize", "top1")
    assert "Pareto front of smallest latency_median, largest top1" in out
    assert "vgg16    resnet50 is nowhere worse: latency 4.00x ±0.06, top1 4.5 points" in out


def test_nothing_found_says_what_each_lacks_and_exits_with_0(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pick(capsys, run, "--where", "latency_median <= 1ms and family == vg")
    assert code == 0
    assert out.startswith("No network satisfies latency_median <= 1ms and family == vg.")
    assert "No row has family 'vg'; did you mean vgg?" in out
    assert "Without a cell of the kind asked for:\n  latency_median <= 1ms; family == vg: " in out
    _, out, _ = pick(capsys, run, "--where", "latency_median <= 1ms")
    assert "What each lacks, the nearest first:\n  resnet50   latency_median <= 1ms: 15.0 ms (15.0x off)" in out


def test_json_has_everything(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = pick(capsys, run, "--where", "top1 >= 75", "--json")
    (ranking,) = json.loads(out)["rankings"]
    assert [one["network"] for one in ranking["choices"]] == ["resnet50", "resnet101"]
    assert ranking["choices"][1]["behind"]["tie"] is True
    assert {one["network"] for one in ranking["left_out"]} == {"vgg16", "alexnet"}


def test_the_shortlist_is_cut_and_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "... and 2 more (--top)" in pick(capsys, run, "--top", 1)[1]


def test_rows_that_differ_are_apart_until_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [*ROWS, row("vgg16", 0.01, batch_size=8)])
    apart = pick(capsys, run)[1]
    assert "They differ in batch_size and are ranked apart" in apart
    assert apart.index("Inference, batch 1, fp32") < apart.index("Inference, batch 8, fp32")
    together = pick(capsys, run, "--across", "batch_size")[1]
    assert "Ranked across batch_size (1, 8)" in together
    assert "batch_size" in next(line for line in together.splitlines() if line.startswith("#"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "latncy_p99 <= 5ms"], "column 1: unknown column 'latncy_p99'; did you mean latency_p99"),
        (["--where", "latency_p99 <= 5"], "column 16: 5 of what?"),
        (["--where", "latency_p99 <= 4GiB"], "'GiB' is a size in bytes"),
        (["--where", "(top1 >= 5"], "this bracket is never closed"),
        (["--where", "__import__('os').system('true')"], "calls a function"),
        (["--minimize", "latency"], "--minimize latency: unknown column 'latency'; did you mean latency_median"),
        (["--maximize", "family"], "--maximize family: the column 'family' holds no numbers"),
        (["--minimize", "macs", "--maximize", "macs"], "macs is a goal twice"),
        (["--across", "batch"], "--across batch: rows may always differ in it"),
        (["--across", "compile_mode"], "--across compile_mode: rows may always differ in it"),
    ],
)
def test_bad_questions_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = pick(capsys, run, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_runs_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = make_run(tmp_path / "empty", [])
    text = tmp_path / "notes.parquet"
    text.write_text("not parquet")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    cut = tmp_path / "cut.parquet"
    whole = (make_run(tmp_path / "whole", ROWS) / "results.parquet").read_bytes()
    cut.write_bytes(whole[:200])  # of half a file rows are left, and used: see tests/results/test_damage.py
    for place, message in (
        (tmp_path / "nowhere", "no such file or directory"),
        (empty, "holds no finished cell yet"),
        (text, "not a parquet file"),
        (foreign, "not a file of archbench's results"),
        (cut, "not a parquet file, or a damaged one"),
        (tmp_path / "whole", "is not a run"),
    ):
        code, out, err = pick(capsys, place)
        assert (code, out) == (2, ""), place
        assert message in err, err
        assert len(err.splitlines()) == 1


def test_a_killed_run_and_one_with_a_damaged_file_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, ROWS, merge=False)
    shutil.rmtree(run / "samples")
    next((run / "cells").glob("*.parquet")).write_bytes(b"PAR1 cut off")
    code, out, _ = pick(capsys, run)
    assert code == 0
    assert "of 3 networks" in out or "of 4 networks" in out


def test_a_run_of_an_older_schema_lacks_what_is_younger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, ROWS)
    path = run / "results.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["latency_p99_s", "torch_version", "top1"]), path)
    monkeypatch.setattr("archbench.results.journal.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    code, out, _ = pick(capsys, run, "--where", "latency_p99 <= 5ms")
    assert code == 0
    assert "latency_p99_s is null in every row." in out
    assert "Inference, batch 1, fp32: 3 of 4 networks" in pick(capsys, run)[1]


def test_a_column_that_is_null_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [row("resnet50", None, throughput_img_s=None), row("vgg16", None, throughput_img_s=None)])
    code, out, _ = pick(capsys, run, "--maximize", "throughput")
    assert code == 0
    assert "throughput_img_s is null in every row." in out


def test_several_runs_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = make_run(tmp_path / "here", [row("resnet50", 0.02)])
    there = make_run(tmp_path / "there", [row("resnet50", 0.002, hardware_class="NVIDIA H200", device="cuda")])
    out = pick(capsys, here, there)[1]
    assert "hardware_class NVIDIA H200" in out
    assert "hardware_class AMD EPYC 9654 x2" in out
