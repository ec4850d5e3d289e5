"""What a cell could still decide, held against rankings whose order is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders import make_environment, make_suite
from decision_cells import candidates_of, row

from archbench.choose.matrix import MAY_WIN, SLIGHT, worths
from archbench.model.cell import Cell, Network
from archbench.model.record import Record
from archbench.model.suite import Axes, Decision, Suite

NAMES = ("resnet50", "vgg16", "alexnet", "densenet121")
CELLS = tuple(Cell(network=Network(name=name), batch_size=1) for name in NAMES)
TRAINING = Cell(network=Network(name="resnet50"), batch_size=1, phase="training")


def asking(**decision: Any) -> Suite:
    asked = Decision(**{"situation": "X", "minimize": "latency_median", **decision})
    return make_suite(architectures=tuple(Network(name=name) for name in NAMES), axes=Axes(), decisions=(asked,))


def worth(root: Path, suite: Suite, *rows: Record) -> dict[tuple[bool, str], float]:
    found = worths(suite, candidates_of(root, *rows, suite=suite), (*CELLS, TRAINING), make_environment())
    short = {cell.cell_id: f"{cell.network.name}/{cell.phase}" for cell in (*CELLS, TRAINING)}
    return {(again, short[cell_id]): value for (again, cell_id), value in found.items()}


def test_another_cell_of_a_network_counts_as_far_as_the_network_may_still_win(tmp_path: Path) -> None:
    rows = [row("resnet50", 0.010), row("vgg16", 0.010 * MAY_WIN * 1.1), row("alexnet", 0.010 * MAY_WIN / 1.1)]
    found = worth(tmp_path, asking(), *rows)
    assert found[False, "vgg16/inference"] == SLIGHT, "clearly behind"
    assert found[False, "alexnet/inference"] == 1.0
    assert found[False, "densenet121/inference"] == 1.0, "it has no place yet"


def test_another_visit_counts_for_those_that_tie_alone(tmp_path: Path) -> None:
    tied = worth(tmp_path / "tied", asking(), row("resnet50", 0.010), row("vgg16", 0.0101), row("alexnet", 0.02))
    assert [tied[True, f"{name}/inference"] for name in NAMES] == [1.0, 1.0, 0.0, 0.0]
    clear = worth(tmp_path / "clear", asking(), row("resnet50", 0.010), row("vgg16", 0.02))
    assert not any(clear[True, f"{name}/inference"] for name in NAMES)


def test_what_cannot_satisfy_a_condition_decides_nothing(tmp_path: Path) -> None:
    """vgg16 has a published top-1 of 71.6 %, alexnet of 56.5; no row of either is needed to know it."""
    suite = asking(where=("phase == 'inference'", "latency_median <= 1s"), at_least={"top1": 74})
    found = worth(tmp_path, suite, row("resnet50", 0.010))
    assert [found[False, f"{name}/inference"] for name in NAMES] == [1.0, 0.0, 0.0, 1.0]
    assert found[False, "resnet50/training"] == 0.0


def test_a_usual_choice_is_looked_at_however_far_behind_it_is(tmp_path: Path) -> None:
    found = worth(tmp_path, asking(usual_choice=("vgg16",)), row("resnet50", 0.010), row("vgg16", 0.1))
    assert found[False, "vgg16/inference"] == 1.0


def test_without_decisions_the_question_is_which_is_fastest(tmp_path: Path) -> None:
    suite = make_suite(architectures=tuple(Network(name=name) for name in NAMES), decisions=())
    found = worth(tmp_path, suite, row("resnet50", 0.010), row("vgg16", 0.05))
    assert found[False, "vgg16/inference"] == SLIGHT
    assert found[False, "densenet121/inference"] == 1.0


def test_a_condition_on_what_no_row_has_by_itself_excludes_nothing(tmp_path: Path) -> None:
    """`settings_failed` is counted over a network's rows: no cell has it before the others are measured."""
    where = ("phase == 'inference'", "settings_failed == 0", "top1 >= 74")
    found = worth(tmp_path, asking(where=where), row("resnet50", 0.010))
    # Published accuracies do exclude vgg16 and alexnet, and the phase the training cell.
    assert [found[False, f"{name}/inference"] for name in NAMES] == [1.0, 0.0, 0.0, 1.0]
    assert found[False, "resnet50/training"] == 0.0
