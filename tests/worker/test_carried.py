"""What is carried from one process of a run to the next."""

from __future__ import annotations

from builders import make_environment, make_record, make_suite
from msgspec import structs

from archbench.catalog.tables import counted_by_label, counted_with
from archbench.model.cell import Cell, Group, Network
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.messages import CellFinished
from archbench.session import Tasks

COUNTS = Counts(
    input_shape=(3, 8, 8),
    params=1,
    idle_params=0,
    buffers=0,
    macs=2,
    activations=3,
    weight_bytes=4,
    depth=1,
    uncounted=(),
    stages=(),
)
MEMORY = MemoryModel(lines=(), weight_bytes=4, input_bytes_per_image=1)
SUITE = make_suite()


def carried(tasks: Tasks, group: Group) -> Carried:
    return tasks.of(group, make_environment()).carried


def finished(cell: Cell, found: Carried) -> CellFinished:
    row = structs.replace(make_record(), variant=cell.network.label, group_id=cell.group_id)
    return CellFinished(record=row, found=found)


def test_counts_serve_every_group_of_a_network_and_memory_models_their_toggles() -> None:
    small = Cell(network=Network(name="resnet18"), batch_size=1)
    tasks = Tasks(SUITE, "r")
    assert carried(tasks, Group(cells=(small,))) == Carried()

    amp = structs.replace(small, precision="amp-bf16")
    tasks.note(finished(small, Carried(counts=COUNTS, memory={small.group_id: MEMORY})))
    tasks.note(finished(small, Carried()))  # the next row of the same process found nothing more
    larger = structs.replace(small, batch_size=8)
    training = structs.replace(small, phase="training")
    sized = structs.replace(small, network=Network(name="resnet18", input_size=64))
    assert carried(tasks, Group(cells=(larger,))) == Carried(counts=COUNTS, memory={small.group_id: MEMORY})
    assert carried(tasks, Group(cells=(small, amp))) == Carried(counts=COUNTS, memory={small.group_id: MEMORY})
    assert carried(tasks, Group(cells=(training,))) == Carried(counts=COUNTS)
    assert carried(tasks, Group(cells=(sized,))) == Carried()


def test_what_the_catalogue_has_counted_with_the_same_libraries_is_not_counted_again() -> None:
    group = Group(cells=(Cell(network=Network(name="resnet18"), batch_size=1),))
    lenet = Group(cells=(Cell(network=Network(name="lenet5"), batch_size=1),))
    sized = Group(cells=(Cell(network=Network(name="resnet18", input_size=64), batch_size=1),))
    alike = {**counted_with(), "torch": f"{counted_with()['torch']}+cu130"}
    known = Tasks(SUITE, "r", versions=alike)
    assert carried(known, group).counts == counted_by_label()["resnet18"].counts
    assert carried(known, sized).counts is None
    known.note(finished(group.cells[0], Carried(counts=COUNTS)))
    assert carried(known, group).counts == COUNTS  # what was counted here goes before
    other = Tasks(SUITE, "r", versions={**alike, "torchvision": "0.1.0"})
    assert carried(other, group).counts is None
    assert carried(other, lenet).counts is not None  # archbench's own needs torch alone
    assert carried(Tasks(SUITE, "r", versions={**alike, "torch": None}), lenet).counts is None
