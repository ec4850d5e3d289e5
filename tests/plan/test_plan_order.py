"""Groups, rounds, the twin's visits, and what is left after an interruption."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.model.axes import PRECISIONS
from archbench.model.cell import Cell, Network, Plan
from archbench.model.suite import Axes, Suite
from archbench.suite.plan import make_plan, remaining

NAMES = ("resnet18", "resnet50", "densenet121", "vgg16", "mobilenet_v2", "alexnet")


def some(strategy: Any, most: int = 4) -> Any:
    return st.lists(strategy, min_size=1, max_size=most, unique=True).map(tuple)


suites = st.builds(
    Suite,
    suite=st.just("s"),
    architectures=some(st.sampled_from([Network(name=name) for name in NAMES]), 6),
    axes=st.builds(
        Axes,
        batch_size=some(st.integers(1, 512)),
        phase=some(st.sampled_from(("inference", "training"))),
        precision=some(st.sampled_from(("fp32", "tf32", "amp-bf16", "bf16"))),
        compile_mode=some(st.sampled_from(("off", "default", "reduce-overhead"))),
    ),
    rounds=st.integers(1, 3),
    seed=st.integers(0, 5),
    twin=st.one_of(st.none(), st.sampled_from(NAMES)),
)


def visits(plan: Plan) -> Counter[tuple[str, int, int]]:
    return Counter(
        (cell.cell_id, number, group.visit)
        for number, groups in enumerate(plan.rounds)
        for group in groups
        for cell in group.cells
    )


@settings(max_examples=150, deadline=None)
@given(suite=suites, device=st.sampled_from(["cpu", "cuda"]))
def test_every_cell_once_a_round_in_homogeneous_ascending_groups(suite: Suite, device: Any) -> None:
    plan = make_plan(suite, device)
    axes = suite.axes
    product = len(suite.architectures)
    for axis in (axes.batch_size, axes.phase, axes.precision, axes.compile_mode):
        product *= len(axis or ())
    assert len(plan.cells) + len(plan.skipped) == product

    assert len(plan.rounds) == suite.rounds
    assert set(visits(plan).values()) <= {1}
    for groups in plan.rounds:
        firsts = [group for group in groups if group.visit == 0]
        assert {cell.cell_id for group in firsts for cell in group.cells} == {cell.cell_id for cell in plan.cells}
        for group in groups:
            # Where nothing is compiled, fp32, TF32 and AMP run in one process; each row keeps a group id of its own.
            alike = {(cell.network, cell.phase, cell.compile_mode, cell.memory_format) for cell in group.cells}
            precisions = {cell.precision for cell in group.cells}
            assert len(alike) == 1
            assert len(precisions) == 1 or group.cells[0].compile_mode == "off"
            assert not precisions & {"bf16", "fp16"} or len(precisions) == 1
            order = [(cell.batch_size, PRECISIONS.index(cell.precision)) for cell in group.cells]
            assert order == sorted(set(order))
        assert len({group.group_id for group in firsts}) == len(firsts)


@settings(max_examples=100, deadline=None)
@given(suite=suites)
def test_the_twin_comes_first_in_the_middle_and_last(suite: Suite) -> None:
    plan = make_plan(suite, "cuda")
    for groups in plan.rounds:
        again = [position for position, group in enumerate(groups) if group.visit > 0]
        if suite.twin not in {network.name for network in suite.architectures}:
            assert again == []
            continue
        middle, last = again
        twin = groups[0]
        assert twin.cells[0].network.name == suite.twin
        again_cells = tuple(cell for cell in twin.cells if cell.group_id == twin.cells[0].group_id)
        assert [groups[middle].cells, groups[last].cells] == [again_cells, again_cells]
        assert [groups[middle].visit, groups[last].visit] == [1, 2]
        assert last == len(groups) - 1
        assert abs((middle - 1) - (last - middle - 1)) <= 1


@settings(max_examples=60, deadline=None)
@given(suite=suites, order=st.randoms(use_true_random=False))
def test_the_order_depends_on_the_seed_and_on_nothing_else(suite: Suite, order: Any) -> None:
    shuffled = list(suite.architectures)
    order.shuffle(shuffled)
    fields = {name: getattr(suite, name) for name in Suite.__struct_fields__}
    other = Suite(**(fields | {"architectures": tuple(shuffled)}))

    def sequence(one: Suite) -> list[list[tuple[str, int]]]:
        return [[(group.group_id, group.visit) for group in groups] for groups in make_plan(one, "cuda").rounds]

    assert sequence(other) == sequence(suite)
    assert make_plan(suite, "cuda") == make_plan(suite, "cuda")


def test_rounds_and_seeds_differ_in_their_order() -> None:
    suite = Suite(
        suite="s",
        architectures=tuple(Network(name=name) for name in NAMES),
        axes=Axes(precision=("fp32", "bf16", "fp16")),
        rounds=3,
    )
    orders = [tuple(group.group_id for group in groups) for groups in make_plan(suite, "cpu").rounds]
    assert len(set(orders)) == 3
    # Known once and for all: a resumed run has to find the order of the run that it continues.
    assert orders[0][:2] == PINNED
    fields = {name: getattr(suite, name) for name in Suite.__struct_fields__}
    other = make_plan(Suite(**(fields | {"seed": 1})), "cpu")
    assert tuple(group.group_id for group in other.rounds[0]) not in orders


PINNED = (
    "mobilenet_v2@phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device=cpu",
    "vgg16@phase=inference,precision=fp32,compile_mode=off,memory_format=contiguous,device=cpu",
)


def test_the_twin_is_the_first_of_its_groups_and_prefers_its_label() -> None:
    efficient = Network(name="densenet121", options={"memory_efficient": True})
    suite = Suite(
        suite="s",
        architectures=(efficient, Network(name="densenet121"), Network(name="vgg16")),
        axes=Axes(phase=("training", "inference"), precision=("bf16", "fp32")),
        twin="densenet121",
    )
    groups = make_plan(suite, "cpu").rounds[0]
    first = groups[0].cells[0]
    assert (first.network.label, first.phase, first.precision) == ("densenet121", "training", "bf16")
    assert [group.visit for group in groups if group.visit] == [1, 2]


def test_a_twin_filtered_away_is_missed_by_nobody() -> None:
    suite = Suite(suite="s", architectures=(Network(name="vgg16"), Network(name="resnet18")), twin="vgg16")
    assert {group.visit for group in make_plan(suite, "cpu", only=["resnet18"]).rounds[0]} == {0}
    alone = make_plan(suite, "cpu", only=["vgg16"]).rounds[0]
    assert [group.visit for group in alone] == [0, 1, 2]


@settings(max_examples=100, deadline=None)
@given(suite=suites, choice=st.randoms(use_true_random=False))
def test_remaining_and_finished_make_the_plan(suite: Suite, choice: Any) -> None:
    plan = make_plan(suite, "cpu")
    everything = sorted(visits(plan))
    finished = set(choice.sample(everything, choice.randint(0, len(everything))))
    left = remaining(plan, finished)
    assert visits(left).keys() | finished == set(everything)
    assert visits(left).keys() & finished == set()
    assert len(left.rounds) == len(plan.rounds)  # a round keeps its number
    assert left.skipped == plan.skipped
    assert all(group.cells for groups in left.rounds for group in groups)
    for before, after in zip(plan.rounds, left.rounds, strict=True):
        order = [(group.group_id, group.visit) for group in before]
        places = [order.index((group.group_id, group.visit)) for group in after]
        assert places == sorted(places)


def test_nothing_remains_of_a_finished_plan_and_strangers_change_nothing() -> None:
    suite = Suite(suite="s", architectures=(Network(name="vgg16"),), rounds=2, twin="vgg16")
    plan = make_plan(suite, "cpu")
    assert remaining(plan, visits(plan).keys()).rounds == ((), ())
    elsewhere = Cell(network=Network(name="vgg16"), batch_size=2).cell_id
    assert remaining(plan, {(elsewhere, 0, 0), (plan.cells[0].cell_id, 7, 0)}) == plan


@pytest.mark.parametrize("rounds", [1, 4])
def test_rounds_asked_for_go_before_the_suites(rounds: int) -> None:
    suite = Suite(suite="s", architectures=(Network(name="vgg16"),), rounds=2)
    assert len(make_plan(suite, "cpu", rounds=rounds).rounds) == rounds


def test_a_suite_that_names_no_rounds_visits_every_eager_group_twice_on_a_cpu() -> None:
    suite = Suite(
        suite="s",
        architectures=tuple(Network(name=name) for name in NAMES),
        axes=Axes(batch_size=(1, 4), compile_mode=("off", "default")),
        twin="resnet18",
    )
    plan = make_plan(suite, "cpu")
    assert plan.short
    assert {cell.batch_size for group in plan.rounds[1] for cell in group.cells} == {1}
    once, again = ([(group.group_id, group.visit) for group in groups] for groups in plan.rounds)
    twin = make_plan(suite, "cpu", only=["resnet18@compile_mode=off"]).rounds[0][0].group_id
    eager = {group.group_id for group in plan.rounds[0] if group.cells[0].compile_mode == "off"}
    assert len(once) == 2 * len(NAMES) + 2
    assert {group for group, visit in once if visit} == {twin}
    assert sorted(again) == sorted((group, 0) for group in eager)  # the twin's too, as one among them
    assert [group for group, _ in again] != [group for group, visit in once if group in eager and not visit]

    assert len(make_plan(suite, "cuda").rounds) == 1
    assert len(make_plan(suite, "cpu", rounds=1).rounds) == 1
    named = make_plan(suite, "cpu", rounds=3)
    assert not named.short
    assert {len(groups) for groups in named.rounds} == {2 * len(NAMES) + 2}
    untimed = msgspec.structs.replace(suite, metrics=("static", "memory"))
    assert len(make_plan(untimed, "cpu").rounds) == 1
