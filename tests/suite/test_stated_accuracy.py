"""An accuracy that a suite states: in rows and decisions, in no identity, and never a reason to measure anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import make_record, make_run

import archbench
from archbench.catalog import facts
from archbench.model.cell import Cell
from archbench.model.suite import Suite
from archbench.results import suite_hash
from archbench.suite import load_suite, suite_from_names

STATED = {"top1": 81.2, "top5": 95.6, "source": "our training, run 17", "dataset": "imagenet"}
PLAIN = "suite: mine\narchitectures:\n- {name: 'my.models:net'}\n- timm:resnet50d\n- resnet50\n"
WITH = PLAIN.replace(
    "net'}", "net', accuracy: {top1: 81.2, top5: 95.6, source: 'our training, run 17', dataset: imagenet}}"
)


def suite_of(text: str, folder: Path) -> Suite:
    (folder / "s.yaml").write_text(text)
    return load_suite(folder / "s.yaml", allow_code=True)


def test_it_is_in_the_facts_and_in_no_identity(tmp_path: Path) -> None:
    plain, stated = suite_of(PLAIN, tmp_path), suite_of(WITH, tmp_path)
    known = facts(stated.architectures[0])
    assert (known.top1, known.top5, known.accuracy_source) == (81.2, 95.6, "our training, run 17")
    assert known.accuracy_dataset == "ImageNet", "spelt as the catalogue has it, for they are ranked together"
    one, other = (Cell(network=suite.architectures[0], batch_size=1) for suite in (plain, stated))
    assert (one.cell_id, one.group_id) == (other.cell_id, other.group_id)
    assert suite_hash(plain) == suite_hash(stated), "a run goes on where its suite states an accuracy later"


def test_what_is_stated_goes_before_what_is_published_and_from_python_too() -> None:
    suite = suite_from_names([{"name": "resnet50", "accuracy": {**STATED, "dataset": "our images"}}])
    known = facts(suite.architectures[0])
    assert (known.top1, known.accuracy_dataset) == (81.2, "our images")


def test_rows_that_were_measured_before_it_was_stated_are_picked_by_it(tmp_path: Path) -> None:
    rows = [
        make_record(
            architecture=name,
            variant=name,
            cell_id=f"{name}@",
            top1=top1,
            top5=None,
            accuracy_source=top1 and "torchvision",
            input_size=224,
        )
        for name, top1 in (("my.models:net", None), ("timm:resnet50d", None), ("resnet50", 76.13))
    ]
    before = archbench.pick(make_run(tmp_path / "before", rows, suite=suite_of(PLAIN, tmp_path)), where="top1 >= 75")
    assert [one.network for one in before.rankings[0].choices] == ["resnet50"]
    assert {miss.unmeasured for out in before.rankings[0].left_out for miss in out.misses} == {"archbench knows none"}

    run = make_run(tmp_path / "after", rows, suite=suite_of(WITH, tmp_path))
    (ranking,) = archbench.pick(run, where="top1 >= 75", maximize="top1").rankings
    assert [(one.network, one.figures[0].value) for one in ranking.choices] == [
        ("my.models:net", 81.2),
        ("resnet50", 76.13),
    ]
    assert "our training, run 17: my.models:net." in ranking.accuracies
    assert [out.network for out in ranking.left_out] == ["timm:resnet50d"]
    frame = archbench.summary(run).set_index("variant")
    assert frame.loc["my.models:net", "top5"] == pytest.approx(95.6)
