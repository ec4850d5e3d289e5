"""A profile as a page: what it says of known figures, and pictures that draw."""

from __future__ import annotations

import re
import sys
from html import unescape
from typing import Any

import pytest
from msgspec import structs

from archbench.model.cell import Cell, Network
from archbench.model.counts import AcrossSeeds, GradientHealth, LayerGradient, StageActivation
from archbench.model.profile import (
    CATEGORIES,
    KernelMap,
    MemoryHolder,
    MemoryPoint,
    MemoryTimeline,
    ModuleProfile,
    Profile,
    Roofline,
    RooflinePoint,
    SavedBytes,
    StageMemory,
    StepPart,
)
from archbench.rendering.content import Picture, every
from archbench.rendering.drawing import compiled, drawn
from archbench.rendering.html import load_scripts, render_html
from archbench.rendering.profile_charts import _laid_out
from archbench.rendering.profile_report import profile_report, profile_screen
from archbench.rendering.profile_words import findings, gradient_line, memory_line, of_ceiling, saved_line
from archbench.rendering.text import render_markdown, render_terminal

MIB = 2**20


def module(path: str, seconds: float, stage: str | None = None) -> ModuleProfile:
    return ModuleProfile(
        path=path,
        kind="Sequential",
        depth=path.count(".") + 1 if path else 0,
        stage=stage,
        output_shape=(64, 8, 8),
        calls=1,
        forward_s=seconds / 3,
        backward_s=seconds * 2 / 3,
        own_s=0.0,
        share=seconds / 0.1,
        params=1_000_000,
        macs=2_000_000_000,
        own_macs=0,
        flops=4_000_000_000,
        activation_bytes=10 * MIB,
        saved_bytes=5 * MIB,
        own_saved_bytes=0,
        bytes_moved=100 * MIB,
        own_bytes=0,
        intensity=40.0,
        achieved_flops=5e10,
        least_s=0.05,
        roofline_share=0.5,
        bound="compute",
    )


def point(section: str, operator: str, **mib: int) -> MemoryPoint:
    sizes = {category: mib.get(category, 0) * MIB for category in CATEGORIES}
    return MemoryPoint(section=section, module="layer1.0", operator=operator, **sizes)  # type: ignore[arg-type]


TIMELINE = MemoryTimeline(
    points=(
        point("forward", "conv", weights=10, optimizer=10, inputs=1, temporaries=4),
        point("forward", "cat", weights=10, optimizer=10, inputs=1, activations=70, workspace=5),
        point(
            "backward", "conv_backward", weights=10, optimizer=10, inputs=1, activations=60, gradients=9, workspace=20
        ),
        point("update", "add", weights=10, optimizer=10, inputs=1, gradients=10),
    ),
    operators=400,
    measured_peak_bytes=110 * MIB,
    predicted_peak_bytes=121 * MIB,
    holders=(
        MemoryHolder(
            category="activations",
            path="layer1.0",
            stage="layer1",
            operator="cat",
            shape=(8, 64, 56, 56),
            dtype="float32",
            bytes=6 * MIB,
        ),
    ),
    saved_bytes=80 * MIB,
    saved_by_operator=(
        SavedBytes(made_by="batch_norm", needed_by=("conv", "relu"), tensors=10, bytes=40 * MIB),
        SavedBytes(made_by="cat", needed_by=("batch_norm",), tensors=5, bytes=30 * MIB),
        SavedBytes(made_by="batch_norm", needed_by=("relu",), tensors=1, bytes=10 * MIB),
    ),
    stages=(StageMemory(stage="layer1", saved_bytes=80 * MIB, peak_bytes=90 * MIB),),
)


def spread(value: float) -> AcrossSeeds:
    return AcrossSeeds(median=value, low=value / 2, high=value * 2)


def health(ratio: float | None, silent: tuple[str, ...] = ()) -> GradientHealth:
    layers = tuple(
        LayerGradient(
            path=f"layers.{place}",
            kind="Conv2d",
            position=place,
            weights=100,
            gradient_norm=spread(10.0 ** (3 - place)),
            weight_norm=spread(2.0),
            signal_rms=spread(1e-3),
        )
        for place in range(4)
    )
    stage = StageActivation(stage="layer1", mean=spread(0.4), std=spread(0.6), zero_share=spread(0.5))
    return GradientHealth(
        seeds=3,
        batch_size=8,
        layers=layers,
        first_to_last=None if ratio is None else spread(ratio),
        signal_first_to_last=None,
        stages=(stage,),
        without_gradient=silent,
    )


