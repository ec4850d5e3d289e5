"""What a report says of a run: figures, marks, gains, failures and notes, and the whole of a small one."""

from __future__ import annotations

import html
import os
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import SETTINGS, make_environment, make_record, make_rows, make_run, make_suite
from columns_page import SAMPLE_COLUMNS, columns_markdown
from report_parts import part, records, section, tables, texts

from archbench.choose.cell_summary import CellSummary
from archbench.model.cell import Network, StatedAccuracy
from archbench.model.errors import UnfitError, UsageError
from archbench.model.record import Record, Sample
from archbench.rendering.content import Code, Fold, Report, Section, Table
from archbench.rendering.figures import phase_sections
from archbench.rendering.html import render_html
from archbench.rendering.plots import plotted
from archbench.rendering.provenance import failures
from archbench.rendering.report import build_report, write_report
from archbench.rendering.run_data import RunData, read_run
from archbench.rendering.text import render_latex, render_markdown
from archbench.rendering.toggles import toggles
from archbench.rendering.tradeoffs import pareto
from archbench.suite.plan import make_plan

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def report_of(root: Path, *rows: Record, **suite: Any) -> Report:
    return build_report(read_run(make_run(root, rows, suite=make_suite(**suite))))


def summary(**fields: Any) -> CellSummary:
    blank = dict.fromkeys(CellSummary.__struct_fields__)
    plain = {"precision": "fp32", "memory_format": "contiguous", "compile_mode": "off", "status": "ok", "verdict": "ok"}
    return CellSummary(**{**blank, **plain, **fields})


def small_run(root: Path) -> Path:
    suite = make_suite(
        architectures=tuple(Network(name=name) for name in ("resnet18", "densenet121", "vgg16")),
        settings={name: SETTINGS[name] for name in ("fp32", "amp-nhwc", "compiled")},
        rounds=2,
    )
    rows = list(make_rows(suite, make_environment(), networks=["resnet18", "densenet121", "vgg16"]))
    return make_run(root, rows, suite=suite)


def test_a_small_report_reads_as_it_did(tmp_path: Path) -> None:
    """After a wanted change: ARCHBENCH_UPDATE_GOLDEN=1 pytest tests/rendering, and read the difference."""
    golden = HERE / "small_report.md"
    written = write_report(small_run(tmp_path))
    assert written.name == "report.md"
    if os.environ.get("ARCHBENCH_UPDATE_GOLDEN"):
        golden.write_bytes(written.read_bytes())
    assert written.read_text() == golden.read_text()


def test_a_row_of_figures(tmp_path: Path) -> None:
    """With the percentiles that the suite asks for, in ascending order; the third was withheld."""
    report = report_of(tmp_path, make_record(latency_p99_s=None), percentiles=(99, 95, 90))
    (row,) = records(tables(section(report, "Inference"))[0])
    assert row == {
        "Network": "resnet50",
        "Setting": "fp32",
        "Batch": "1",
        "Latency ms": "23.2 ±0.3",
        "p90 ms": "24.5",
        "p95 ms": "25.1",
        "p99 ms": "-",
        "img/s": "43.5",
        "Peak MiB": "172",
        "Verdict": "ok",
    }


def test_what_is_known_of_a_network_stands_once(tmp_path: Path) -> None:
    rows = [make_record(cell_id=str(batch), batch_size=batch) for batch in (1, 8)]
    table = tables(section(report_of(tmp_path, *rows), "Networks"))[0]
    (row,) = table.rows
    assert dict(zip(table.headings, row, strict=True)) == {
        "Network": "resnet50",
        "Family": "resnet",
        "Image px": "224",
        "Params M": "25.56",
        "GMACs": "4.09",
        "Activations M": "11.1",
        "Weights MiB": "97.7",
        "Top-1 %": "80.9",
    }


def test_nothing_measured_is_a_dash_and_never_a_zero(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        [name for name, column in _columns() if column.kind in ("real", "whole") and name not in _IDENTITY]
    )
    report = report_of(tmp_path, make_record(**nothing))
    assert tables(section(report, "Inference"))[0].rows[0] == ("resnet50", "-", "-", "-", "-", "ok")
    assert tables(section(report, "Networks"))[0].rows[0] == ("resnet50", "resnet", "224", "-", "-", "-", "-", "-")


_IDENTITY = {"schema_version", "protocol_version", "round", "visit", "input_size", "batch_size"}


