"""Rank flips: counted over comparable pairs, named, and only beyond the noise; against a plain double loop."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.choose import toggles as module
from archbench.choose.cell_summary import CellSummary
from archbench.choose.toggles import rank_flips


def timed(variant: str, setting: str, step: float | None, half: float | None = 1e-9, **fields: object) -> CellSummary:
    blank = dict.fromkeys(CellSummary.__struct_fields__)
    usual = {"phase": "inference", "batch_size": 1, "input_size": 224, "status": "ok", "verdict": "ok"}
    ends = {}
    if step is not None and half is not None:
        ends = {"rank_latency_low_s": step * math.exp(-half), "rank_latency_high_s": step * math.exp(half)}
    mine = {"variant": variant, "setting": setting, "rank_latency_s": step, **ends}
    return CellSummary(**{**blank, **usual, **mine, **fields})  # type: ignore[arg-type]


def run(before: dict[str, float], after: dict[str, float], half: float | None = 1e-9) -> list[CellSummary]:
    return [
        timed(name, setting, step, half)
        for setting, steps in (("fp32", before), ("compiled", after))
        for name, step in steps.items()
    ]


CHANGE = [("fp32", "compiled")]


def test_the_pair_that_changes_order_is_named_with_both_ratios() -> None:
    cells = run({"convnext": 1.0, "resnet": 1.12, "vgg": 5.0}, {"convnext": 0.6, "resnet": 0.5, "vgg": 4.0})
    (found,) = rank_flips(cells, CHANGE)
    assert (found.phase, found.batch_size, found.before, found.after) == ("inference", 1, "fp32", "compiled")
    assert (found.pairs, found.flipped) == (3, 1)
    (flip,) = found.named
    assert (flip.faster_before.variant, flip.faster_after.variant) == ("convnext", "resnet")
    assert flip.before.ratio == pytest.approx(1.12)
    assert flip.after.ratio == pytest.approx(1.2)


def test_a_change_within_the_noise_is_none() -> None:
    wide = run({"a": 1.0, "b": 1.12}, {"a": 0.6, "b": 0.5}, half=0.1)
    assert rank_flips(wide, CHANGE)[0].flipped == 0
    narrow = run({"a": 1.0, "b": 1.12}, {"a": 0.6, "b": 0.5}, half=0.07)
    assert rank_flips(narrow, CHANGE)[0].flipped == 1
    bare = run({"a": 1.0, "b": 1.12}, {"a": 0.6, "b": 0.5}, half=None)
    assert rank_flips(bare, CHANGE)[0].flipped == 0, "no interval: nothing can be told"


def test_only_comparable_pairs_are_counted() -> None:
    cells = [
        *run({"a": 1.0, "b": 1.12}, {"a": 0.6, "b": 0.5}),
        timed("c[input_size=299]", "fp32", 0.1, input_size=299),
        timed("c[input_size=299]", "compiled", 9.0, input_size=299),
        timed("half", "fp32", 0.1),
        timed("bad", "fp32", 0.1),
        timed("bad", "compiled", 9.0, verdict="invalid"),
        timed("oom", "fp32", 0.1),
        timed("oom", "compiled", None, status="oom"),
    ]
    (found,) = rank_flips(cells, CHANGE)
    assert (found.pairs, found.flipped) == (1, 1)
    assert rank_flips(cells, [("fp32", "amp")]) == []


times = st.dictionaries(st.sampled_from("abcdefghij"), st.floats(0.01, 100), min_size=2)


@given(times, times, st.floats(1e-9, 0.3), st.integers(1, 4))
def test_as_many_as_a_double_loop_finds(
    before: dict[str, float], after: dict[str, float], half: float, block: int
) -> None:
    common = sorted(before.keys() & after.keys())
    noise = math.hypot(half, half) + 1e-9
    expected = set()
    for one, other in combinations(common, 2):
        then, now = math.log(before[other] / before[one]), math.log(after[other] / after[one])
        if abs(abs(then) - noise) < 1e-6 or abs(abs(now) - noise) < 1e-6:
            return  # on the edge, where rounding decides
        if min(abs(then), abs(now)) > noise and then * now < 0:
            expected.add(frozenset((one, other)))
    whole = module._BLOCK
    module._BLOCK = block
    try:
        found = rank_flips(run(before, after, half), CHANGE)
    finally:
        module._BLOCK = whole
    pairs = {frozenset((one.faster_before.variant, one.faster_after.variant)) for each in found for one in each.named}
    assert pairs == expected
    assert sum(each.pairs for each in found) == math.comb(len(common), 2)


def test_thousands_of_networks_are_counted_in_full_and_named_in_part() -> None:
    names = [f"n{number:04d}" for number in range(1500)]
    before = {name: 1.0 + number for number, name in enumerate(names)}
    after = {name: 2000.0 - number for number, name in enumerate(names)}
    (found,) = rank_flips(run(before, after), CHANGE)
    assert found.flipped == found.pairs == math.comb(1500, 2)
    assert len(found.named) == 200
    strengths = [min(flip.before.ratio, flip.after.ratio) for flip in found.named]
    assert strengths == sorted(strengths, reverse=True)
    everything = (min(before[b] / before[a], after[a] / after[b]) for a, b in combinations(names, 2))
    assert strengths[0] == pytest.approx(max(everything))
