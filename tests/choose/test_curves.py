"""Knees of made curves, batches that fit by lines of known slope, and correlations with known ranks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.choose.cell_summary import CellSummary
from archbench.choose.curves import GIB, Curve, Fit, correlations, curves, fit_within


def cell(batch_size: int, **fields: object) -> CellSummary:
    blank = dict.fromkeys(CellSummary.__struct_fields__)
    usual = {
        "variant": "net",
        "phase": "inference",
        "precision": "fp32",
        "memory_format": "contiguous",
        "compile_mode": "off",
        "input_size": 224,
        "status": "ok",
        "verdict": "ok",
    }
    return CellSummary(**{**blank, **usual, "batch_size": batch_size, **fields})  # type: ignore[arg-type]


def fits(curve: Curve, budgets: tuple[int, ...], memory_bytes: int | None = None) -> list[Fit]:
    return [fit_within(budget, curve, memory_bytes) for budget in budgets]


def curve_of(rates: dict[int, float | None]) -> Curve:
    (found,) = curves(cell(batch, rank_throughput_img_s=rate) for batch, rate in rates.items())
    return found


@pytest.mark.parametrize(
    ("rates", "knee", "rising"),
    [
        ({1: 100, 8: 500, 32: 960, 128: 1000}, 32, False),
        ({128: 1000, 1: 100, 32: 940, 8: 500}, 128, True),
        ({1: 1000, 8: 990, 32: 700}, 1, False),
        ({1: 100, 8: 500}, 8, None),
        ({1: 100}, 1, None),
        ({1: 100, 8: None}, 1, None),
        ({1: None}, None, None),
    ],
)
def test_the_knee_is_the_smallest_batch_within_five_percent(
    rates: dict[int, float | None], knee: int | None, rising: bool | None
) -> None:
    found = curve_of(rates)
    assert (found.knee.batch_size if found.knee else None) == knee
    assert found.rising is rising


def test_a_curve_holds_one_network_setting_phase_and_size() -> None:
    cells = [
        cell(1),
        cell(8),
        cell(32, status="oom"),
        cell(8, verdict="invalid"),
        cell(8, status="crashed"),
        cell(1, variant="other"),
        cell(1, phase="training"),
        cell(1, precision="tf32"),
        cell(1, input_size=320),
    ]
    found = curves(cells)
    assert [[one.batch_size for one in each.points] for each in found] == [[1, 8], [1], [1], [1], [1]]
    assert [one.batch_size for one in found[0].failed] == [32]


def test_the_largest_batch_follows_the_line_through_the_predictions() -> None:
    # 1 GiB of weights and 0.25 GiB an image: 4 GiB hold 12 images.
    points = [cell(batch, predicted_peak_bytes=GIB + batch * GIB // 4) for batch in (1, 8)]
    (curve,) = curves(points)
    assert [fit.predicted for fit in fits(curve, (GIB // 2, 4 * GIB, 8 * GIB))] == [0, 12, 28]


def test_stored_lines_hold_beyond_the_batches_that_were_measured() -> None:
    lines = f"{2 * GIB}+0n {GIB}+{GIB // 4}n"  # the steeper piece takes over at four images
    points = [cell(batch, predicted_peak_bytes=2 * GIB, predicted_peak_lines=lines) for batch in (1, 2)]
    (curve,) = curves(points)
    assert [(fit.predicted, fit.at_most) for fit in fits(curve, (GIB, 4 * GIB))] == [(0, False), (12, False)]


def test_beyond_the_stored_peaks_of_an_older_run_a_batch_is_a_bound() -> None:
    (curve,) = curves([cell(batch, predicted_peak_bytes=max(2, batch) * GIB) for batch in (1, 4)])
    inside, beyond = fits(curve, (3 * GIB, 8 * GIB))
    assert (inside.predicted, inside.at_most) == (2, False)
    assert beyond.predicted >= 8
    assert beyond.at_most


def test_a_peak_that_bends_is_followed_line_by_line() -> None:
    # Weights and gradients up to batch 8, activations beyond.
    points = [cell(batch, predicted_peak_bytes=max(2, batch) * GIB) for batch in (1, 8, 32)]
    (curve,) = curves(points)
    assert [fit.predicted for fit in fits(curve, (4 * GIB, 16 * GIB, 80 * GIB))] == [3, 16, 80]


def test_one_prediction_gives_no_line() -> None:
    (curve,) = curves([cell(1, predicted_peak_bytes=GIB), cell(8)])
    assert fits(curve, (4 * GIB,))[0].predicted is None
    (flat,) = curves([cell(1, predicted_peak_bytes=GIB), cell(8, predicted_peak_bytes=GIB)])
    assert fits(flat, (4 * GIB,))[0].predicted is None


def test_measured_batches_bound_it_from_both_sides() -> None:
    (curve,) = curves(
        [
            cell(1, peak_allocated_bytes=GIB, peak_reserved_bytes=2 * GIB),
            cell(8, peak_allocated_bytes=3 * GIB, peak_reserved_bytes=6 * GIB),
            cell(32, status="oom"),
        ]
    )
    small, middle, large = fits(curve, (4 * GIB, 8 * GIB, 80 * GIB), memory_bytes=16 * GIB)
    assert (small.measured, small.exceeded) == (1, 8)
    assert (middle.measured, middle.exceeded) == (8, 32)
    assert (large.measured, large.exceeded) == (8, None), "running out of 16 GiB says nothing about 80"


lines = st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**7)), min_size=1, max_size=4)


@given(lines, st.lists(st.integers(1, 300), min_size=2, max_size=5, unique=True), st.integers(0, 4 * 10**9))
def test_between_predictions_the_batch_is_never_too_large(
    model: list[tuple[int, int]], batches: list[int], budget: int
) -> None:
    def peak(batch: int) -> int:
        return max(constant + slope * batch for constant, slope in model)

    (curve,) = curves(cell(batch, predicted_peak_bytes=peak(batch)) for batch in batches)
    predicted = fits(curve, (budget,))[0].predicted
    assert predicted is not None
    batches.sort()
    if any(peak(small) <= budget <= peak(large) for small, large in pairwise(batches)):
        assert peak(predicted) <= budget * (1 + 1e-12)
    if len(model) == 1:
        ((constant, slope),) = model
        assert predicted == pytest.approx(max(0, (budget - constant) // slope), abs=1)


def test_a_perfect_predictor_a_reversed_one_and_a_useless_one() -> None:
    cells = [
        cell(1, variant=f"n{k}", rank_latency_s=k + 1.0, macs=10 * k + 5, activations=100 - k, params=7)
        for k in range(6)
    ]
    found = {one.predictor: one for one in correlations(cells)}
    assert set(found) == {"macs", "activations"}, "equal parameters have no order"
    assert found["macs"].rho == pytest.approx(1.0)
    assert found["macs"].networks == 6
    assert found["activations"].rho == pytest.approx(-1.0)
    ends = [(one.low, one.high) for one in found.values()]
    assert ends == [(None, None)] * 2, "six networks in order by luck are no certainty"


def test_rho_and_its_interval_by_hand() -> None:
    # Ranks of MACs against times 1..6: 2 1 4 3 6 5, so the squared differences add to 6: rho = 1 - 6 x 6 / (6 x 35).
    macs = [20, 10, 40, 30, 60, 50]
    cells = [
        cell(1, variant=f"n{k}", rank_latency_s=k + 1.0, macs=count, activations=k, params=k)
        for k, count in enumerate(macs)
    ]
    found = next(one for one in correlations(cells) if one.predictor == "macs")
    rho = 1 - 36 / 210
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 3)
    assert found.rho == pytest.approx(rho)
    assert found.low == pytest.approx(math.tanh(math.atanh(rho) - half))
    assert found.high == pytest.approx(math.tanh(math.atanh(rho) + half))


def test_few_networks_and_unlike_cells_have_no_correlation() -> None:
    def some(count: int, **fields: object) -> list[CellSummary]:
        return [
            cell(
                1, **{"variant": f"n{k}", "rank_latency_s": k + 1.0, "macs": k, "activations": k, "params": k, **fields}
            )
            for k in range(count)
        ]

    assert correlations(some(4)) == []
    assert correlations([*some(4), *some(4, phase="training"), *some(3, verdict="invalid")]) == []
    assert correlations(some(9, macs=None)) == []