def profile(**overrides: Any) -> Profile:
    rows = (
        module("", 0.09),
        module("stem", 0.01, "stem"),
        module("layer1", 0.07, "layer1"),
        module("layer1.0", 0.04, "layer1"),
        module("layer1.1", 0.03, "layer1"),
    )
    points = tuple(
        RooflinePoint(name=name, intensity=at, achieved_flops=flops, share=0.5, time_share=0.3)
        for name, at, flops in (("stem", 40.0, 4e10), ("layer1", 41.0, 4.1e10), ("all", 40.5, 4e10))
    )
    fields: dict[str, Any] = {
        "network": "example<net>",
        "cell": Cell(network=Network(name="resnet18"), batch_size=8, phase="training"),
        "device": "cpu",
        "environment": None,
        "threads": 2,
        "params": 1_000_000,
        "macs": 2_000_000_000,
        "step_s": 0.098,
        "observed_step_s": 0.1,
        "observing_cost": 0.02,
        "steps": 5,
        "modules": rows,
        "parts": (StepPart(name="optimizer", forward_s=0.01, backward_s=None, share=0.1, flops=0, bytes_moved=0),),
        "stages": ("stem", "layer1"),
        "operators": (),
        "roofline": Roofline(
            peak_flops=1e11, bandwidth=1e10, points=points, device_busy_s=None, launch_gap_s=None, host_s=0.001
        ),
        "memory": TIMELINE,
        "gradients": health(1000.0),
        "missing": {"compiled": "not asked for"},
    }
    return Profile(**{**fields, **overrides})


def test_every_picture_draws_and_every_section_is_there() -> None:
    report = profile_report(profile())
    drawings = {name: drawn(vega).decode() for name, vega in compiled(report)}
    assert set(drawings) == {"stages", "modules", "roofline", "memory", "saved", "gradients"}
    assert all(svg.startswith("<svg") for svg in drawings.values())
    assert "peak 110 MiB" in drawings["memory"]
    titles = [section.title for section in report.sections]
    assert titles == ["Time", "Roofline", "Memory over the step", "Gradients at initialisation", "Not in this profile"]


def test_both_formats_render_and_escape() -> None:
    report = profile_report(profile())
    assert "example&lt;net&gt;" in render_html(report)
    text = render_markdown(report)
    assert "| batch_norm | 50.0 | 62 % | 11 | conv, relu |" in text
    assert "| cat | 30.0 | 38 % | 5 | batch_norm |" in text


def test_the_time_at_the_head_of_a_compiled_profile_is_the_compiled_one() -> None:
    cell = Cell(network=Network(name="resnet18"), batch_size=8, compile_mode="default")
    kernels = KernelMap(kernels=(), mapped_share=None, step_s=0.02, eager_step_s=0.098, compile_s=30.0)
    compiled = profile(cell=cell, compiled=kernels)
    head = "compiled step 20.0 ms (400 img/s); in eager, of which the modules are: 98.0 ms (81.6 img/s)"
    assert head in render_markdown(profile_report(compiled))
    assert head in render_terminal(profile_screen(compiled, depth=None, stage="", top=3), 300)
    assert "compiled step not timed; in eager" in render_markdown(profile_report(profile(cell=cell)))
    assert "step 98.0 ms (81.6 img/s)" in render_markdown(profile_report(profile()))


def test_a_profile_says_whether_its_times_are_fit_to_be_used() -> None:
    crowded = profile(verdict="invalid", reasons=("crowded", "power_capped"))
    told = "Verdict invalid, not to be used; crowded: other work took over a third of the CPU time"
    for one, words in ((crowded, told), (profile(), "Verdict ok")):
        assert words in render_markdown(profile_report(one))
        assert words in render_html(profile_report(one))
        assert words in render_terminal(profile_screen(one, depth=None, stage="", top=3), 1000)
    assert "power_capped" not in render_markdown(profile_report(crowded))


def test_no_share_of_a_ceiling_is_over_100_per_cent_without_a_word() -> None:
    above = structs.replace(module("", 0.09), roofline_share=1.49)
    rows = (above, module("stem", 0.01, "stem"))
    text = render_markdown(profile_report(profile(modules=rows, findings=findings(profile(modules=rows)))))
    assert text.count("ceiling under-measured |") >= 2, "in the tables of stages and of modules"
    assert "more than what the measured ceilings allow (ceiling under-measured)" in text
    assert "149" not in text


