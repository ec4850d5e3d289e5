"""What a report does with runs that are empty, killed, cut off, older, newer, or full of nulls and hostile names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from builders import make_environment, make_record, make_rows, make_run, make_suite

from archbench.cli import main
from archbench.model.record import SCHEMA_VERSION, columns
from archbench.rendering.report import FORMATS, build_report
from archbench.rendering.run_data import read_run
from archbench.results.journal import VERSION_KEY

HOSTILE = (
    "<script>alert(1)</script>",
    "../../x",
    "n" * 300,
    "réseau_中文_🦊",
    "a|b\\c{d}$e^f~g#h%i&j_k",
    "\N{RIGHT-TO-LEFT OVERRIDE}flip\nline",
    "`code`",
)


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    return int(caught.value.code or 0)


def refused(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    assert report(run) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_an_empty_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no finished cell yet" in refused(make_run(tmp_path, []), capsys)


def test_a_killed_run(tmp_path: Path) -> None:
    rows = list(make_rows(make_suite(rounds=1), networks=["resnet18"]))[:7]
    run = make_run(tmp_path, rows, merge=False)
    (run / "cells" / ".half.parquet.123.tmp").write_bytes(b"PAR1")
    assert report(run) == 0
    said = (run / "report.md").read_text()
    assert "7 of 80 planned cells measured" in said
    assert "; unfinished: 73 cells of the suite without a row yet" in said


def test_a_results_file_that_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()])
    results = run / "results.parquet"
    whole = results.read_bytes()
    results.write_bytes(whole[:-100])
    assert report(run) == 0, "its footer stands in it a second time"
    results.write_bytes(whole[:400])
    assert "holds no finished cell yet" in refused(run, capsys)


def test_a_cell_that_is_cut_off_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, [make_record(), make_record(cell_id="b", variant="b")], merge=False)
    victim = sorted((run / "cells").glob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    assert report(run) == 0
    assert f"{victim} is damaged (cut off?)" in caplog.text
    assert "1 of 80 planned cells measured" in (run / "report.md").read_text()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(5000) + b"PAR1"])
def test_a_file_that_is_not_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    run = make_run(tmp_path, [make_record()])
    (run / "results.parquet").write_bytes(content)
    assert "holds no finished cell yet" in refused(run, capsys)
    (tmp_path / "alone.parquet").write_bytes(content)
    assert "name a run's directory" in refused(tmp_path / "alone.parquet", capsys)


def with_version(run: Path, version: int, without: tuple[str, ...] = ()) -> None:
    table = pq.read_table(run / "results.parquet").drop_columns(list(without))
    metadata = {**(table.schema.metadata or {}), VERSION_KEY: str(version).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), run / "results.parquet")


def test_a_run_of_a_newer_schema_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()])
    with_version(run, SCHEMA_VERSION + 1)
    assert f"has schema version {SCHEMA_VERSION + 1}, and this archbench reads 1 to" in refused(run, capsys)


def test_a_run_of_an_older_schema_is_read_and_lacks_what_is_younger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, [make_record()])
    younger = ("output_cosine", "activations", "predicted_peak_bytes", "latency_p90_s", "peak_allocated_bytes")
    with_version(run, SCHEMA_VERSION, without=younger)
    monkeypatch.setattr("archbench.results.journal.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert report(run) == 0
    assert "| resnet50 | 23.2 ±0.3 | - | 43.5 | - | ok |" in (run / "report.md").read_text()


def test_a_suite_or_environment_of_another_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("suite.json", "environment.json"):
        run = make_run(tmp_path / name, [make_record()])
        (run / name).write_text('{"of": "tomorrow"}')
        assert f"{name}: cannot be read by this version" in refused(run, capsys)
        (run / name).unlink()
        assert f"has no {name}" in refused(run, capsys)


_NEEDED = {"schema_version", "protocol_version", "round", "visit", "batch_size"}


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_all_that_may_be_null_is_null(tmp_path: Path, format: str, device: str) -> None:
    nullable = {name: None for name, one in columns().items() if one.kind in ("real", "whole") and name not in _NEEDED}
    texts = dict.fromkeys(("family", "source", "setting", "accuracy_source", "torch_version", "started_at", "applied"))
    rows = [
        make_record(cell_id=f"{number}", variant=f"n{number}", **nullable, **texts, **toggles, **phase)
        for number in range(2)
        for toggles in ({}, {"precision": "amp-bf16"}, {"compile_mode": "default"})
        for phase in ({}, {"phase": "training"})
    ]
    for number, row in enumerate(rows):
        rows[number] = _renamed(row, f"c{number}")
    run = make_run(tmp_path, rows, environment=make_environment(device))
    assert FORMATS[format](build_report(read_run(run)))


def _renamed(row: Any, cell_id: str) -> Any:
    import msgspec

    return msgspec.structs.replace(row, cell_id=cell_id)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_hostile_names_and_messages(tmp_path: Path, format: str) -> None:
    rows = [
        make_record(
            cell_id=f"{name}@{setting}", variant=name, architecture=name, family=name, setting=setting,
            precision=precision, status=status, error_message=name if status != "ok" else None,
        )
        for name in HOSTILE
        for setting, precision, status in (("a", "fp32", "ok"), (HOSTILE[0], "amp-bf16", "ok"), ("x", "fp16", "error"))
    ]  # fmt: skip
    run = make_run(tmp_path, rows, suite=make_suite(description=HOSTILE[0]))
    text = FORMATS[format](build_report(read_run(run)))
    shown = re.sub(r"^```sh\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)  # commands have to be what they are
    assert "<script>alert" not in shown
    assert "中文" in shown
    if format != "html":  # whose hidden data hold names as they are
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
        assert "n" * 300 not in shown


def test_every_command_in_a_report_is_safe_to_paste(tmp_path: Path) -> None:
    """A name is quoted where it stands in a command: it must not run anything."""
    name = "m:f[a=$(touch${IFS}owned);b]"
    rows = [
        make_record(
            cell_id=f"{name}@batch_size=1,precision={precision}", variant=name, setting=None, precision=precision
        )
        for precision in ("fp32", "amp-bf16")
    ]
    markdown = FORMATS["md"](build_report(read_run(make_run(tmp_path, rows))))
    (command,) = [line for line in markdown.splitlines() if line.startswith("archbench duel")]
    echo = command.replace("archbench duel", "printf '%s\\n'", 1)
    done = subprocess.run(["sh", "-c", echo], capture_output=True, text=True, timeout=10, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[0].startswith(name)
    assert not (tmp_path / "owned").exists()


def test_control_characters_are_drawn_and_do_not_end_the_process(tmp_path: Path) -> None:
    """The plot library aborts at them, and a process that aborts catches nothing: so in one of its own."""
    names = ["bell\x07", "escape\x1b[31m", "nul\x00", "surrogate\ud800", "no character\ufffe"]
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom archbench.rendering.content import Dataset, Picture, Report\n"
        "from archbench.rendering.drawing import draw\n"
        "names = json.loads(sys.argv[1])\n"
        "spec = {'data': {'name': 'cells'}, 'mark': 'text', 'title': names, 'encoding': {'text': {'field': 'network'},"
        " 'x': {'field': 'network', 'type': 'nominal', 'scale': {'domain': names}}}}\n"
        "picture = Picture(name='one', title=names[0], alt=names[0], spec=json.dumps(spec))\n"
        "cells = Dataset(name='cells', columns=('network',), rows=tuple((name,) for name in names))\n"
        "assert draw(Report(title='', parts=(picture,), dataset=cells), Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names), str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    drawn = (tmp_path / "one.svg").read_text()
    assert all(f"{name}\N{REPLACEMENT CHARACTER}" in drawn for name in ("bell", "escape", "nul", "surrogate"))


def test_stored_names_with_control_characters_and_figures_that_are_infinite_or_absent(tmp_path: Path) -> None:
    """`report` in a process of its own, of a stored run: every format is written, nothing is aborted or traced back."""
    odd = {"latency_median_s": float("inf"), "throughput_img_s": float("nan"), "macs": None, "top1": float("inf")}
    rows = [make_record(cell_id=name, variant=name, family=name) for name in ("bell\x07", "nul\x00", "b")]
    rows.append(make_record(cell_id="odd", variant="odd", latency_ci_high_s=float("inf"), **odd))
    rows.append(make_record(cell_id="zero", variant="zero", latency_median_s=0.0, throughput_img_s=0.0, params=0))
    rows.append(make_record(cell_id="none", variant="none", **dict.fromkeys(odd), peak_allocated_bytes=None))
    run = make_run(tmp_path, rows)
    code = (
        "import sys\nfrom archbench.cli import main\n"
        "for format in sys.argv[2:]:\n"
        "    try:\n        main(['report', sys.argv[1], '--format', format])\n"
        "    except SystemExit as ended:\n        assert not ended.code, format\n"
    )
    words = [sys.executable, "-c", code, str(run), *FORMATS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    drawn = (run / "plots" / "latency-over-macs.svg").read_text()
    assert r"bell\x07" in drawn  # as rows are read: escaped, wherever they go