def _columns() -> list[tuple[str, Any]]:
    from archbench.model.record import columns

    return list(columns().items())


def test_fastest_first_within_setting_and_batch_settings_as_in_the_suite(tmp_path: Path) -> None:
    rows = [
        make_record(
            cell_id=f"{name}{batch}{setting}", variant=name, batch_size=batch, setting=setting, latency_median_s=t
        )
        for name, t in (("slow", 0.9), ("fast", 0.1), ("none", None))
        for batch in (8, 1)
        for setting in ("compiled", "fp32")
    ]
    table = tables(section(report_of(tmp_path, *rows), "Inference"))[0]
    order = [(row[1], row[2], row[0]) for row in table.rows]
    assert order == [
        (setting, batch, name)
        for setting in ("fp32", "compiled")
        for batch in ("1", "8")
        for name in ("fast", "slow", "none")
    ]


def test_settings_without_a_name_stand_in_the_order_of_their_axes(tmp_path: Path) -> None:
    rows = [
        make_record(cell_id=f"{precision}{layout}", setting=None, precision=precision, memory_format=layout)
        for precision in ("amp-bf16", "fp32")
        for layout in ("channels_last", "contiguous")
    ]
    measured = read_run(make_run(tmp_path, rows))
    assert list(measured.settings) == ["fp32", "fp32, channels_last", "amp-bf16", "amp-bf16, channels_last"]


def test_the_commit_is_short_and_tells_changes(tmp_path: Path) -> None:
    dirty = make_environment(git_commit="c2e8f2ba3b7cb6df6e8d2fec5831f50d6a30c65b+dirty")
    report = build_report(read_run(make_run(tmp_path, [make_record()], environment=dirty)))
    assert "archbench | 0.1.0 commit c2e8f2ba3b with changes" in texts(section(report, "Machine"))


def test_p95_shares_the_medians_correction(tmp_path: Path) -> None:
    rows = [make_record(round=number, canary_s=0.001) for number in (0, 1)]
    slow = make_record(cell_id="slow", variant="slow", canary_s=0.00105, latency_median_s=0.0105, latency_p95_s=0.021)
    found = records(tables(section(report_of(tmp_path, *rows, slow, percentiles=(95,)), "Inference"))[0])
    shown = [(row["Latency ms"].split()[0], row["p95 ms"]) for row in found if row["Network"] == "slow"]
    assert shown == [("10.00", "20.0")]


def test_verdicts_carry_their_reasons(tmp_path: Path) -> None:
    def label(**fields: Any) -> str:
        return summary(**{"reasons": (), "processes": 3, "processes_used": 3, **fields}).verdict_label

    assert label() == "ok"
    assert label(reasons=("latency_p99_s:too_few_samples", "host_bound")) == "ok; host_bound"
    assert label(verdict="suspect", reasons=("drift", "contended")) == "suspect: drift, contended"
    assert label(verdict="invalid", reasons=("throttled", "power_capped")) == "invalid: throttled; power_capped"
    assert label(verdict="suspect", processes_used=2) == "suspect: 2 of 3 processes"
    assert label(status="oom", verdict=None) == "oom"
    assert label(verdict="suspect", reasons=("of_tomorrow",)) == "suspect: of_tomorrow"


def test_long_names_keep_both_ends() -> None:
    name = "mypkg.nets:build[" + ",".join(f"option{number}=1" for number in range(40)) + "]"
    shown = summary(variant=name).network
    assert len(shown) == 48
    assert shown.startswith("mypkg.nets:build[option")
    assert shown.endswith("option39=1]")


