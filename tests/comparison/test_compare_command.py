"""`archbench compare` as a user calls it: exit codes, places to write, and mistakes in one clear line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from builders import make_environment, make_record, make_run, make_suite
from compare_sides import cell, measured, times, twin

from archbench.cli import main
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.model.record import SCHEMA_VERSION, Record
from archbench.results.journal import VERSION_KEY

STEADY = times(0.010, 6, 0.003, seed=1)
SIDES = (("one", 0.010, 1), ("other", 0.011, 2))


def run(place: Path, rows: Sequence[Record], **environment: str) -> Path:
    machine = make_environment(**environment)
    taken = [msgspec.structs.replace(row, torch_version=machine.torch_version) for row in rows]
    return make_run(place, taken, suite=make_suite(axes=make_suite().axes), environment=machine)


def compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["compare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return run(tmp_path / "base", [*twin(0.01, cell("resnet18")), *measured(STEADY)])


@pytest.fixture
def head(tmp_path: Path) -> Path:
    return run(tmp_path / "head", [*twin(0.01, cell("resnet18")), *measured(times(0.011, 6, 0.003, seed=2))])


def test_a_slower_head_is_exit_1_and_says_which_and_why(base: Path, head: Path, capsys) -> None:
    code, out, err = compare(capsys, base, head)
    assert (code, err) == (1, "")
    assert "slower" in out
    assert "+10.0 %" in out
    assert "the baseline is stored" in " ".join(out.split())
    assert out.endswith("Regressed: resnet50 (time +10.0 %): 1 slower, 1 same of 2 timed cells.\n")


def test_itself_is_exit_0_and_strict_makes_undecided_3(tmp_path: Path, capsys) -> None:
    apart = measured((0.0100, 0.0104), cell("vgg16"))  # two processes, which cannot decide
    base = run(tmp_path / "base", [*apart, *measured(STEADY)])
    assert compare(capsys, base, base)[0] == 0
    code, out, _ = compare(capsys, base, base, "--strict")
    assert code == 3
    assert "No regression in what was decided: 1 undecided, 1 same of 2 timed cells." in out


def test_sides_of_which_every_cell_failed_are_exit_3_in_one_line(tmp_path: Path, capsys) -> None:
    broken = {"status": "error", "error_message": "No module named 'timm'"}
    base = run(tmp_path / "base", [make_record(cell_id=cell(name), **broken) for name in ("vgg16", "resnet18")])
    for options in ([], ["--strict"]):
        code, out, _ = compare(capsys, base, base, *options)
        assert code == 3
        assert out.splitlines()[-1] == (
            "Nothing could be compared: no common cell ended ok on both sides, and 2 failed, such as "
            "resnet18@batch_size=1, which ended with error on both sides: No module named 'timm'."
        )


def test_the_other_way_round_is_faster(base: Path, head: Path, capsys) -> None:
    code, out, _ = compare(capsys, head, base)
    assert (code, "faster" in out) == (0, True)


def test_json_goes_to_stdout_whole(base: Path, head: Path, capsys) -> None:
    code, out, _ = compare(capsys, base, head, "--json")
    assert code == json.loads(out)["exit_code"] == 1
    assert compare(capsys, base, head, "--format", "json")[1] == out


def test_a_format_is_written_where_it_is_told(base: Path, head: Path, tmp_path: Path, capsys) -> None:
    for name, files in (("junit", ["out.xml"]), ("github-action-benchmark", ["out-smaller.xml", "out-bigger.xml"])):
        code, out, _ = compare(capsys, base, head, "--format", name, "--out", tmp_path / "out.xml")
        assert code == 1
        assert [Path(line).name for line in out.splitlines()] == files
        assert all((tmp_path / file).stat().st_size for file in files)


def test_parquet_files_and_killed_runs_are_read(base: Path, tmp_path: Path, capsys) -> None:
    assert compare(capsys, base / "results.parquet", base)[0] == 0
    killed = make_run(tmp_path / "killed", [*twin(0.01, cell("resnet18")), *measured(STEADY)], merge=False)
    assert compare(capsys, base, killed)[0] == 0


def test_another_torch_is_exit_3_until_it_is_the_question(base: Path, tmp_path: Path, capsys) -> None:
    newer = run(tmp_path / "new", [*twin(0.01, cell("resnet18")), *measured(STEADY)], torch_version="2.16.0")
    code, out, err = compare(capsys, base, newer)
    assert (code, out) == (3, "")
    assert "torch_version differs: 2.15.0+cu132 in" in err
    code, out, _ = compare(capsys, base, newer, "--allow-different", "torch_version")
    assert code == 0
    assert "torch 2.15.0+cu132 → 2.16.0" in out


def test_what_the_gate_learnt_of_this_hardware_is_a_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from archbench.comparison.noise import CellNoise, Learnt, Noise, write_noise

    monkeypatch.chdir(tmp_path)
    sides = [run(tmp_path / name, measured(times(middle, 6, 0.002, seed))) for name, middle, seed in SIDES]
    assert "processes, 1 group): a smaller difference" in " ".join(compare(capsys, *sides)[1].split())
    times_s = tuple(0.01 * math.exp(0.01 * (-1) ** number) for number in range(12))
    learnt = Learnt(began="2026-03-01T10:00:00", log_ratios=(0.0,) * 12, base_s=times_s)
    cell_noise = CellNoise(cell_id="any", subject="any", turns=30, turn_s=0.1, gates=(learnt,))
    write_noise(Noise(hardware_class=make_environment().hardware_class, cells=(cell_noise,)))
    code, out, _ = compare(capsys, *sides)
    assert code == 1
    assert "beyond the noise floor of 3.3 % (gate --aa of 2026-03-01)" in " ".join(out.split())


def mistakes(tmp_path: Path, base: Path) -> list[tuple[int, str, list[object]]]:
    """Exit code, what the line must say, and the arguments."""
    empty = make_run(tmp_path / "empty", [])
    elsewhere = run(tmp_path / "gpu", [make_record(hardware_class="NVIDIA H200")])
    others = run(tmp_path / "other", measured(STEADY, cell("vgg16")))
    protocol = run(tmp_path / "protocol", measured(STEADY, protocol_version=PROTOCOL_VERSION + 1))
    suite = make_run(tmp_path / "suite", measured(STEADY), suite=make_suite(suite="another"))
    versions = {}
    for version in (0, SCHEMA_VERSION + 1):
        table = pq.read_table(base / "results.parquet")
        versions[version] = tmp_path / f"version{version}.parquet"
        marked = {**(table.schema.metadata or {}), VERSION_KEY: str(version).encode()}
        pq.write_table(table.replace_schema_metadata(marked), versions[version])
    damaged = tmp_path / "cut.parquet"
    damaged.write_bytes((base / "results.parquet").read_bytes()[:1000])
    return [
        (2, "no such file or directory", [base, tmp_path / "none"]),
        (2, "is not a run", [tmp_path, base]),
        (2, "holds no finished cell", [base, empty]),
        (2, "holds no finished cell", [empty, base]),
        (2, "no cell in common", [base, others]),
        (2, "damaged one (cut off?)", [damaged, base]),
        (2, "has schema version 0, and this archbench reads", [versions[0], base]),
        (2, f"has schema version {SCHEMA_VERSION + 1}", [base, versions[SCHEMA_VERSION + 1]]),
        (2, "--format xml: no such format", [base, base, "--format", "xml"]),
        (2, "makes two files: give --out", [base, base, "--format", "pytest-benchmark"]),
        (2, "--allow-different torch: not a locked column", [base, base, "--allow-different", "torch"]),
        (2, "never compared", [base, base, "--allow-different", "hardware_class"]),
        (3, "hardware_class differs", [base, elsewhere]),
        (3, f"protocol_version differs: {PROTOCOL_VERSION} in", [base, protocol]),
        (3, "suite differs: example in", [base, suite]),
        (3, "cannot write", [base, base, "--out", tmp_path / "no" / "where.txt"]),
    ]


def test_mistakes_are_one_line_with_what_where_and_no_traceback(base: Path, tmp_path: Path, capsys) -> None:
    for code, line, arguments in mistakes(tmp_path, base):
        got, _, err = compare(capsys, *arguments)
        assert (got, line in err, err.count("\n")) == (code, True, 1), f"{arguments}: {err}"
