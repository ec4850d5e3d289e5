"""Many runs: series, resets, change points, and the two runs between which something changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import make_environment, make_run
from compare_sides import cell, measured, rows_of

from archbench.cli import main
from archbench.comparison import Rows, history, read_runs
from archbench.comparison.history import FEWEST
from archbench.model.errors import UsageError
from archbench.rendering.comparison_report import MOST_LINES, history_report
from archbench.rendering.drawing import draw
from archbench.rendering.text import render_markdown

LUCK = np.random.default_rng(3).normal(0, 0.004, (40, 4))


def day_rows(day: int, factors: dict[str, float], **overrides: Any) -> list[Any]:
    """One run of one process a cell, at 10 ms times its factor times a little luck."""
    given = {"run_id": f"day{day:02d}", "started_at": f"2025-01-{day + 1:02d}T03:00:00.000+00:00", **overrides}
    return [
        row
        for column, (name, factor) in enumerate(factors.items())
        for row in measured([0.01 * factor * float(np.exp(LUCK[day, column]))], cell(name), **given)
    ]


def days(place: Path, count: int, slow_from: int, **overrides: Any) -> list[Rows]:
    """Cells `a`, 5 % slower from a day on, and `b`, which stays."""
    return [
        rows_of(place, day_rows(day, {"a": 1.05 if day >= slow_from else 1.0, "b": 1.0}, **overrides))
        for day in range(count)
    ]


def test_a_step_is_found_in_its_cell_alone_and_between_the_right_runs(tmp_path: Path) -> None:
    found = history("here", days(tmp_path, 16, slow_from=9))
    (step,) = found.steps
    assert (step.before.run_id, step.after.run_id) == ("day08", "day09")
    (change,) = step.changes
    assert change.cell_id == cell("a")
    assert change.change == pytest.approx(0.05, abs=0.006)
    assert change.p <= 0.01
    assert (change.votes, change.voters, change.p_ranks <= 0.01) == (2, 2, True)
    assert [len(one.points) for one in found.series] == [16, 16]
    assert found.resets == ()


def test_the_order_of_the_runs_is_that_of_their_time(tmp_path: Path) -> None:
    runs = days(tmp_path, 16, slow_from=9)
    assert history("here", runs[::-1]) == history("here", runs)


def test_a_step_below_the_least_effect_is_not_told(tmp_path: Path) -> None:
    runs = [rows_of(tmp_path, day_rows(day, {"a": 1.01 if day >= 9 else 1.0})) for day in range(18)]
    assert history("here", runs).steps == ()


def test_a_new_torch_or_driver_resets_and_is_not_called_a_change(tmp_path: Path) -> None:
    for column in ("torch_version", "driver_version"):
        runs = [
            rows_of(tmp_path, day_rows(day, {"a": 1.2 if day >= 8 else 1.0}, **{column: "2" if day >= 8 else "1"}))
            for day in range(16)
        ]
        found = history("here", runs)
        assert found.steps == ()
        (reset,) = found.resets
        assert (reset.before_run, reset.after_run) == ("day07", "day08")
        assert reset.what == f"{column.removesuffix('_version')} 1 → 2"


def test_other_hardware_and_protocols_are_kept_apart(tmp_path: Path) -> None:
    for column, values in (("hardware_class", ("fast", "slow")), ("protocol_version", (1, 2))):
        runs = [
            rows_of(tmp_path, day_rows(day, {"a": (1.0, 1.5)[day % 2]}, **{column: values[day % 2]}))
            for day in range(16)
        ]
        found = history("here", runs)
        assert [len(one.points) for one in found.series] == [8, 8]
        assert found.steps == ()
        assert any("kept apart" in note for note in found.notes)


def test_on_the_cpu_a_slow_day_is_no_change(tmp_path: Path) -> None:
    runs = []
    for day in range(16):
        speed = 1.2 if day >= 8 else 1.0
        runs.append(rows_of(tmp_path, day_rows(day, {"a": speed, "b": speed}, canary_s=0.001 * speed)))
    assert history("here", runs).steps == ()


def test_what_else_changed_between_the_two_runs_is_said(tmp_path: Path) -> None:
    runs = [
        msgspec.structs.replace(run, environment=make_environment(libraries={"numpy": "2.5" if day >= 9 else "2.4"}))
        for day, run in enumerate(days(tmp_path, 16, slow_from=9))
    ]
    (step,) = history("here", runs).steps
    assert step.also == ("Besides the code, this changed: numpy 2.4 → 2.5.",)


def test_too_few_runs_say_how_many_it_takes(tmp_path: Path) -> None:
    found = history("here", days(tmp_path, 3, slow_from=1))
    assert found.steps == ()
    assert f"Too few runs: a change shows from {FEWEST} runs of one environment on" in found.notes[-1]
    assert found.notes[-1].endswith("there are 3 runs in all.")
    assert "Too few runs to see a change." in render_markdown(history_report(found, plot=False))


@pytest.mark.parametrize(("before", "after"), [(3, 3), (8, 3)])
def test_six_runs_and_more_show_a_step_of_thirty_per_cent(tmp_path: Path, before: int, after: int) -> None:
    runs = [
        rows_of(tmp_path, day_rows(day, {"a": 1.3 if day >= before else 1.0, "b": 1.0}))
        for day in range(before + after)
    ]
    (step,) = history("here", runs).steps
    assert (step.before.run_id, step.after.run_id) == (f"day{before - 1:02d}", f"day{before:02d}")
    assert [change.cell_id for change in step.changes] == [cell("a")]


def test_cells_that_failed_or_have_no_number_leave_no_point(tmp_path: Path) -> None:
    runs = days(tmp_path, 7, slow_from=99)
    odd = [
        day_rows(7, {"a": 1.0}, status="oom"),
        day_rows(8, {"a": float("nan")}),
        day_rows(9, {"a": 1.0}, verdict="invalid"),
    ]
    odd_runs = [
        rows_of(tmp_path, [msgspec.structs.replace(row, throughput_img_s=None) for row in rows]) for rows in odd
    ]
    (first, *_) = history("here", [*runs, *odd_runs]).series
    assert len(first.points) == 7


def store(place: Path, count: int, slow_from: int = 99) -> Path:
    for day in range(count):
        made = make_run(place / "new", day_rows(day, {"a": 1.05 if day >= slow_from else 1.0, "b": 1.0}))
        made.rename(place / f"day{day:02d}")
    return place


def test_runs_are_found_at_any_depth_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    store(tmp_path / "deep" / "er", 2)
    (tmp_path / "notes.parquet").write_bytes(b"PAR1")
    make_run(tmp_path / "killed", [])
    (tmp_path / "copy").mkdir()
    source = tmp_path / "deep" / "er" / "day00" / "results.parquet"
    (tmp_path / "copy" / "again.parquet").write_bytes(source.read_bytes())
    rows_of(tmp_path / "copy", day_rows(5, {"a": 1.0}))  # a file that travels alone
    runs, left_out = read_runs(tmp_path)
    assert sorted(run.frame["run_id"].iloc[0] for run in runs) == ["day00", "day01", "day05"]
    assert len(left_out) == 3
    for part in ("notes.parquet", "no finished cell", "run day00 was read already"):
        assert any(part in line for line in left_out), part


def test_runs_that_go_by_one_name_are_told_apart(tmp_path: Path) -> None:
    for day in range(3):
        rows = day_rows(day, {"a": 1.0}, run_id="nightly")
        make_run(tmp_path / "new", rows).rename(tmp_path / f"artifact{day}")
    runs, left_out = read_runs(tmp_path)
    assert left_out == []
    found = history("here", runs)
    assert len(found.series[0].points) == len({run.run_id for run in found.runs}) == 3
    assert found.runs[2].run_id == str(tmp_path / "artifact2")


def test_a_directory_without_runs_is_a_mistake(tmp_path: Path) -> None:
    for place, message in ((tmp_path, "holds no run"), (tmp_path / "none", "is not a directory")):
        with pytest.raises(UsageError, match=message):
            read_runs(place)


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["history", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_command_advises_and_always_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = store(tmp_path / "runs", 14, slow_from=8)
    assert command(place) == 0
    out = capsys.readouterr().out
    assert "# History of 14 runs" in out
    assert "| 2 of 2 |" in out
    assert "Between `day07` (2025-01-08 03:00 UTC) and `day08` (2025-01-09 03:00 UTC):" in out
    assert "fails nobody" in out
    assert command(place, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [step["after"]["run_id"] for step in data["steps"]] == ["day08"]

    pytest.importorskip("vl_convert")
    assert command(place, "--out", tmp_path / "trend.md") == 0
    assert "](trend-plots/history.svg)" in (tmp_path / "trend.md").read_text()
    svg = (tmp_path / "trend-plots" / "history.svg").read_text()
    assert svg.startswith("<svg")
    assert "a@batch_size=1" in svg


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, line in (
        ((tmp_path,), "holds no run"),
        ((tmp_path / "none",), "is not a directory"),
        ((tmp_path, "--format", "html"), "--format html: no such format"),
    ):
        assert command(*arguments) == 2
        err = capsys.readouterr().err
        assert line in err
        assert err.count("\n") == 1


def test_the_plot_shows_the_cells_that_changed_most(tmp_path: Path) -> None:
    names = {f"n{number:02d}": 1.0 for number in range(3)}
    runs = [rows_of(tmp_path, day_rows(day, {**names, "slow": 1.2 if day >= 7 else 1.0})) for day in range(14)]
    report = history_report(history("here", runs), plot=True)
    (picture,) = [block for section in report.sections for block in section.blocks if type(block).__name__ == "Picture"]
    spec = json.loads(picture.spec)
    shown = [row["cell"] for row in spec["layer"][0]["data"]["values"]]
    assert shown[0] == "slow@batch_size=1"
    assert len(set(shown)) <= MOST_LINES


def test_help_needs_neither_pandas_nor_altair() -> None:
    code = (
        "import sys\nfrom archbench.cli import main\n"
        "try:\n    main(['history', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pandas', 'altair', 'scipy', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_without_what_draws_it_a_history_is_written_and_says_what_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    runs = [rows_of(tmp_path, day_rows(day, {"a": 1.0})) for day in range(3)]
    report = history_report(history("here", runs), plot=True)
    assert not draw(report, tmp_path / "plots")
    assert "pip install 'archbench[plots]'" in caplog.text
    assert "*Time of a batch over the runs" in render_markdown(report)