def test_fronts_and_plots_of_accuracy_keep_to_one_data_set(tmp_path: Path) -> None:
    figures = {"resnet50": (0.02, 76.1), "resnet18": (0.01, 69.8), "alexnet": (0.005, 56.5), "vgg11": (0.03, 69.0)}
    small = {"resnet20_cifar": (0.004, 91.2), "resnet32_cifar": (0.006, 92.5), "resnet110_cifar": (0.004, 90.0)}
    rows = [
        make_record(
            architecture=name,
            variant=name,
            cell_id=f"{name}@",
            top1=top1,
            latency_median_s=latency,
            latency_ci_low_s=latency,
            latency_ci_high_s=latency,
            throughput_img_s=1 / latency,
        )
        for name, (latency, top1) in (figures | small).items()
    ]
    run = read_run(make_run(tmp_path, rows))
    section = pareto(run)
    assert section is not None
    (fronts,) = (block for block in section.blocks if isinstance(block, Section))
    (found,) = (block for block in fronts.blocks if isinstance(block, Table))
    kinds = {
        line["Network"]: (line["Data set"], "latency" in line["On the front of"].split(", ")) for line in records(found)
    }
    assert kinds["resnet50"] == ("ImageNet", True), "slower and less accurate than every CIFAR network"
    assert kinds["alexnet"] == ("ImageNet", True)
    assert kinds["resnet20_cifar"] == ("CIFAR-10", True)
    assert "resnet110_cifar" not in kinds or not kinds["resnet110_cifar"][1]
    cells = plotted(run.cells, ())
    assert cells is not None
    drawn = {line[cells.columns.index("network")]: line[cells.columns.index("top1")] for line in cells.rows}
    assert {name for name, top1 in drawn.items() if top1 is not None} == set(figures)
    assert cells.left_out == "Plots of accuracy show ImageNet alone, of which most networks' accuracies are."


def test_the_memory_of_a_runtime_is_that_of_its_process_and_says_so(tmp_path: Path) -> None:
    figures = {"resnet50": (80.0, 300), "resnet18": (70.0, 100), "vgg16": (75.0, 400)}
    rows = [
        make_record(
            architecture=name,
            variant=name,
            cell_id=f"{name}@",
            runtime="openvino",
            setting=None,
            top1=top1,
            peak_allocated_bytes=None,
            process_bytes=mebibytes * 2**20,
        )
        for name, (top1, mebibytes) in figures.items()
    ]
    run = read_run(make_run(tmp_path, rows))
    (found,) = phase_sections(run)
    assert {row["Network"]: row["Peak MiB"] for row in records(tables(found)[0])} == {
        name: f"{mebibytes} (process)" for name, (_, mebibytes) in figures.items()
    }
    assert "what serving adds to a process" in texts(found)
    fronts = pareto(run)
    assert fronts is not None
    (front,) = (one for block in fronts.blocks if isinstance(block, Section) for one in tables(block))
    on = {row["Network"]: "memory" in row["On the front of"] for row in records(front)}
    assert on["resnet50"], "the most accurate"
    assert on["resnet18"], "the smallest"
    assert not on.get("vgg16", False), "less accurate and larger than resnet50"


def test_input_sizes_are_told_apart(tmp_path: Path) -> None:
    rows = [
        make_record(),
        make_record(cell_id="b", variant="inception_v3", input_size=299),
        make_record(cell_id="c", variant="resnet50[input_size=320]", input_size=320),
        make_record(cell_id="d", variant="resnet18"),
    ]
    found = section(report_of(tmp_path, *rows), "Inference")
    names = {row[0] for row in tables(found)[0].rows}
    assert names == {"resnet50", "inception_v3 (299 px)", "resnet50[input_size=320]", "resnet18"}
    assert "Images are 224 x 224 unless" in texts(found)


def test_gpu_runs_show_reserved_memory_labels_and_raw_times(tmp_path: Path) -> None:
    suite = make_suite(rounds=1)
    gpu = make_environment("cuda:0")
    run = make_run(tmp_path, list(make_rows(suite, gpu, networks=["vgg16"])), suite=suite, environment=gpu)
    report = build_report(read_run(run))
    inference = tables(section(report, "Inference"))[0]
    assert inference.rows[0][6:] == ("1,154", "ok; host_bound")
    assert "held by the allocator" in texts(section(report, "Inference"))
    trust = texts(section(report, "How far to trust this"))
    assert "corrected" not in trust
    assert "± is the interval within the process" in trust
    assert "GPU | NVIDIA H200, 140 GiB, power limit 700 W, MIG off" in texts(section(report, "Machine"))


def test_long_phases_are_cut_by_setting_and_very_long_tables_folded(tmp_path: Path) -> None:
    def rows(count: int) -> list[Record]:
        return [
            make_record(cell_id=f"{number}{setting}", variant=f"n{number}", setting=setting)
            for number in range(count)
            for setting in ("fp32", "compiled")
        ]

    whole = section(report_of(tmp_path / "whole", *rows(15)), "Inference")
    assert len(tables(whole)) == 1
    cut = section(report_of(tmp_path / "cut", *rows(16)), "Inference")
    assert [part.title for part in cut.blocks[1:] if isinstance(part, Section)] == [
        "Inference: fp32",
        "Inference: compiled",
    ]
    folded = section(report_of(tmp_path / "folded", *rows(101)), "Inference").blocks[1]
    assert isinstance(folded, Section)
    assert isinstance(folded.blocks[0], Fold)
    assert folded.blocks[0].summary == "101 cells"


