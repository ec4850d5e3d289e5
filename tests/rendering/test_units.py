"""Figures as text: digits follow the interval, units are chosen once, null is a dash."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.model.units import (
    GIB,
    IMAGES,
    MIB,
    MS,
    RATIO,
    duration,
    figure,
    fixed,
    from_on,
    memory_unit,
    percent,
    plain,
    rounded,
    whole,
)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.01234, 0.01217, 0.01251, "12.34 ±0.17"),
        (0.01234, 0.01204, 0.01264, "12.3 ±0.3"),
        (0.01234, 0.01232, 0.01236, "12.34 ±0.02"),
        (1.5234, 1.5000, 1.5468, "1,523 ±23"),
        (0.0000512, 0.0000511, 0.0000513, "0.05120 ±0.00010"),
        (0.012, 0.01190, 0.01300, "12.0 ±1.0"),  # the wider side counts
        (0.0123, 0.012200004, 0.0124, "12.30 ±0.10"),
        (0.012, 0.009, 0.030, "12 (9.0 to 30)"),
        (0.012, 0.0, math.inf, "12 (0 to ∞)"),
        (0.0123456789, 0.0123456788, 0.0123456790, "12.346 ±0.000"),
        (0.0123456789, 0.0123456789, 0.0123456789, "12.3 ±0.0"),
        (0.01234, None, None, "12.3"),
        (0.01234, math.nan, math.nan, "12.3"),
        (0.0001234, None, None, "0.123"),
        (12.34, None, None, "12,340"),
        (0.0, None, None, "0"),
        (None, None, None, "-"),
        (math.nan, 0.1, 0.2, "-"),
    ],
)
def test_digits_follow_the_interval(value: float, low: float, high: float, text: str) -> None:
    assert figure(value, MS, low, high) == text
    assert rounded(value, MS, low, high) == text.split()[0]


@given(
    value=st.floats(1e-7, 1e5),
    width=st.floats(1e-4, 0.2),
)
def test_what_is_printed_is_the_figure(value: float, width: float) -> None:
    text = figure(value, RATIO, value * (1 - width), value * (1 + width))
    shown, half = (float(part.replace(",", "")) for part in text.split(" ±"))
    assert abs(shown - value) <= value * width / 2 + 1e-9  # rounding costs at most half of what is unsure anyway
    assert half == pytest.approx(value * width, rel=0.34, abs=1e-9)


NUMBER = re.compile(r"-?\d{1,3}(,\d{3})*(\.\d+)?(e-?[1-9]\d*)?")


@given(
    value=st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30) | st.integers(-(10**14), 10**14).map(float),
    significant=st.integers(2, 5),
)
def test_a_number_has_its_digits_and_an_exponent_only_where_nobody_would_count_zeros(
    value: float, significant: int
) -> None:
    text = plain(value, significant)
    assert "e+" not in text
    assert value == 0 or NUMBER.fullmatch(text)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - significant) * 1.0001)
    assert ("e" in text) == (value != 0 and not 1e-4 <= abs(value) < 1e12)
    assert plain(value, significant) == figure(value, RATIO) or significant != 3


def test_numbers_as_people_write_them() -> None:
    told = [plain(value) for value in (1850.0, 0.394, 7.88e-32, 2.5e13, 0, None, math.nan, math.inf, 96.96)]
    assert told == ["1,850", "0.394", "7.88e-32", "2.50e13", "0", "-", "-", "∞", "97.0"]


def test_memory_takes_one_unit_for_a_column() -> None:
    assert memory_unit([2**20, math.nan, 10 * 2**30]) is MIB
    assert memory_unit([2**20, 10 * 2**30 + 1]) is GIB
    assert memory_unit([]) is MIB
    assert whole(1_813_000_000, MIB) == "1,729"
    assert fixed(15 * 2**30, GIB, 2) == "15.00"
    assert whole(None, MIB) == fixed(None, GIB, 2) == "-"


def test_percent_and_duration() -> None:
    assert percent(0.0268) == "2.7 %"
    assert percent(-0.061, signed=True) == "-6.1 %"
    assert percent(0.12, signed=True) == "+12 %"
    assert percent(0.0, signed=True) == "0 %"
    assert [duration(s) for s in (0.4, 59.4, 200, 3599.4, 7500)] == [
        "0 s",
        "59 s",
        "3 min 20 s",
        "59 min 59 s",
        "2 h 5 min",
    ]
    assert duration(59.7) == "1 min 0 s"
    assert rounded(43.51, IMAGES, 43.1, 43.9) == "43.5"


@pytest.mark.parametrize(
    ("share", "text"), [(0.05, "5.0 % or more"), (1.3, "a factor of 2.3 or more"), (200.0, "a hundredfold or more")]
)
def test_from_on_says_once_that_more_counts_too(share: float, text: str) -> None:
    assert from_on(share) == text
