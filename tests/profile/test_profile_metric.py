"""The suite metric `profile`: measured, stored beside the rows, shown in the report; old runs are as they were."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from builders import make_record, make_run, make_suite

from archbench.model.errors import UsageError
from archbench.model.messages import CellFinished, decode_event, encode
from archbench.model.profile import ModuleProfile, StageProfile, StepPart
from archbench.rendering.content import Section
from archbench.rendering.report import build_report
from archbench.rendering.run_data import read_run
from archbench.rendering.text import render_markdown
from archbench.results import RunStore


def module(path: str, seconds: float, step_s: float = 0.1) -> ModuleProfile:
    return ModuleProfile(
        path=path,
        kind="Sequential",
        depth=1 if path else 0,
        stage=path or None,
        output_shape=(64, 8, 8),
        calls=1,
        forward_s=seconds,
        backward_s=None,
        own_s=0.0,
        share=seconds / step_s,
        params=10,
        macs=1000,
        own_macs=0,
        flops=2000,
        activation_bytes=400,
        saved_bytes=None,
        own_saved_bytes=None,
        bytes_moved=800,
        own_bytes=0,
        intensity=2.5,
        achieved_flops=2e4,
        least_s=0.01,
        roofline_share=0.25,
        bound="memory",
    )


def table(cell_id: str, round: int = 0, **overrides: object) -> StageProfile:
    stages = (module("stem", 0.01), module("layer1", 0.05), module("layer2", 0.03), module("head", 0.001))
    part = StepPart(name="other", forward_s=0.009, backward_s=None, share=0.09, flops=0, bytes_moved=0)
    fields = {
        "cell_id": cell_id,
        "round": round,
        "step_s": 0.099,
        "observed_step_s": 0.1,
        "observing_cost": 0.01,
        "steps": 5,
        "whole": module("", 0.091),
        "stages": stages,
        "parts": (part,),
    }
    return StageProfile(**{**fields, **overrides})  # type: ignore[arg-type]


def test_a_table_travels_and_comes_back(tmp_path: Path) -> None:
    store = RunStore.open(make_run(tmp_path, [make_record()]))
    first, second = table(make_record().cell_id), table(make_record().cell_id, round=1)
    sent = CellFinished(record=make_record(), profile=first)
    assert decode_event(encode(sent)) == sent
    store.append(make_record(round=1), profile=second)
    store.append(make_record(), profile=first)
    assert store.profiles() == [first, second]
    store.merge()
    assert store.profiles() == [first, second], "folding rows leaves the tables where they are"
    assert not list((store.path / "profile").glob(".*")), "no temporary file is left"


def test_a_run_without_tables_is_read_as_before(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record()])
    assert RunStore.open(run).profiles() == []
    assert not (run / "profile").exists()
    assert read_run(run).profiles == ()
    assert "Where the time goes" not in render_markdown(build_report(read_run(run)))


def test_a_damaged_table_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RunStore.open(make_run(tmp_path, [make_record()]))
    store.append(make_record(), profile=table(make_record().cell_id))
    whole = next((store.path / "profile").glob("*.json"))
    (whole.parent / "cut.json").write_bytes(whole.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert len(store.profiles()) == 1
    assert "cut.json is damaged" in caplog.text


def test_a_newer_table_is_refused_by_version(tmp_path: Path) -> None:
    store = RunStore.open(make_run(tmp_path, [make_record()]))
    store.append(make_record(), profile=table(make_record().cell_id, profile_version=99))
    with pytest.raises(UsageError, match="profile version 99, and this archbench reads 1 to"):
        store.profiles()


def test_the_report_names_the_largest_stages(tmp_path: Path) -> None:
    row = make_record()
    run = make_run(tmp_path, [row], suite=make_suite(rounds=1, twin=None))
    store = RunStore.open(run)
    store.append(row, profile=table(row.cell_id))
    sections = {section.title: section for section in build_report(read_run(run)).sections}
    text = msgspec.json.encode(sections["Where the time goes"]).decode()
    assert isinstance(sections["Where the time goes"], Section)
    assert "layer1 50 %, layer2 30 %, stem 10 %" in text
    assert "25 %" in text, "of the roofline"