def test_settings_stand_side_by_side(tmp_path: Path) -> None:
    def row(setting: str, **fields: Any) -> Record:
        bundle = SETTINGS[setting]
        toggles = {name: getattr(bundle, name) for name in ("precision", "memory_format", "compile_mode")}
        return make_record(**{"cell_id": f"{setting}{fields}", "setting": setting, **toggles, **fields})

    rows = [
        row("fp32", latency_median_s=0.02, latency_ci_low_s=0.0199, latency_ci_high_s=0.0201),
        row("amp", latency_median_s=0.01, latency_ci_low_s=0.0099, latency_ci_high_s=0.0101, verdict="suspect"),
        row("amp-nhwc", verdict="invalid"),
        row("compiled", status="timeout"),
        row("amp", variant="lonely"),
        row("fp32", batch_size=8),
    ]
    found = toggles(read_run(make_run(tmp_path, rows)))
    assert found is not None
    (table,) = tables(part(found, "Inference: gains over fp32"))
    assert table.headings == ("Network", "fp32 ms", "amp ×", "amp-nhwc ×", "compiled ×")
    assert table.shared == (("Batch", "1"),)
    assert table.rows == (("resnet50", "20.00", "2.00 ±0.02 ?", "invalid", "timeout"),)
    assert toggles(read_run(make_run(tmp_path / "alone", rows[:1]))) is None


def test_a_full_product_of_toggles_takes_several_tables(tmp_path: Path) -> None:
    precisions = ["fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"]
    rows = [
        make_record(cell_id=f"{precision}{layout}", setting=None, precision=precision, memory_format=layout)
        for precision in precisions
        for layout in ("contiguous", "channels_last")
    ]
    found = toggles(read_run(make_run(tmp_path, rows)))
    assert found is not None
    over_fp32 = tables(part(found, "Inference: gains over fp32"))
    assert [len(table.headings) for table in over_fp32] == [2 + 6, 2 + 5]
    assert "amp-bf16, channels_last ×" in over_fp32[0].headings
    assert all(len(row) == len(table.headings) for table in tables(found) for row in table.rows)


def test_failures_are_listed_and_what_was_not_run_is_grouped(tmp_path: Path) -> None:
    rows = [
        make_record(cell_id="a", variant="a", status="oom", error_phase="warmup", error_message="x" * 300),
        make_record(cell_id="b", variant="b"),
        make_record(
            cell_id="b", variant="b", round=1, status="crashed", error_phase="latency", error_message="signal 9"
        ),
        *(
            make_record(cell_id=f"c{number}", variant=f"c{number}", status="skipped", error_message="too large")
            for number in range(5)
        ),
        make_record(cell_id="d", variant="d", status="unsupported", reasons=("not_on_device", "mfu:unknown_peak")),
    ]
    found = failures(read_run(make_run(tmp_path, rows)))
    assert found is not None
    failed, not_run = tables(found)
    assert failed.shared == (("Phase", "inference"), ("Setting", "fp32"), ("Batch", "1"))
    assert failed.rows == (
        ("a", "oom", "warmup", "x" * 159 + "…"),
        ("b", "1 of 2", "latency", "signal 9"),
    )
    assert not_run.rows == (
        ("skipped", "5", "too large", "c0, c1, c2, …"),
        ("unsupported", "1", "not_on_device", "d"),
    )
    assert failures(read_run(make_run(tmp_path / "fine", [make_record()]))) is None


def test_many_failures_are_cut_short(tmp_path: Path) -> None:
    rows = [make_record(cell_id=str(number), status="error", error_message=str(number)) for number in range(130)]
    found = failures(read_run(make_run(tmp_path, rows)))
    assert found is not None
    assert len(tables(found)[0].rows) == 100
    assert "And 30 more cells, of which `results.parquet` has the figures." in texts(found)


