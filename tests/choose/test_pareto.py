"""The Pareto front against its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from archbench.choose.cell_summary import dominating, pareto_front


def test_a_front_by_hand() -> None:
    costs = np.array([[1, 5], [2, 3], [4, 4], [3, 1], [2, 3], [1, 6], [np.nan, 0]], dtype=float)
    assert pareto_front(costs).tolist() == [True, True, False, True, True, False, False]
    assert dominating(costs, costs[2]).tolist() == [False, True, False, True, True, False, False]


@given(arrays(float, st.tuples(st.integers(0, 30), st.integers(1, 3)), elements=st.integers(0, 5).map(float)))
def test_a_row_is_on_the_front_exactly_where_none_dominates_it(costs: np.ndarray) -> None:
    expected = [not dominating(costs, one).any() for one in costs]
    assert pareto_front(costs).tolist() == expected
