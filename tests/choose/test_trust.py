"""What a run says of its own figures: one statement for every kind of run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builders import make_record, make_run
from msgspec import structs

from archbench.choose.candidates import read_candidates
from archbench.model.record import Record
from archbench.rendering.run_data import read_run, write_summary

NAMES = ("resnet18", "resnet50", "vgg16", "alexnet", "googlenet", "densenet121")


def measured(name: str, times: Sequence[float], **fields: object) -> list[Record]:
    """One row a process, with an own interval of 1 %."""
    return [
        make_record(
            cell_id=f"{name}@batch_size=1",
            variant=name,
            architecture=name,
            round=number,
            canary_s=None,
            latency_median_s=time,
            latency_ci_low_s=time / 1.005,
            latency_ci_high_s=time * 1.005,
            **fields,
        )
        for number, time in enumerate(times)
    ]


def statement(root: Path, rows: Sequence[Record]) -> str:
    """The same wherever it stands: in the report's data, and in what decisions see."""
    path = make_run(root, rows, timings=False)
    (trust,) = read_candidates([path]).trust.values()
    assert trust == read_run(path).trust
    return trust.statement


def test_a_run_of_several_visits_says_from_where_on_networks_differ(tmp_path: Path) -> None:
    rows = [row for name in NAMES for row in measured(name, [0.01, 0.0101])]
    said = statement(tmp_path, rows)
    # sd 0.70 %, t of six degrees 2.447, the median of two, and two networks: 2.447 x 0.0070 = 1.7 %.
    assert said == (
        "Two networks that differ by more than 1.7 % differ; nearer ones may be equal. "
        "Known from 6 groups of cells that more than one process measured."
    )


def test_a_machine_that_changes_its_speed_half_way_makes_nothing_less_sure(tmp_path: Path) -> None:
    """All second visits take half as long again, and so does the canary beside them."""

    def at(speed: float) -> list[Record]:
        rows = [row for name in NAMES for row in measured(name, [0.01, 0.0101 * speed])]
        return [structs.replace(row, canary_s=1e-3 * (speed if row.round else 1.0)) for row in rows]

    steady, changing = statement(tmp_path / "steady", at(1.0)), statement(tmp_path / "changing", at(1.5))
    assert steady == changing
    assert "more than 1.7 % differ" in changing


def test_a_cell_that_a_neighbour_sat_on_is_named_and_does_not_widen_the_others(tmp_path: Path) -> None:
    rows = [row for name in NAMES[1:] for row in measured(name, [0.01, 0.0101])]
    said = statement(tmp_path, [*rows, *measured(NAMES[0], [0.01, 0.05])])
    assert "differ, but for 1 cell whose own ± is much wider; nearer" in said
    assert float(said.partition("more than ")[2].partition(" %")[0]) < 12


def test_a_run_stored_with_visits_of_its_twin_alone_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [row for name in NAMES[1:] for row in measured(name, [0.01])]
    said = statement(tmp_path, [*rows, *measured(NAMES[0], [0.01, 0.0101, 0.0102])])
    # sd 1.0 %, t of two degrees 4.30: 4.3 % of five networks visited once, two thirds of that of the twin.
    assert said.startswith("Two networks that differ by more than 5.9 % differ;")
    assert said.endswith("Known from one network that more than one process measured.")


def test_one_process_everywhere_says_what_is_not_known(tmp_path: Path) -> None:
    said = statement(tmp_path, [row for name in NAMES for row in measured(name, [0.01])])
    assert "how far processes differ is not known, nor which differences are real" in said
    assert "%" not in said


def test_one_cell_all_invalid_and_a_machine_beside_itself(tmp_path: Path) -> None:
    assert "the one cell would come out up to" in statement(tmp_path / "one", measured("vgg16", [0.01, 0.011, 0.0105]))
    rows = measured("vgg16", [0.01, 0.011], verdict="invalid")
    assert statement(tmp_path / "invalid", rows) == "No figure is fit to be compared."
    wild = [row for name in NAMES for row in measured(name, [0.01, 3.0])]
    assert statement(tmp_path / "wild", wild).startswith("The machine was too restless to tell any two networks apart.")
    rough = [row for name in NAMES for row in measured(name, [0.01, 0.02])]
    assert "differ by more than a factor of " in statement(tmp_path / "rough", rough)


def test_earlier_runs_on_the_same_hardware_have_a_part_and_are_named(tmp_path: Path) -> None:
    def run(day: int, times: Sequence[float], **fields: object) -> Path:
        begun = {"started_at": f"2026-01-{day:02d}T00:00:00.000+00:00", "run_id": f"run{day}", **fields}
        rows = [row for name in NAMES for row in measured(name, times, **begun)]
        path = make_run(tmp_path / "made" / str(day), rows, timings=False)
        path = path.rename(tmp_path / f"run{day}")
        write_summary(read_run(path))
        return path

    for day in (1, 2, 3):
        run(day, [0.01, 0.01 * 1.01**day])
    run(4, [0.01, 0.03], hardware_class="another")
    later = read_run(run(5, [0.01])).trust
    assert later.statement.startswith("Two networks that differ by more than")
    assert "Every cell was measured by one process; how far processes differ is known from 3 earlier" in later.statement
    both = read_run(run(6, [0.01, 0.0101])).trust
    assert "6 groups of cells that more than one process measured and 3 earlier runs on this hardware" in both.statement
    first = read_run(tmp_path / "run1").trust
    assert "earlier" not in first.statement, "a run learns from those before it, and its report never changes"
    assert both.apart is not None
    assert later.apart is not None
    assert both.apart < later.apart
