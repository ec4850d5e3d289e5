"""Every command that prints for people, on screens of four widths: what is shown of a number is all of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_record, make_run
from msgspec.structs import asdict
from test_profile_report import profile

import archbench
import archbench.api
from archbench.choose.profile_difference import Compared, difference
from archbench.cli import main
from archbench.comparison.gate import Duel
from archbench.model.comparison import CellComparison, CellVerdict, Figures, Why
from archbench.rendering.content import Report
from archbench.rendering.text import render_terminal

ROOT = Path(__file__).parents[2]
STORED = next((ROOT / "results" / "imagenet_backbones").iterdir())
NUMBER = re.compile(r"\d[\d.,]*\d|\d")
WIDTHS = (60, 80, 100, 140)


def two_runs(root: Path) -> tuple[Path, Path]:
    """A run and a later one, in which one network of two takes 12.5 % longer."""
    runs = []
    for day, factor in (("2025-01-02", 1.0), ("2025-02-03", 1.125)):
        rows = [
            make_record(
                variant=name,
                architecture=name,
                cell_id=f"{name}@batch_size=1,phase=inference,precision=fp32",
                started_at=f"{day}T03:00:00.000+00:00",
                run_id=day,
                latency_median_s=0.0232 * slower,
                latency_ci_low_s=0.0230 * slower,
                latency_ci_high_s=0.0234 * slower,
            )
            for name, slower in (("resnet50", factor), ("wide_resnet101_2[input_size=320,num_classes=1234]", 1.0))
        ]
        runs.append(make_run(root / day, rows))
    return runs[0], runs[1]


def a_duel(*_: object, **__: object) -> Duel:
    ends: list[tuple[str, float, float | None, float | None, CellVerdict]] = [
        ("vgg16_bn", 0.1234567, 9.87654, 10.12345, "slower"),
        ("mobilenet_v3_large", 0.0122222, None, None, "undecided"),
    ]
    rivals = [
        CellComparison(
            cell_id=f"{name}@batch_size=16,phase=training,precision=amp-bf16,compile_mode=default",
            architecture=name,
            variant=name,
            why=Why("shown", ""),
            base=Figures(latency_s=0.0123456),
            head=Figures(latency_s=time),
            ratio=time / 0.0123456,
            ci_low=low,
            ci_high=high,
            verdict=verdict,
            p=0.01,
        )
        for name, time, low, high, verdict in ends
    ]
    return Duel(
        baseline="resnet50@batch_size=16,phase=training,precision=amp-bf16,compile_mode=default", baseline_s=0.0123456,
        rivals=tuple(rivals), pairs=8, turns=16, hardware_class="AMD EPYC 9654 x2", torch_version="2.14.1+cpu",
        contended_share=0.125, alternated=True, duration_s=1234.5, log_ratios=((0.1,), (0.2,)),
    )  # fmt: skip


def printed(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[Report]:
    """What a command hands to whoever prints on a terminal; nothing else may reach it but a path to copy."""
    caught: list[Report] = []
    monkeypatch.setattr("archbench.rendering.text.print_report", caught.append)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr()
    assert caught, said.err
    assert [line for line in said.out.splitlines() if not line.startswith("report: ")] == []
    return caught


Prepare = Callable[[Path, pytest.MonkeyPatch], list[str]]


def prepared(words: list[str], **fakes: object) -> Prepare:
    """A command whose measuring is done: what stands for it gives known figures."""

    def prepare(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        for place, value in fakes.items():
            monkeypatch.setattr(place.replace("__", "."), lambda *_, value=value, **__: value)
        return words

    return prepare


def compare(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    return ["compare", *map(str, two_runs(root))]


def gate(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = archbench.compare(*two_runs(root))
    return prepared(["gate", "x.yaml", "--base", "."], archbench__gating__gate=found)(root, monkeypatch)


def history(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    two_runs(root)
    return ["history", str(root)]


COMMANDS: dict[str, Prepare] = {
    "list": prepared(["list"]),
    "show": prepared(["show", "densenet121"]),
    "plan": prepared(["plan", str(ROOT / "suites" / "imagenet_backbones.yaml"), "--device", "cpu", "--predict"]),
    "pick": prepared(["pick", str(STORED), "--where", "top1 >= 76", "--across", "precision", "--top", "30"]),
    "pick, a front": prepared(["pick", str(STORED), "--minimize", "latency_median", "--maximize", "top1"]),
    "run": prepared(["run", "resnet50"], archbench__api__run=archbench.Run(STORED)),
    "compare": compare,
    "gate": gate,
    "duel": prepared(["duel", "a", "b"], archbench__gating__duel=a_duel()),
    "history": history,
    "profile": prepared(["profile", "x"], archbench__profiling__profile=profile()),
    "profile, against another": prepared(
        ["profile", "x", "--against", "y"],
        archbench__profiling__profile=Compared(
            **asdict(profile()), against=profile(), difference=difference(profile(), profile())
        ),
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_number_is_cut_on_any_screen(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = COMMANDS[name](tmp_path, monkeypatch)
    for report in printed(words, monkeypatch, capsys):
        whole = set(NUMBER.findall(render_terminal(report)))
        for width in WIDTHS:
            shown = render_terminal(report, width)
            assert set(NUMBER.findall(shown)) <= whole, width
            for line in shown.splitlines():
                too_long = max(map(len, line.split()), default=0) > width - 16
                assert len(line) <= width or too_long, f"the screen would cut this line where it likes: {line}"


@pytest.mark.parametrize("words", [["list"], ["show", "resnet50"]])
def test_a_screen_is_as_wide_as_it_says(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    widest: list[int] = []
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit):
            main(words)
        widest.append(max(map(len, capsys.readouterr().out.splitlines())))
    assert all(found <= width for found, width in zip(widest, WIDTHS, strict=True))
    assert widest[0] < widest[-1]
