"""A comparison's lines for GitHub: errors, warnings and the verdict, escaped, and no more than are shown."""

from __future__ import annotations

from typing import Any

from archbench.model.comparison import CellComparison, Comparison, CountedDifference, Figures, Side, SuiteLines, Why
from archbench.rendering.comparison_formats import render_comparison

SIDE = Side(label="x", hardware_class="AMD x2", protocol_version=1)


def cell(name: str, verdict: Any, sentence: str = "3.1 % slower, beyond the floor") -> CellComparison:
    return CellComparison(
        cell_id=f"{name}@batch_size=1,phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device=cpu",
        architecture=name,
        variant=name,
        verdict=verdict,
        why=Why("shown", sentence),
        base=Figures(),
        head=Figures(),
        ratio=1.03,
    )


def finding(name: str, *, fails: bool) -> CountedDifference:
    cell_id = cell(name, "same").cell_id
    return CountedDifference(cell_id=cell_id, column="macs", base=1.0, head=2.0, what="macs 1 → 2", fails=fails)


def lines(*cells: CellComparison, findings: tuple[CountedDifference, ...] = ()) -> list[str]:
    made = Comparison(kind="turns", base=SIDE, head=SIDE, cells=cells, findings=findings)
    return render_comparison(made, "annotations").splitlines()


def test_what_fails_is_an_error_and_what_is_open_a_warning():
    told = lines(
        cell("resnet18", "same"),
        cell("vgg16", "slower"),
        cell("alexnet", "faster"),
        cell("lenet5", "undecided"),
        findings=(finding("resnet18", fails=True), finding("vgg16", fails=False)),
    )
    assert told[:3] == [
        "::error title=vgg16::batch_size=1: slower, 3.1 %25 slower, beyond the floor",
        "::error title=resnet18::batch_size=1: macs 1 → 2",
        "::warning title=lenet5::batch_size=1: undecided, 3.1 %25 slower, beyond the floor",
    ]
    verdict = "::notice title=archbench::Regressed: vgg16 (time +3.0 %25), resnet18 (macs +100.0 %25): 1 slower"
    assert told[3].startswith(verdict)
    assert len(told) == 4


def test_a_message_cannot_become_a_command_of_its_own():
    (error, _) = lines(cell("my:net,x", "slower", "100 %\r\n::set-output name=a::b"))
    assert error == "::error title=my%3Anet%2Cx::batch_size=1: slower, 100 %25%0D%0A::set-output name=a::b"


def test_a_networks_findings_are_one_annotation_at_its_line_of_the_suite():
    made = Comparison(
        kind="turns",
        base=SIDE,
        head=SIDE,
        cells=(cell("vgg16", "slower"),),
        findings=(finding("vgg16", fails=True), finding("resnet18", fails=True)),
        suite_file=SuiteLines(path="suites/a,b.yaml", lines={"vgg16": 7}),
    )
    first, second, _ = render_comparison(made, "annotations").splitlines()
    assert first == (
        "::error file=suites/a%2Cb.yaml,line=7,title=vgg16::batch_size=1: slower, 3.1 %25 slower, beyond the floor"
        "%0Abatch_size=1: macs 1 → 2"
    )
    assert second.startswith("::error file=suites/a%2Cb.yaml,line=1,title=resnet18::"), "a network that is not found"


def test_no_more_than_github_shows_and_the_rest_is_counted():
    ten = lines(*(cell(f"net{n}", "slower") for n in range(10)))
    assert sum(line.startswith("::error") for line in ten) == 10
    many = [line for line in lines(*(cell(f"net{n}", "slower") for n in range(300))) if line.startswith("::error")]
    assert len(many) == 10
    assert many[-1] == "::error title=archbench::291 more networks; the step summary has all"
