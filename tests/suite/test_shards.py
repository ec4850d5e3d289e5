"""A suite dealt out to machines: everything once, the same split everywhere, as much work for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import make_suite
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.device.kind import kind_named
from archbench.model.cell import Plan, Shard
from archbench.model.errors import UsageError
from archbench.model.suite import Setting, Suite
from archbench.suite import load_suite
from archbench.suite.duration import predict
from archbench.suite.plan import TWIN_VISITS, Room, make_plan
from archbench.suite.shards import _dealt, _split, parse_shard

SUITES = Path(__file__).parents[2] / "suites"


def visits(plan: Plan) -> Counter[tuple[str, int, int]]:
    return Counter(
        (cell.cell_id, number, group.visit)
        for number, groups in enumerate(plan.rounds)
        for group in groups
        for cell in group.cells
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0/4", "counted from 1, so there are 1/4 to 4/4"),
        ("5/4", "counted from 1, so there are 1/4 to 4/4"),
        ("1/0", "1 to 10,000 shards"),
        ("1/99999", "1 to 10,000 shards"),
        ("3", "write for example --shard 3/16"),
        ("-1/4", "write for example --shard 3/16"),
        ("a/b", "write for example --shard 3/16"),
        ("1/4/2", "write for example --shard 3/16"),
        ("1.5/4", "write for example --shard 3/16"),
        ("", "write for example --shard 3/16"),
    ],
)
def test_what_is_no_shard_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_shard(text)


def test_more_shards_than_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="only 29 groups to share"):
        make_plan(make_suite(), "cpu", shard=parse_shard("1/40"))


@pytest.mark.parametrize("overrides", [{}, {"rounds": None}, {"twin": None}])
@pytest.mark.parametrize("of", [1, 3, 16])
def test_shards_have_every_row_of_the_whole_once_and_each_its_own_visits_of_the_twin(of: int, overrides) -> None:
    suite = make_suite(**overrides)
    whole = visits(make_plan(suite, "cpu"))
    shards = [make_plan(suite, "cpu", shard=Shard(number=number, of=of)) for number in range(1, of + 1)]
    together = sum((visits(plan) for plan in shards), Counter[tuple[str, int, int]]())
    assert max(together.values()) == 1
    assert {key for key in together if key[2] < TWIN_VISITS} == set(whole)
    for number, plan in enumerate(shards):
        twins = {visit for _, _, visit in visits(plan)} - {0}
        mine = set(range(TWIN_VISITS * number, TWIN_VISITS * (number + 1))) - {0}
        assert twins == (mine if suite.twin else set())
        assert plan.shard is not None
        assert plan.shard.rows == sum(visits(plan).values()) + len(plan.skipped)
    assert len({plan.shard.split for plan in shards if plan.shard}) == 1


def test_cells_that_nothing_can_measure_are_in_one_shard_each() -> None:
    suite = make_suite(settings={"fp32": Setting(), "tf32": Setting(precision="tf32")})  # which no CPU has
    whole = make_plan(suite, "cpu")
    assert whole.skipped
    shards = [make_plan(suite, "cpu", shard=Shard(number=number, of=3)) for number in (1, 2, 3)]
    skipped = Counter(skip.cell.cell_id for plan in shards for skip in plan.skipped)
    assert skipped == Counter(skip.cell.cell_id for skip in whole.skipped)


def test_the_split_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard(number=2, of=5)
    here = make_plan(make_suite(), "cpu", shard=shard)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    assert make_plan(make_suite(), "cpu", shard=shard) == here
    reordered = make_suite(architectures=tuple(reversed(make_suite().architectures)))
    assert make_plan(reordered, "cpu", shard=shard).rounds == here.rounds


def test_a_machine_without_a_runtime_splits_as_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from archbench.model import axes

    suite = load_suite(SUITES / "runtimes.yaml")
    with_it = make_plan(suite, "cpu", shard=Shard(number=1, of=3))
    monkeypatch.setattr(axes, "find_spec", lambda name: None)
    without = make_plan(suite, "cpu", shard=Shard(number=1, of=3))
    assert without.skipped
    assert without.shard is not None
    assert with_it.shard is not None
    assert without.shard.split == with_it.shard.split
    everything = [
        {cell for cell, _, _ in visits(plan)} | {s.cell.cell_id for s in plan.skipped} for plan in (with_it, without)
    ]
    assert everything[0] == everything[1]


@pytest.mark.parametrize(
    ("name", "device", "of", "cores", "speed"),
    [
        ("imagenet_backbones", "cuda", 16, 16, 1.0),
        ("imagenet_backbones", "cuda", 8, 16, 1.0),
        ("imagenet_backbones", "cuda", 16, 8, 1.0),
        ("imagenet_backbones", "cuda", 16, 8, 4.0),
        ("imagenet_backbones", "cpu", 8, 2, 1.0),
        ("imagenet_backbones", "cpu", 8, 96, 1.0),
        ("imagenet_all", "cpu", 8, 8, 1.0),
        ("imagenet_all", "cpu", 4, 2, 1.0),
        ("imagenet_all", "cpu", 4, 96, 1.0),
        ("quick_decision", "cuda", 4, 16, 1.0),
        ("compile_modes", "cuda", 4, 16, 1.0),
        ("runtimes", "cpu", 4, 2, 1.0),
        ("runtimes", "cpu", 4, 8, 4.0),
    ],
)
def test_shards_are_predicted_to_take_equally_long(
    split_once: None, name: str, device, of: int, cores: int, speed: float
) -> None:
    """Also on other machines than those that groups are weighed for; prepared side by side, as runs are, or alone."""
    suite = shipped(name)
    rates = msgspec.structs.replace(kind_named(device).rates(cores), speed=speed)
    plans = [shard_plan(name, device, Shard(number=number, of=of)) for number in range(1, of + 1)]
    for room in (Room(kind=device, cores=one, memory_bytes=rates.memory_bytes) for one in (cores, 1)):
        took = [sum(predict(plan, suite, rates, room).visits.values()) for plan in plans]
        mean = sum(took) / of
        assert max(took) <= 1.10 * mean
        assert min(took) >= 0.90 * mean


@cache
def shipped(name: str) -> Suite:
    return load_suite(SUITES / f"{name}.yaml")


@cache
def shard_plan(name: str, device, shard: Shard) -> Plan:
    return make_plan(shipped(name), device, shard=shard)


@pytest.fixture(scope="module")
def split_once() -> Iterator[None]:
    """A split takes seconds to find, and all shards of a suite find the same, as is tested above: here once for all."""
    found: dict[tuple[str, ...], Any] = {}

    def split(groups, of, plan_of, suite):
        key = (suite.suite, str(of), *sorted(groups))
        if key not in found:
            found[key] = _split(groups, of, plan_of, suite)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("archbench.suite.shards._split", split)
        yield


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 10**7), min_size=1), st.integers(1, 9))
def test_no_shard_is_heavier_than_the_mean_by_more_than_one_group(weights: dict[str, int], shards: int) -> None:
    dealt = _dealt({name: (weight,) for name, weight in weights.items()}, shards)
    assert sorted(name for names in dealt for name in names) == sorted(weights)
    loads = [sum(weights[name] for name in names) for names in dealt]
    assert max(loads) <= sum(loads) / shards + max(weights.values()) + 1e-6 * sum(loads)
