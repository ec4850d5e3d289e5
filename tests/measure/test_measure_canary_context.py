"""The canary says how fast the machine is, and not what ran before it."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_settled_reading_does_not_depend_on_what_ran_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose data displace the canary's, a training step and an idle core; a first reading shows them apart."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import canary_context

    found = canary_context.readings(rounds=11).values()
    first = canary_context.apart(one.first_s for one in found)
    settled = canary_context.apart(one.settled_s for one in found)
    assert settled < first / 2, "neighbours slow both: what is left of the context is to be the smaller part"
    assert settled < 0.1