def test_a_run_of_failures_alone_still_has_a_report(tmp_path: Path) -> None:
    row = make_record(status="error", error_message="no", top1=None, started_at=None, accuracy_source=None)
    report = report_of(tmp_path, row, settings={}, description="")
    assert "0 of 20 planned cells measured; unfinished: 19 cells of the suite" in texts(*report.lead)
    assert "Which network, with which settings" in texts(*report.lead)
    assert [one.title for one in report.sections] == [
        "Networks",
        "Inference",
        "Without figures",
        "How far to trust this",
        "Machine",
        "What is not included",
        "Measure it again",
    ]


def test_the_state_of_a_whole_model_in_16_bits_is_half(tmp_path: Path) -> None:
    rows = [
        make_record(phase="training", precision=name, cell_id=f"resnet50@{name}", weight_bytes=100 * 2**20)
        for name in ("fp32", "bf16")
    ]
    (table,) = tables(*section(report_of(tmp_path, *rows), "Memory in training").blocks)
    place = table.headings.index("of it state MiB")
    assert {row[place] for row in table.rows} == {"300", "150"}


def test_the_training_step_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    without = texts(section(report_of(tmp_path / "a", make_record()), "What is not included"))
    assert "copies from host to device" in without
    assert "SGD" not in without
    trained = texts(section(report_of(tmp_path / "b", make_record(phase="training")), "What is not included"))
    assert "cross-entropy loss, the backward pass and a step of SGD with momentum" in trained


def test_the_command_to_reproduce_names_device_and_code(tmp_path: Path) -> None:
    architectures = (Network(name="torchvision:resnet18"), Network(name="timm:hrnet_w18"))
    plain = texts(section(report_of(tmp_path / "a", make_record(), architectures=architectures), "Measure it again"))
    assert "archbench run suite.yaml --device cpu" in plain
    assert "--allow-code" not in plain
    code = (*architectures, Network(name="mypkg.nets:build"))
    with_code = texts(section(report_of(tmp_path / "b", make_record(), architectures=code), "Measure it again"))
    assert "archbench run suite.yaml --device cpu --allow-code" in with_code


def test_the_command_to_reproduce_plans_the_cells_of_a_run_that_was_narrowed(tmp_path: Path) -> None:
    """By the command itself: what it plans in the run's directory is what the report shows."""
    suite = make_suite()
    every = make_plan(suite, "cpu").cells
    narrowed = [
        one for one in every if one.network.name == "vgg16" or (one.network.name == "resnet18" and one.batch_size == 8)
    ]
    kept = {one.cell_id for one in narrowed}
    assert 0 < len(kept) < len(every)
    rows = [row for row in make_rows(suite, make_environment()) if row.cell_id in kept]
    run = make_run(tmp_path, rows, suite=suite)
    said = section(build_report(read_run(run)), "Measure it again").blocks[-1]
    assert isinstance(said, Code)
    words = shlex.split(said.text)
    assert words[:3] == ["archbench", "run", "suite.yaml"]
    patterns = [after for before, after in pairwise(words) if before == "--only"]
    assert "vgg16" in patterns
    assert {one.cell_id for one in make_plan(suite, "cpu", only=patterns).cells} == kept


def test_accuracies_say_who_states_them(tmp_path: Path) -> None:
    own = Network(name="resnet18", accuracy=StatedAccuracy(top1=70.5, source="our run 17", dataset="ImageNet"))
    rows = [make_record(), make_record(cell_id="r18", architecture="resnet18", variant="resnet18")]
    said = texts(section(report_of(tmp_path, *rows, architectures=(own, Network(name="resnet50"))), TITLE))
    assert "stated by the suite: our run 17 | resnet18" in said
    assert "published for the weights named here, or whoever wrote the suite states" in said
    alone = texts(section(report_of(tmp_path / "b", rows[1], architectures=(own,)), TITLE))
    assert "published" not in alone
    neither = texts(section(report_of(tmp_path / "c", rows[0]), TITLE))
    assert "stated" not in neither
    assert "whoever" not in neither


TITLE = "Where the accuracies come from"


@pytest.mark.parametrize("percentiles", [(90,), (95, 99), ()])
def test_the_percentiles_are_those_that_were_asked_for(tmp_path: Path, percentiles: tuple[Any, ...]) -> None:
    row = make_record(latency_p90_s=0.0301, latency_p95_s=0.0402, latency_p99_s=0.0503)
    table = tables(section(report_of(tmp_path, row, percentiles=percentiles), "Inference"))[0]
    shown = {head: cell for head, cell in zip(table.headings, table.rows[0], strict=True) if head.startswith("p")}
    true = {90: "30.1", 95: "40.2", 99: "50.3"}
    assert shown == {f"p{percent} ms": true[percent] for percent in percentiles}


