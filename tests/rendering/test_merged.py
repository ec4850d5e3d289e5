"""Several runs in one report: side by side by hardware class, ratios within a class, what cannot be read left out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from builders import make_environment, make_record, make_run, make_suite
from report_parts import section, tables, texts

from archbench.cli import main
from archbench.model.environment import Environment
from archbench.model.errors import UsageError
from archbench.model.record import Record
from archbench.rendering.content import Report
from archbench.rendering.report import build_merged
from archbench.rendering.run_data import RunData, read_run, read_several
from archbench.rendering.side_by_side import named


def timed(step: float, **fields: Any) -> Record:
    ends = {"latency_ci_low_s": step * 0.99, "latency_ci_high_s": step * 1.01}
    return make_record(latency_median_s=step, canary_s=None, **ends, **fields)


def a_run(root: Path, *rows: Record, run_id: str = "20250102T030405Z-0123abcd", **environment: Any) -> Path:
    here = make_environment(environment.pop("device", "cpu"), **environment)
    path = make_run(root, rows, suite=make_suite(rounds=1, twin=None), environment=here)
    return path.rename(path.with_name(run_id))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[RunData]:
    """A GPU's run between two of one CPU with different torch; times 10, 4 and 8 ms."""
    root = tmp_path_factory.mktemp("three")
    paths = [
        a_run(root / "a", timed(0.010), timed(0.1, cell_id="alone", variant="alone"), torch_version="2.14.0"),
        a_run(root / "b", timed(0.004, device="cuda"), device="cuda:0"),
        a_run(root / "c", timed(0.008), torch_version="2.15.0"),
    ]
    return [read_run(path) for path in paths]


@pytest.fixture(scope="module")
def merged(three: list[RunData]) -> Report:
    return build_merged(three)


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_runs_stand_by_hardware_class_and_have_labels_of_their_own(three: list[RunData], tmp_path: Path) -> None:
    found = named(three)
    assert [(one.letter, one.label) for one in found] == [
        ("A", "AMD EPYC 9654 x2, torch 2.14.0"),
        ("B", "AMD EPYC 9654 x2, torch 2.15.0"),
        ("C", "NVIDIA H200"),
    ]
    twins = [a_run(tmp_path / name, timed(0.01), run_id=f"20250102T030405Z-0000000{name}") for name in "xy"]
    assert [one.label.rpartition(", ")[2] for one in named([read_run(path) for path in twins])] == [
        "20250102T030405Z-0000000x",
        "20250102T030405Z-0000000y",
    ]


def test_shared_cells_side_by_side_with_ratios_on_one_hardware_class(merged: Report) -> None:
    latency, throughput, memory = tables(section(merged, "Inference, side by side"))
    assert latency.caption == "Inference on AMD EPYC 9654 x2: latency"
    assert latency.headings == ("Network", "A ms", "B ms", "B over A ×")
    assert latency.shared == (("Setting", "fp32"), ("Batch", "1"))
    (row,) = latency.rows
    assert row == ("resnet50", "10.00 ±0.10", "8.00 ±0.08", "1.250 ±0.018")
    assert throughput.headings[1:] == ("A img/s", "B img/s", "B over A ×")
    assert memory.headings[1:] == ("A MiB", "B MiB")
    assert "Times of different hardware classes never stand side by side" in texts(*merged.lead)
    assert "torch | 2.14.0 | 2.15.0 | 2.15.0+cu132" in texts(*merged.lead)


def test_across_classes_only_ratios_to_each_devices_reference_stand_side_by_side(tmp_path: Path) -> None:
    """Times of 8 and 20 ms on a CPU, of 1 and 4 ms on a card: 2.5 and 4 times those of the reference, resnet18."""
    runs = []
    for place, device, times in (("a", "cpu", (0.008, 0.020)), ("b", "cuda:0", (0.001, 0.004))):
        kind = device.partition(":")[0]
        rest = f"phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device={kind}"
        rows = [
            timed(seconds, cell_id=f"{name}@batch_size=1,{rest}", variant=name, architecture=name, device=kind)
            for name, seconds in zip(("resnet18", "resnet50"), times, strict=True)
        ]
        suite = make_suite(rounds=1, twin="resnet18")
        runs.append(read_run(make_run(tmp_path / place, rows, suite=suite, environment=make_environment(device))))
    merged = build_merged(runs)
    (ratios,) = tables(section(merged, "Against the reference"))
    assert ratios.headings == ("Cell", "A ×", "B ×")
    assert ratios.rows == (("resnet18@batch_size=1", "1.00", "1.00"), ("resnet50@batch_size=1", "2.50", "4.00"))
    together = [one for one in merged.sections if not one.title.startswith("Run ")]
    headings = [" ".join(table.headings) for one in together for table in tables(one)]
    assert headings
    assert not any("ms" in one or "img/s" in one for one in headings)


