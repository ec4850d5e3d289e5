"""`archbench report` as a user calls it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_record, make_rows, make_run, make_suite

from archbench.cli import main
from archbench.model.cell import Network


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    return int(caught.value.code or 0)


def two_networks(root: Path) -> Path:
    names = ("resnet50", "vgg16")
    suite = make_suite(rounds=1, twin=None, architectures=tuple(Network(name=name) for name in names))
    return make_run(root, list(make_rows(suite, networks=names)), suite=suite, timings=False)


def test_writes_beside_the_results_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()])
    assert report(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.md'}\n"
    assert (run / "report.md").read_text().startswith("# example on AMD EPYC")


def test_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()], merge=False)
    assert report(run, "--out", tmp_path / "here.md") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'here.md'}\n"
    images = re.compile(r"!\[([^]]*)\]\((here_plots/[a-z-]+\.svg)\)")
    written = (tmp_path / "here.md").read_text()
    assert images.search(written)
    assert all((tmp_path / place).read_text().startswith("<svg") for _, place in images.findall(written))
    assert report(run, "--out", "-") == 0
    printed = capsys.readouterr().out  # where no file can lie beside it, plots are described
    assert re.sub(r"\*[^*]+\.\* (Each point is|A line for|A bar for|The peak)", r"\1", printed) == images.sub(
        r"\1", written
    )
    assert not (run / "report.md").exists()


def test_mistakes_are_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()])
    for arguments, message in (
        ((tmp_path / "none",), "no such file or directory"),
        ((tmp_path,), "is not a run"),
        ((run, "--format", "m"), "--format m: no such format, known: md"),
    ):
        assert report(*arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_damaged_cell_is_named_on_stderr_without_a_traceback(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record(), make_record(round=1)], merge=False)
    victim = next(run.glob("cells/*-r1-*"))
    victim.write_bytes(b"PAR1")
    done = subprocess.run(
        [sys.executable, "-m", "archbench", "report", str(run)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout == f"{run / 'report.md'}\n"
    assert victim.name in done.stderr
    assert "Traceback" not in done.stderr
    assert all("damaged (cut off?)" in line for line in done.stderr.splitlines())


def test_only_and_table_narrow_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = two_networks(tmp_path)
    assert report(run, "--only", "vgg*", "--out", "-") == 0
    shown = capsys.readouterr().out
    assert "Only `vgg*` of the run." in shown
    assert "archbench run suite.yaml --device cpu --only 'vgg*'" in shown
    assert "vgg16" in shown
    assert "| resnet50" not in shown
    assert report(run, "--only", "vgg*", "--format", "latex", "--table", "networks", "--out", "-") == 0
    latex = capsys.readouterr().out
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 1
    assert latex.count("vgg16 &") == 1
    assert r"\caption{The networks}" in latex
    assert report(run, "--only", "vgg16@batch_size=8", "--table", "inference", "--out", "-") == 0
    shown = capsys.readouterr().out
    assert "| vgg16 |" in shown
    assert "batch 8." in shown
    assert "batch 1" not in shown
    assert "| Batch" not in shown, "where all rows are of one batch size"
    for words, message in (
        (("--only", "vg16"), "matches no cell of the suite; did you mean vgg16"),
        (("--table", "weather"), "--table weather: no such table; there are "),
        (("--plots", "gif"), "--plots gif: no such format, known: svg, png, pdf"),
        (("--plots", "png", "--out", "-"), "--plots needs a place to lie beside"),
    ):
        assert report(run, *words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_plots_are_stored_beside_any_format_and_name_the_networks_that_were_asked_for(tmp_path: Path) -> None:
    run = two_networks(tmp_path)
    assert (
        report(run, "--format", "latex", "--plots", "svg,pdf", "--label", "resnet*", "--out", tmp_path / "paper.tex")
        == 0
    )
    folder = tmp_path / "paper_plots"
    kinds: dict[str, set[str]] = {path.stem: set() for path in folder.iterdir()}
    for path in folder.iterdir():
        kinds[path.stem].add(path.suffix)
    assert all(found == {".svg", ".pdf"} for found in kinds.values())
    hero = (folder / "accuracy-over-latency.svg").read_text()
    assert ">resnet50<" in hero
    assert ">vgg16<" not in hero
