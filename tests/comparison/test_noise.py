"""What A/A pairs teach, kept a hardware class at a time."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_environment
from gate_builders import make_cell, make_pair, make_spec
from msgspec import structs

from archbench.comparison.noise import (
    FEWEST,
    MOST_KEPT,
    Noise,
    Threshold,
    known_floor,
    noise_file,
    read_noise,
    write_noise,
)
from archbench.model.errors import UsageError
from archbench.stats.paired import minimum_detectable_effect

CLASS = "AMD EPYC 7B13 x2 AVX2"
SETTINGS = {"turns": 16, "turn_s": 0.1}


SPEC = make_spec([make_cell()], learning=True, **SETTINGS)


def pairs(ratios, day=1, **columns):
    began = f"2026-03-{day:02d}T10:00:00.000+00:00"
    return [structs.replace(make_pair(ratio, **columns), started_at=began) for ratio in ratios]


def learnt(**cells):
    return Noise(hardware_class=CLASS).learnt({name: pairs(ratios) for name, ratios in cells.items()}, SPEC)


def scatter(sd, count=24, seed=0):
    return np.random.default_rng(seed).normal(0, sd, count).tolist()


def test_a_quiet_cell_keeps_the_usual_thresholds():
    threshold = learnt(a=scatter(0.006)).threshold("a", **SETTINGS)
    assert (threshold.screen, threshold.confirm, threshold.noisy) == (0.01, 0.015, False)
    assert threshold.spread == pytest.approx(0.006, rel=0.35)


def test_a_noisy_cell_has_half_of_what_it_can_show():
    threshold = learnt(a=scatter(0.04)).threshold("a", **SETTINGS)
    assert threshold.noisy
    shown = minimum_detectable_effect(threshold.spread, 12)
    assert threshold.confirm == pytest.approx(shown / 2)
    assert threshold.screen == pytest.approx(shown / 3)


def test_one_wild_pair_does_not_make_a_cell_noisy():
    assert not learnt(a=[*scatter(0.005, 11), 0.4]).threshold("a", **SETTINGS).noisy


def test_too_few_pairs_and_pairs_of_other_turns_teach_nothing():
    assert learnt(a=scatter(0.04, FEWEST - 1)).threshold("a", **SETTINGS) == Threshold()
    assert learnt(a=scatter(0.04)).threshold("a", turns=4, turn_s=0.1) == Threshold()
    assert learnt(a=scatter(0.04)).threshold("b", **SETTINGS) == Threshold()


def test_it_learns_on_and_forgets_the_oldest_gate():
    noise = learnt(a=[0.1] * 12, b=[0.0])
    for day in range(2, 2 + MOST_KEPT):
        noise = noise.learnt({"a": pairs([0.0] * 12, day)}, SPEC)
    (a, b) = noise.cells
    assert a.log_ratios == (0.0,) * 12 * MOST_KEPT
    assert b.log_ratios == (0.0,)


def test_a_gate_that_goes_on_teaches_what_is_new_and_nothing_twice():
    some = learnt(a=[0.0] * 3)
    assert some.learnt({"a": pairs([0.0] * 3)}, SPEC) == some
    (a,) = some.learnt({"a": pairs([0.0] * 12)}, SPEC).cells
    assert len(a.log_ratios) == 12


@pytest.mark.parametrize(
    "other",
    [
        {"turns": 8},
        {"base_environment": make_environment(torch_version="2.12.0")},
        {"base": structs.replace(SPEC.base, identity="/another/python")},
    ],
)
def test_other_turns_libraries_or_code_are_learnt_anew(tmp_path, other):
    """Twelve pairs before and twelve after something made the cell 20 % faster are no floor of 40 %."""
    spec = structs.replace(SPEC, **other)
    before = Noise(hardware_class=CLASS).learnt({"a": pairs(scatter(0.004, 12), base_s=0.012)}, SPEC)
    noise = before.learnt({"a": pairs([0.2] * 12, 2)}, spec)
    (a,) = noise.cells
    assert a.log_ratios == pytest.approx((0.2,) * 12)
    assert a.base_s == (0.01,) * 12
    write_noise(noise, tmp_path)
    assert known_floor(CLASS, tmp_path).spread == 0


def test_unfit_pairs_teach_nothing():
    unfit = make_pair(0.3, head={"verdict": "invalid", "reasons": ("throttled",)})
    assert Noise(hardware_class=CLASS).learnt({"a": [unfit]}, SPEC).cells == ()


def test_it_is_kept_and_read_again(tmp_path):
    noise = learnt(a=scatter(0.01))
    place = write_noise(noise, tmp_path)
    assert place.name == "AMD_EPYC_7B13_x2_AVX2.json"
    assert read_noise(CLASS, tmp_path) == noise
    assert read_noise("another", tmp_path) == Noise(hardware_class="another")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"hardware_class": 3}'])
def test_a_damaged_file_is_named(tmp_path, content):
    place = noise_file(CLASS, tmp_path)
    place.write_bytes(content)
    with pytest.raises(UsageError, match=place.name):
        read_noise(CLASS, tmp_path)


def test_the_floor_of_stored_comparisons_is_how_far_the_bases_lie_apart(tmp_path):
    """Not how far the sides of a pair do: whoever took turns shared the machine's moods."""
    assert known_floor(CLASS, tmp_path) is None
    bases = (0.01 * np.exp(scatter(0.05, 30))).tolist()
    together = [make_pair(0.001, base_s=base_s) for base_s in bases]
    write_noise(Noise(hardware_class=CLASS).learnt({"a": together, "b": together[:3]}, SPEC), tmp_path)
    floor = known_floor(CLASS, tmp_path)
    sd = np.log(bases).std(ddof=1)
    assert floor.spread == pytest.approx(np.expm1(2.0452 * np.sqrt(2) * sd), rel=1e-4)  # t of 29
    assert floor.origin.startswith("gate --aa of 20")
    write_noise(learnt(a=[0.0] * (FEWEST - 1)), tmp_path)
    assert known_floor(CLASS, tmp_path) is None
