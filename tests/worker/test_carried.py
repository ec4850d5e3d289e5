"""What is carried from one process of a run to the next."""

from __future__ import annotations

from builders import make_record
from msgspec import structs

from archbench.catalog.tables import counted_by_label, counted_with
from archbench.model.cell import Cell, Group, Network
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.messages import CellFinished
from archbench.session import CarriedFigures

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


def finished(cell: Cell, found: Carried) -> CellFinished:
    row = structs.replace(make_record(), variant=cell.network.label, group_id=cell.group_id)
    return CellFinished(record=row, found=found)


def test_counts_serve_every_group_of_a_network_and_memory_models_their_toggles() -> None:
    small = Cell(network=Network(name="resnet18"), batch_size=1)
    carried = CarriedFigures()
    assert carried.of(Group(cells=(small,))) == Carried()

    amp = structs.replace(small, precision="amp-bf16")
    carried.note(finished(small, Carried(counts=COUNTS, memory={small.group_id: MEMORY})))
    carried.note(finished(small, Carried()))  # the next row of the same process found nothing more
    larger = structs.replace(small, batch_size=8)
    training = structs.replace(small, phase="training")
    sized = structs.replace(small, network=Network(name="resnet18", input_size=64))
    assert carried.of(Group(cells=(larger,))) == Carried(counts=COUNTS, memory={small.group_id: MEMORY})
    assert carried.of(Group(cells=(small, amp))) == Carried(counts=COUNTS, memory={small.group_id: MEMORY})
    assert carried.of(Group(cells=(training,))) == Carried(counts=COUNTS)
    assert carried.of(Group(cells=(sized,))) == Carried()


def test_what_the_catalogue_has_counted_with_the_same_libraries_is_not_counted_again() -> None:
    group = Group(cells=(Cell(network=Network(name="resnet18"), batch_size=1),))
    lenet = Group(cells=(Cell(network=Network(name="lenet5"), batch_size=1),))
    sized = Group(cells=(Cell(network=Network(name="resnet18", input_size=64), batch_size=1),))
    alike = {**counted_with(), "torch": f"{counted_with()['torch']}+cu130"}
    known = CarriedFigures(versions=alike)
    assert known.of(group).counts == counted_by_label()["resnet18"].counts
    assert known.of(sized).counts is None
    known.note(finished(group.cells[0], Carried(counts=COUNTS)))
    assert known.of(group).counts == COUNTS  # what was counted here goes before
    other = CarriedFigures(versions={**alike, "torchvision": "0.1.0"})
    assert other.of(group).counts is None
    assert other.of(lenet).counts is not None  # archbench's own needs torch alone
    assert CarriedFigures(versions={**alike, "torch": None}).of(lenet).counts is None