def test_each_run_has_its_own_part_too(three: list[RunData], merged: Report) -> None:
    titles = [one.title for one in merged.sections]
    assert titles[-3:] == [f"Run {one.letter}: {one.label}" for one in named(three)]
    assert "alone" in texts(merged.sections[-3])
    assert "archbench run suite.yaml --device cuda:0" in texts(merged.sections[-1])


def test_failed_and_unfit_cells_are_words_and_never_ratios(tmp_path: Path) -> None:
    runs = [
        read_run(a_run(tmp_path / "a", timed(0.010), torch_version="1")),
        read_run(a_run(tmp_path / "b", timed(0.008, verdict="invalid"), torch_version="2")),
        read_run(a_run(tmp_path / "c", make_record(status="oom"), torch_version="3")),
    ]
    (row,) = tables(section(build_merged(runs), "Inference, side by side"))[0].rows
    assert row[1:] == ("10.00 ±0.10", "8.00 ±0.08", "-", "oom", "-")


def test_many_runs_take_several_tables(tmp_path: Path) -> None:
    runs = [read_run(a_run(tmp_path / str(n), timed(0.01), torch_version=f"2.{n}")) for n in range(4)]
    found = tables(section(build_merged(runs), "Inference, side by side"))
    assert [len(table.headings) for table in found] == [1 + 6, 1 + 1, 1 + 6, 1 + 1, 1 + 4]


def test_runs_without_a_common_cell_say_so(tmp_path: Path) -> None:
    runs = [
        read_run(a_run(tmp_path / "a", timed(0.01))),
        read_run(a_run(tmp_path / "b", timed(0.01, variant="other"), torch_version="2")),
    ]
    assert "No cell was measured in two of these runs" in texts(section(build_merged(runs), "Side by side"))


def test_the_command_writes_here_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [a_run(tmp_path / "a", timed(0.01)), a_run(tmp_path / "b", timed(0.01), torch_version="2")]
    assert report(*paths, "--format", "latex") == 0
    assert capsys.readouterr().out == "archbench-report.tex\n"
    assert (tmp_path / "archbench-report.tex").read_text().startswith("% 2 runs of example\n")
    assert report(*paths) == 0
    assert (tmp_path / "archbench-report.md").read_text().startswith("# 2 runs of example\n")
    capsys.readouterr()
    assert report(*paths, "--out", "-") == 0
    assert capsys.readouterr().out.startswith("# 2 runs of example\n")


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = a_run(tmp_path / "good", timed(0.01))
    empty = a_run(tmp_path / "empty")
    cut = a_run(tmp_path / "cut", timed(0.01))
    content = (cut / "results.parquet").read_bytes()
    (cut / "results.parquet").write_bytes(content[:400])
    text = tmp_path / "notes.txt"
    text.write_text("no results")
    with caplog.at_level(logging.WARNING):
        assert [run.path for run in read_several([empty, good, cut, text])] == [good]
    said = caplog.text
    assert f"left out: {empty}: holds no finished cell yet" in said
    assert f"{cut / 'results.parquet'} is damaged" in said
    assert f"left out: {text}: is a file" in said


def test_mistakes_are_errors(tmp_path: Path) -> None:
    good, empty = a_run(tmp_path / "good", timed(0.01)), a_run(tmp_path / "empty")
    with pytest.raises(UsageError, match="no such file or directory"):
        read_several([good, tmp_path / "none"])
    with pytest.raises(UsageError, match="named twice"):
        read_several([good, good / "results.parquet"])
    with pytest.raises(UsageError, match="holds no finished cell yet"):
        read_several([empty, empty])


def test_environments_that_differ_in_nothing_have_no_table_of_differences(tmp_path: Path) -> None:
    runs = [read_run(a_run(tmp_path / name, timed(0.01), run_id=f"20250102T030405Z-0000000{name}")) for name in "xy"]
    assert isinstance(runs[0].environment, Environment)
    assert [table.headings[0] for table in tables(*build_merged(runs).lead)] == ["Run"]
