"""What a budget is spent on, on plans whose cells take what the test says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_record, make_suite
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.device.kind import kind_named
from archbench.model.cell import Cell, Plan
from archbench.model.errors import UsageError
from archbench.suite import load_suite
from archbench.suite.budget import Piece, Spending, asked_first, refuse_unrankable
from archbench.suite.duration import Prediction, predict
from archbench.suite.plan import make_plan

SUITE = load_suite("suites/imagenet_backbones.yaml")
PLAN = make_plan(SUITE, "cpu")
PREDICTION = predict(PLAN, SUITE, kind_named("cpu").rates(2))


def spend(
    seconds: float,
    truth: Callable[[Cell], float] = lambda cell: 1.0,
    worth: Callable[[int, Cell], float] = lambda number, cell: 1.0,
    plan: Plan = PLAN,
    prediction: Prediction = PREDICTION,
) -> tuple[list[Piece], float, Spending]:
    """What is measured where cells take `truth` times what was predicted, and when the report stands."""
    spending, spent, pieces = Spending(plan, prediction, seconds), 0.0, []
    while (piece := spending.next(spent, worth)) is not None:
        pieces.append(piece)
        for cell in piece.group.cells:
            took = truth(cell) * prediction.visits[cell.cell_id, piece.round, piece.group.visit]
            spending.note(
                make_record(
                    cell_id=cell.cell_id, round=piece.round, visit=piece.group.visit, duration_s=took, status="ok"
                )
            )
            spent += took
    return pieces, spent + prediction.phases["report"], spending


def networks(pieces: list[Piece]) -> list[str]:
    return [piece.group.cells[0].network.label for piece in pieces]


def test_every_network_has_its_turn_before_any_has_two() -> None:
    pieces, _, _ = spend(300)
    labels = {one.label for one in SUITE.architectures}
    first = pieces[: len(labels)]
    assert set(networks(first)) == labels
    assert {(cell.batch_size, cell.phase, cell.precision) for one in first for cell in one.group.cells} == {
        (1, "inference", "fp32")
    }, "batch 4 has as many networks, and is dearer"


@pytest.mark.parametrize("minutes", [2, 5])
@pytest.mark.parametrize("pace", [0.7, 1.0, 1.4])
def test_a_budget_ends_on_time(minutes: int, pace: float) -> None:
    """With cells half as long or twice as long as expected, and all of them by a factor that has to be found out."""
    rng = random.Random(0)
    _, ended, _ = spend(60.0 * minutes, lambda cell: pace * rng.uniform(0.7, 1.4))
    assert 0.9 * 60 * minutes < ended < 1.05 * 60 * minutes


def test_more_time_than_it_takes_measures_everything_once() -> None:
    pieces, _, spending = spend(1e6)
    visits = [(cell.cell_id, one.round, one.group.visit) for one in pieces for cell in one.group.cells]
    assert sorted(visits) == sorted(PREDICTION.visits)
    assert spending.left_out == (0, 0.0)


def test_what_decides_comes_before_what_does_not() -> None:
    def worth(number: int, cell: Cell) -> float:
        return float(cell.phase == "training" and not number)

    pieces, _, _ = spend(1e6, worth=worth)
    rest = pieces[len(SUITE.architectures) :]
    training = [cell.phase == "training" and not one.round for one in rest for cell in one.group.cells]
    assert training[: sum(training)] == [True] * sum(training)
    assert sum(training) == 8


def test_where_not_all_networks_fit_the_most_do_and_what_is_left_is_told() -> None:
    pieces, ended, spending = spend(60)
    assert ended < 63
    assert "vgg16" not in networks(pieces)
    assert "mobilenet_v2" in networks(pieces)
    visits, seconds = spending.left_out
    assert visits == len(PREDICTION.visits) - sum(len(one.group.cells) for one in pieces)
    assert seconds == pytest.approx(sum(PREDICTION.visits.values()) - (ended - PREDICTION.phases["report"]), rel=0.05)


def test_a_network_that_lacks_the_usual_point_is_measured_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "suite: s\narchitectures: [resnet18, vgg16, alexnet]\ndevices: {cpu: ["
        "{architectures: [resnet18, vgg16], batch_size: [1, 8]}, {architectures: alexnet, batch_size: [2, 4]}]}"
    )
    suite = load_suite(file)
    plan = make_plan(suite, "cpu")
    first = asked_first(plan)
    assert {(cell.network.name, cell.batch_size) for cell in first} == {("resnet18", 1), ("vgg16", 1), ("alexnet", 2)}


@settings(max_examples=15, deadline=None)
@given(st.floats(20, 2000), st.integers(0, 2**32))
def test_nothing_is_measured_twice_and_nothing_is_lost(seconds: float, seed: int) -> None:
    worth = random.Random(seed)
    pieces, _, spending = spend(seconds, worth=lambda number, cell: worth.choice([0.0, 0.1, 1.0]))
    visits = [(cell.cell_id, one.round, one.group.visit) for one in pieces for cell in one.group.cells]
    assert len(visits) == len(set(visits))
    assert spending.left_out[0] + len(visits) == len(PREDICTION.visits)


def test_what_was_begun_and_has_no_row_counts_as_left_out() -> None:
    spending = Spending(PLAN, PREDICTION, 300)
    piece = spending.next(0.0, lambda number, cell: 1.0)
    assert piece is not None
    assert spending.given_up == piece.group.cells[0]
    visits, seconds = spending.left_out
    assert visits == len(PREDICTION.visits)
    assert seconds == pytest.approx(sum(PREDICTION.visits.values()))
    assert 300 - PREDICTION.phases["report"] < spending.until_s < 300 * 1.05 - PREDICTION.phases["report"]


def test_a_budget_shorter_than_any_cell_and_one_with_nothing_to_rank() -> None:
    with pytest.raises(UsageError, match=r"^--budget: not one cell fits into 3 s; the shortest takes about \d+ s"):
        spend(3)
    with pytest.raises(UsageError, match="--budget: suite example times nothing"):
        refuse_unrankable(make_suite(metrics=("static",)))