def test_a_layer_that_fits_the_cache_is_served_from_it_and_no_share_is_printed() -> None:
    """ROOFLINE has a cache of 32 MiB: a memory-bound layer that moves less a call than that may well beat the copy."""
    fast = structs.replace(module("", 0.09), roofline_share=2.49, bound="memory", own_bytes=64 * MIB, calls=4)
    large = structs.replace(fast, own_bytes=256 * MIB)
    roofline = Roofline(
        peak_flops=1e11, bandwidth=1e10, points=(), device_busy_s=None, launch_gap_s=None, host_s=None,
        cache_bytes=32 * MIB,
    )  # fmt: skip
    unknown = structs.replace(roofline, cache_bytes=None)
    within = structs.replace(fast, roofline_share=0.62)
    said = [
        of_ceiling(row, profile(modules=(row,), stages=(), roofline=cache))
        for row, cache in ((fast, roofline), (large, roofline), (fast, unknown), (fast, None), (within, roofline))
    ]
    assert said == ["served from cache", *["ceiling under-measured"] * 3, "62 % memory"]
    text = render_terminal(
        profile_screen(profile(modules=(fast,), stages=(), roofline=roofline), depth=None, stage="", top=0)
    )
    assert "served from cache" in text
    assert "249" not in text


def test_two_profiles_on_one_page_share_no_picture() -> None:
    report = profile_report(profile(), profile(modules=(module("", 0.05),), stages=(), memory=None, gradients=None))
    names = [picture.name for picture in every(Picture, report.blocks)]
    assert len(names) == len(set(names))
    assert report.sections[0].title == "Where the difference comes from"
    assert render_html(report)


def test_a_profile_with_nothing_but_times() -> None:
    bare = profile(roofline=None, memory=None, gradients=None, missing={}, parts=())
    assert [section.title for section in profile_report(bare).sections] == ["Time"]


def test_the_peak_and_the_prediction_in_words() -> None:
    line = memory_line(TIMELINE)
    assert line == (
        "The peak is 110 MiB, in the backward pass, in `conv_backward` of `layer1.0`. "
        "Predicted without running: 121 MiB (+10 %)."
    )
    off = structs.replace(TIMELINE, measured_peak_bytes=100 * MIB, predicted_peak_bytes=None)
    assert "Unwatched, the step peaks at 100 MiB." in memory_line(off)
    assert "No peak is predicted" in memory_line(off)


def test_what_is_kept_in_words() -> None:
    assert saved_line(TIMELINE, 8) == (
        "80.0 MiB are kept for the backward pass, 10.0 MiB an image: results of batch_norm 62 %, cat 38 %."
    )


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1838.0, "It grows on its way back"),
        (1e-6, "It fades on its way back"),
        (None, "cannot be formed"),
    ],
)
def test_the_ratio_of_gradients_in_words(ratio: float | None, said: str) -> None:
    assert said in gradient_line(health(ratio))


def test_figures_of_every_size_are_readable() -> None:
    assert "1,838 times" in gradient_line(health(1838.0))
    assert "7.88e-32 times" in gradient_line(health(7.88e-32))


def test_a_healthy_ratio_is_told_without_alarm() -> None:
    assert gradient_line(health(0.4)).endswith("0.400 times (0.200 to 0.800) that of the last's.")
    assert "No gradient reaches `a`, `b`, `c` and 1 more." in gradient_line(health(0.4, ("a", "b", "c", "d")))


def test_modules_lie_within_their_parents_and_parts_beside_the_network() -> None:
    rows = {row["path"]: row for row in _laid_out(profile())}
    for child, parent in (("layer1", "example<net>"), ("layer1.0", "layer1"), ("layer1.1", "layer1")):
        assert rows[parent]["from"] <= rows[child]["from"]
        assert rows[child]["to"] <= rows[parent]["to"] + 1e-9
    assert rows["layer1.1"]["from"] == pytest.approx(rows["layer1.0"]["to"])
    assert rows["optimizer"]["from"] == pytest.approx(rows["example<net>"]["to"])
    assert rows["optimizer"]["to"] == pytest.approx(1.0)


def test_names_under_the_roofline_keep_apart() -> None:
    (vega,) = (vega for name, vega in compiled(profile_report(profile())) if name == "roofline")
    (names,) = (mark for mark in vega["marks"] if mark.get("name") == "names_marks")
    assert names["transform"][0]["type"] == "label"
    named = {point.name for point in profile().roofline.points}  # type: ignore[union-attr]
    found = re.findall(r"<text [^>]*?translate\(([^)]*)\)[^>]*>([^<]*)</text>", drawn(vega).decode())
    places = [place for place, text in found if text in named]
    assert len(set(places)) == len(places) >= 3, "three points on one spot: their names stand on three sides"


def test_every_picture_is_valid_vega_lite() -> None:
    altair = pytest.importorskip("altair")
    pictures = list(every(Picture, profile_report(profile()).blocks))
    assert pictures
    for picture in pictures:
        altair.LayerChart.from_json(picture.spec, validate=True)  # raises where the schema forbids something


def test_without_the_plotting_library_a_profile_says_what_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    load_scripts.cache_clear()
    try:
        page = render_html(profile_report(profile()))
    finally:
        load_scripts.cache_clear()
    assert "pip install 'archbench[plots]'" in unescape(page)
    assert 'application/json" class="spec' not in page