def test_hostile_names_are_harmless(tmp_path: Path) -> None:
    rows = [
        make_record(cell_id=str(number), variant=name, status=status, error_message=name)
        for number, name in enumerate(("<script>alert(1)</script>", "../../x", "a|b", "ü" * 300, "line\nbreak"))
        for status in ("ok",)
    ]
    markdown = write_report(make_run(tmp_path, rows), out=tmp_path / "r.md").read_text()
    assert "<script" not in markdown
    assert "a\\|b" in markdown
    assert "line break" in markdown
    assert "ü" * 49 not in markdown.split("## Without figures")[0]


def test_unreadable_runs_and_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or directory"):
        write_report(tmp_path / "none")
    run = make_run(tmp_path, [make_record()])
    with pytest.raises(UnfitError, match=r"cannot write .*No such file or directory"):
        write_report(run, out=tmp_path / "none" / "report.md")
    (run / "environment.json").write_text('{"device": 1}')
    with pytest.raises(UsageError, match=r"environment\.json: cannot be read by this version"):
        write_report(run)


def test_a_merged_file_stands_for_its_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    assert write_report(run / "results.parquet") == run / "report.md"


def test_trust_is_stated_once_and_alike_in_every_format(tmp_path: Path) -> None:
    measured = read_run(small_run(tmp_path))
    assert measured.trust.apart is not None
    assert measured.drift is not None
    report = build_report(measured)
    assert measured.trust.statement in texts(section(report, "How far to trust this"))
    for render in (render_markdown, render_html, render_latex):
        assert measured.trust.statement in html.unescape(render(report)), render.__name__
    quiet: RunData = msgspec.structs.replace(measured, drift=None, corrected=False)
    assert "fixed kernel" not in texts(section(build_report(quiet), "How far to trust this"))
    assert len(phase_sections(quiet)) == 2


def test_the_page_on_columns_is_current() -> None:
    """After a change of columns: python docs/columns_page.py > docs/columns.md."""
    assert (ROOT / "docs" / "columns.md").read_text() == columns_markdown()
    assert tuple(SAMPLE_COLUMNS) == Sample.__struct_fields__


def test_of_one_round_the_twin_alone_tells_how_processes_differ(tmp_path: Path) -> None:
    suite = make_suite(rounds=1)
    report = build_report(read_run(make_run(tmp_path, list(make_rows(suite)), suite=suite)))
    said = texts(section(report, "How far to trust this"))
    # The twin's groups: two phases, with the settings that do not share a process.
    assert "Known from 5 groups of cells that more than one process measured." in said
    rows = [row for row in make_rows(suite) if row.visit == 0]
    report = build_report(read_run(make_run(tmp_path / "bare", rows, suite=suite)))
    said = texts(section(report, "How far to trust this"))
    assert "Every cell was measured by one process: how far processes differ is not known" in said


def test_a_knee_takes_three_batch_sizes_and_of_fewer_it_is_said(tmp_path: Path) -> None:
    def rows(*sizes: int) -> list[Record]:
        """Throughput that saturates at batch 8."""
        found = []
        for size in sizes:
            rate = 100.0 * min(size, 8)
            found.append(
                make_record(
                    cell_id=str(size),
                    batch_size=size,
                    throughput_img_s=rate,
                    throughput_ci_low_img_s=rate * 0.99,
                    throughput_ci_high_img_s=rate * 1.01,
                    predicted_peak_bytes=None,
                )
            )
        return found

    title = "Inference: where throughput saturates"
    few = section(report_of(tmp_path / "few", *rows(1, 8)), "Batch sizes")
    assert "Where throughput saturates takes 3 batch sizes of a network to see; none here has them." in texts(few)
    assert title not in [block.title for block in few.blocks if isinstance(block, Section)]
    (found,) = records(tables(part(section(report_of(tmp_path / "more", *rows(1, 8, 64)), "Batch sizes"), title))[0])
    assert (found["Knee"], found["img/s there"], found["Measured to"]) == ("8", "800", "64")
