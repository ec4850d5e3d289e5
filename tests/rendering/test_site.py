"""Machines side by side: ratios to each device's own reference, a matrix for each class, files to take away."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))
from shard_runs import SMALL, machine, shard_run

import archbench
from archbench.cli import main
from archbench.model.cell import Cell
from archbench.suite.plan import reference_of

TIMES = {"resnet18": 1.0, "resnet50": 2.5, "mobilenet_v2": 0.5, "densenet121": 2.0, "vgg16": 4.0}
"""Of the reference's, on every device of every class."""
EFFECTS = (1.0, 1.01, 0.99, 1.0, 1.3)
"""The speed of five cards; the last one is sick."""


def latency(scale: float) -> Callable[[Cell, int, int], float]:
    return lambda cell, number, visit: 0.01 * TIMES[cell.network.name] * scale


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A class of five cards, and one of two that is three times slower, each with all shards."""
    folder = tmp_path_factory.mktemp("machines")
    merged = []
    for name, scale, effects in (("NVIDIA H200", 1.0, EFFECTS), ("NVIDIA L4", 3.0, (1.0, 1.0))):
        shards = [
            shard_run(
                folder / f"{name}-{number}",
                number,
                len(effects),
                environment=machine(number, name),
                latency=latency(scale * effect),
            )
            for number, effect in enumerate(effects, 1)
        ]
        merged += archbench.merge(shards, out=folder / name)
    return [run.path for run in merged]


@pytest.fixture(scope="module")
def site(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archbench.site(runs, out=tmp_path_factory.mktemp("site") / "out")


def test_ratios_are_those_to_the_reference_on_the_same_device(site: Path) -> None:
    page = site.read_text()
    assert reference_of(SMALL, "cuda") == (
        "resnet18@batch_size=1,phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device=cuda"
    )
    for name, times in TIMES.items():
        row = re.search(rf"<tr><td>{name}@batch_size=1</td>(.*?)</tr>", page)
        assert row is not None
        assert re.findall(r">([\d.]+)<", row[1]) == [f"{times:.2f}"] * 2
    assert " ms<" not in page
    assert re.search(r"<td>5, 31(\.\d)?.% apart, 1 far from the others</td>", page)
    assert "<td>2, 0 % apart</td>" in page.replace("\xa0", " ")
    assert "Far from their class" in page


def test_each_run_has_its_report_and_a_file_that_is_what_the_index_says(site: Path, tmp_path: Path) -> None:
    place = site.parent
    page = (place / "index.html").read_text()
    links = re.findall(r'href="([^"#]+/[^"]+)"', page)
    assert len(links) == 4
    for link in links:
        assert (place / link).is_file()
    for file in place.glob("*/run.archbench"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page
        assert len(archbench.Run(file).machines) in (2, 5)
    again = archbench.site(sorted(place.glob("*/run.archbench")), out=tmp_path / "again")
    assert re.findall(r"<td.*?>[\d.]+</td>", again.read_text()) == re.findall(r"<td.*?>[\d.]+</td>", page)


def test_the_report_says_how_far_its_devices_differ_and_the_rows_of_the_sick_one_are_suspect(runs: list[Path]) -> None:
    text = archbench.report(runs[0])
    assert isinstance(text, str)
    apart = math.ceil((1.3 / 0.99 - 1) * 1000) / 10
    assert re.search(
        rf"These 5 devices of class NVIDIA H200 differ by {apart:.0f}(\.\d)? ?% \(2(\.\d)? ?% without", text
    ), text
    assert "Far from their class" in text
    assert "node05/GPU-00000005" in text.partition("Far from their class")[2].partition("\n")[0]
    assert "node01" not in text.partition("Far from their class")[2].partition("\n")[0]
    verdicts = {row.machine: (row.verdict, row.reasons) for row in archbench.Run(runs[0]).rows}
    assert verdicts.pop("node05/GPU-00000005") == ("suspect", ("far_from_class",))
    assert set(verdicts.values()) == {("ok", ())}
    assert {row.verdict for row in archbench.Run(runs[1]).rows} == {"ok"}
    both = archbench.report(runs[1])
    assert isinstance(both, str)
    assert "Of two devices nobody can say" in both


def test_the_command_writes_it_and_prints_its_index(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["site", *map(str, runs), "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    with pytest.raises(SystemExit) as ended:
        main(["site", str(tmp_path / "nothing"), "--out", str(tmp_path / "out2")])
    assert ended.value.code == 2
