"""Two profiles aligned, and one on the screen: whatever is folded or moved together, the sums stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_profiles import Leaf, make_profile

from archbench.choose.profile_difference import difference
from archbench.model.profile import Roofline, RooflinePoint
from archbench.rendering.profile_charts import HEIGHT, WIDTH, sketch
from archbench.rendering.profile_report import lines

A = make_profile(
    {
        "stem": Leaf(1.0, shape=(8, 8, 8)),
        "layer1.conv": Leaf(2.0, 4.0, kept=10, shape=(8, 8, 8)),
        "layer2.conv": Leaf(3.0, 1.0, kept=5, shape=(16, 4, 4)),
        "head": Leaf(0.5, shape=(10,)),
    },
    ["layer1", "layer2", "head"],
    optimizer_s=0.5,
)
B = make_profile(
    {
        "features.0": Leaf(1.5, shape=(8, 8, 8)),
        "features.1.conv": Leaf(1.0, 1.0, kept=30, shape=(8, 8, 8)),
        "features.2": Leaf(5.0, 1.0, kept=2, shape=(16, 4, 4)),
        "tokens": Leaf(1.0, shape=(17, 8)),
        "classifier": Leaf(0.25, shape=(10, 1, 1)),
    },
    ["features.0", "features.1", "features.2"],
    optimizer_s=0.25,
    cell={"name": "other"},
)


def test_two_networks_are_aligned_by_resolution_and_add_up() -> None:
    found = difference(A, B)
    rows = {row.name: row for row in found.rows}
    assert found.aligned_by == "resolution"
    assert [row.name for row in found.rows] == ["8x8", "4x4", "17 tokens", "vector", "between stages", "optimizer"]
    assert (rows["8x8"].base.seconds, rows["8x8"].other.seconds) == (7.0, 3.5)
    assert rows["8x8"].base.names == ("layer1",)
    assert rows["8x8"].other.names == ("features.0", "features.1")
    assert (rows["4x4"].base.saved_bytes, rows["4x4"].other.saved_bytes) == (5, 2)
    assert (rows["vector"].base.seconds, rows["vector"].other.seconds) == (0.5, 0.25)
    assert sum(row.change_s for row in found.rows) == pytest.approx(found.change_s)
    assert found.change_s == pytest.approx(B.step_s - A.step_s)


def test_two_settings_are_aligned_by_stage_or_by_module() -> None:
    faster = make_profile(
        {
            "stem": Leaf(0.5),
            "layer1.conv": Leaf(1.0, 2.0),
            "layer2.conv": Leaf(3.0, 1.0),
            "head": Leaf(0.5),
        },
        ["layer1", "layer2", "head"],
        optimizer_s=0.5,
    )
    found = difference(A, faster)
    assert found.aligned_by == "stage"
    assert {row.name: row.change_s for row in found.rows if row.change_s} == {"stem": -0.5, "layer1": -3.0}
    deep = difference(A, faster, depth=2)
    assert deep.aligned_by == "module"
    assert {row.name: row.change_s for row in deep.rows if row.change_s} == {"stem": -0.5, "layer1.conv": -3.0}


names = st.sampled_from(["a", "b.c", "b.d", "b.e.f", "g.h", "g.i.j"])


@settings(deadline=None, max_examples=50)
@given(
    leaves=st.dictionaries(names, st.builds(Leaf, st.integers(1, 9), st.integers(0, 9)), min_size=1),
    depth=st.none() | st.integers(0, 4),
    stages=st.lists(st.sampled_from(["a", "b.c", "b.e", "g"]), unique=True),
)
def test_whatever_is_folded_the_screen_adds_up(leaves: dict[str, Leaf], depth: int | None, stages: list[str]) -> None:
    """The leaves of what is shown, folds included, make the whole step."""
    profile = make_profile(leaves, [one for one in stages if any(f"{n}.".startswith(f"{one}.") for n in leaves)])
    shown = lines(profile, depth=depth, stage="")
    bottom = [
        line for line, below in zip(shown, [*shown[1:], None], strict=True) if not below or below.depth <= line.depth
    ]
    assert sum(line.share for line in bottom) == pytest.approx(1.0)


def test_one_stage_alone() -> None:
    assert [line.label for line in lines(A, depth=None, stage="layer1")] == ["layer1", "conv"]


def point(name: str, intensity: float, flops: float, share: float = 0.5) -> RooflinePoint:
    return RooflinePoint(name=name, intensity=intensity, achieved_flops=flops, share=0.5, time_share=share)


def test_the_sketch_keeps_its_bounds_and_names_every_point() -> None:
    points = (point("far", 1e-4, 10.0), point("high", 1e5, 3e12), point("all", 50.0, 4e11, 1.0))
    roofline = Roofline(
        peak_flops=1e12, bandwidth=1e10, points=points, device_busy_s=None, launch_gap_s=None, host_s=None
    )
    ceilings, canvas, legend = sketch(roofline)
    assert "ridge at 100 FLOP/byte" in ceilings.text
    body = canvas.text.splitlines()
    assert len(body) == HEIGHT
    assert max(map(len, body)) <= WIDTH
    text = "\n".join(body)
    assert all(text.count(letter) == 1 for letter in "ab#")
    assert text.count("-") > 0
    assert text.count("/") > 0
    assert "far: " in legend.text
