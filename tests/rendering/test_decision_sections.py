"""The decision matrix as a section: a table that answers, and for each situation the figures behind it."""

from __future__ import annotations

from pathlib import Path

from builders import make_run, make_suite
from decision_cells import row

from archbench.model.cell import Network
from archbench.model.suite import Decision
from archbench.rendering.content import Bullets, Code, Paragraph, Section, Table
from archbench.rendering.decisions import decisions
from archbench.rendering.run_data import read_run

ROWS = (
    row("resnet50", 0.020, top1=76.0, macs=4_000_000_000, peak_allocated_bytes=100 * 2**20),
    row("resnet101", 0.040, top1=78.0, macs=8_000_000_000, peak_allocated_bytes=150 * 2**20, verdict="suspect"),
    row("vgg16", 0.0201, top1=72.0),
    row("efficientnet_b4", 0.05, top1=83.0, input_size=380),
)


def section(root: Path, *asked: Decision) -> Section:
    suite = make_suite(architectures=tuple(Network(name=one.architecture) for one in ROWS), decisions=asked)
    found = decisions(read_run(make_run(root, ROWS, suite=suite)))
    assert found is not None
    return found


def test_the_matrix_and_a_situation(tmp_path: Path) -> None:
    asked = Decision(
        situation="High accuracy",
        minimize="latency_median",
        at_least={"top1": 76.5},
        baseline="resnet50",
        show=("macs", "peak_allocated"),
        usual_choice=("resnet101", "densenet121"),
        note="Depth costs.",
    )
    found = section(tmp_path, asked)
    (table,) = (block for block in found.blocks if isinstance(block, Table))
    assert table.headings == ("Situation", "Judged by", "Recommended", "Runner-up", "Usual choice", "Holds here")
    assert table.rows == (
        (
            "High accuracy",
            "smallest latency, inference, batch 1, fp32",
            "resnet101 ?, fp32",
            "efficientnet_b4 (380 px): 1.250x ±0.018 behind",
            "resnet101, densenet121",
            "holds",
        ),
    )
    (part,) = (block for block in found.blocks if isinstance(block, Section))
    assert part.title == "High accuracy"
    asked_for, verdict, *_ = (block.text for block in part.blocks if isinstance(block, Paragraph))
    assert asked_for == "Asked for: smallest latency_median, where `top1 >= 76.5`. Judged at batch 1."
    assert verdict == "Holds: resnet101 comes first."
    (figures,) = (block for block in part.blocks if isinstance(block, Table))
    assert figures.headings[:3] == ("Network", "Role", "Best under")
    assert [line[:2] for line in figures.rows] == [
        ("resnet101 ?", "recommended, usual"),
        ("efficientnet_b4 (380 px)", "runner-up"),
        ("resnet50", "baseline"),
    ]
    (bullets,) = (block for block in part.blocks if isinstance(block, Bullets))
    assert (
        "resnet101 against resnet50: top1 +2.0 points, macs +4.00 G, latency_median +20.0 ms, peak_allocated +50.0 MiB "
        "(0.50 points a GMAC)." in bullets.items
    )
    assert bullets.items[-1] == "Depth costs."
    codes = [block for block in part.blocks if isinstance(block, Code)]
    assert codes[0].text == "archbench run densenet121 --batch-size 1"
    assert codes[-1] == Code("model = torchvision.models.get_model('resnet101', weights='IMAGENET1K_V1')", "python")


def test_verdicts_in_words(tmp_path: Path) -> None:
    found = section(
        tmp_path,
        Decision(situation="tie", usual_choice=("vgg16",), minimize="latency_median"),
        Decision(situation="tie in bytes", usual_choice=("vgg16",), maximize="peak_allocated"),
        Decision(situation="behind", usual_choice=("resnet101",), minimize="latency_median"),
        Decision(situation="short", usual_choice=("vgg16",), at_least={"top1": 75}, minimize="latency_median"),
        Decision(situation="none", usual_choice=("alexnet",), minimize="latency_median"),
        Decision(
            situation="unmeasurable", usual_choice=("vgg16",), not_measurable="it depends.", minimize="latency_median"
        ),
        Decision(situation="no advice", minimize="latency_median"),
    )
    words = {part.title: part.blocks[1] for part in found.blocks if isinstance(part, Section)}
    assert words["tie"] == Paragraph(
        "Holds: vgg16 and resnet50 tie; `archbench duel resnet50@batch_size=1 vgg16@batch_size=1` settles it."
    )
    tie = words["tie in bytes"]
    assert isinstance(tie, Paragraph)
    assert "tie" in tie.text
    assert "duel" not in tie.text, "a duel is about time"
    assert words["behind"] == Paragraph("Does not hold: resnet101 is 2.00x ±0.03 behind (resnet50 comes first).")
    assert words["short"] == Paragraph("Does not hold: vgg16 falls short (top1 >= 75: 72.0 % (3.0 points off)).")
    assert words["none"] == Paragraph("Cannot be judged: of alexnet none was measured under these conditions.")
    assert words["unmeasurable"] == Paragraph("Cannot be judged: it depends.")
    assert isinstance(words["no advice"], Table)


def test_no_decisions_no_section(tmp_path: Path) -> None:
    assert decisions(read_run(make_run(tmp_path, ROWS, suite=make_suite()))) is None
