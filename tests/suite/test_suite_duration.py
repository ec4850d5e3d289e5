"""How long a run will take: the protocol's rules in closed form, and what stored rows put in their place."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from builders import make_record
from msgspec import structs

from archbench.device.cuda import H100
from archbench.device.kind import kind_named
from archbench.model.cell import Network
from archbench.model.protocol import protocol_for
from archbench.model.record import Record
from archbench.model.suite import PERCENTILES, Axes, Suite
from archbench.results import RunStore
from archbench.stats.intervals import minimum_samples
from archbench.suite.duration import PHASES, SAMPLES, Countdown, learned, predict, shared_s
from archbench.suite.plan import Room, arranged, make_plan

SUITE = Suite(suite="s", architectures=(Network(name="resnet18"),), axes=Axes(batch_size=(1, 8)), percentiles=())
QUIET = structs.replace(H100, noise=0.0, monitor=0.0)


def row(cell_id: str, *, step: float, duration: float) -> Record:
    return structs.replace(
        make_record(), cell_id=cell_id, round=0, visit=0, status="ok", latency_median_s=step, duration_s=duration
    )


def test_phases_follow_from_the_protocol_and_the_step_times() -> None:
    plan = make_plan(SUITE, "cuda")
    protocol = protocol_for("cuda", {})
    steps = {plan.cells[0].cell_id: 1e-3, plan.cells[1].cell_id: 0.5}
    prediction = predict(plan, SUITE, structs.replace(QUIET, steps=steps))
    assert tuple(prediction.phases) == PHASES
    assert prediction.phases["processes"] == QUIET.process
    # A fast step is measured for the shortest time allowed, a slow one so many times as the rules want, of which the
    # warm-up has taken two of its three blocks of two.
    slow = (protocol.min_samples_slow - 4) * 0.5
    assert prediction.phases["latency"] == pytest.approx(protocol.min_sampling_s + slow)
    # A step as long as a burst is timed once, for both.
    assert prediction.phases["throughput"] == pytest.approx(protocol.min_throughput_s)
    alone = structs.replace(SUITE, metrics=("throughput",))
    bursts = protocol.min_bursts * 0.5
    assert predict(plan, alone, structs.replace(QUIET, steps=steps)).phases["throughput"] == pytest.approx(
        protocol.min_throughput_s + bursts
    )
    # A CPU has no queue: what latency times is all.
    assert predict(make_plan(SUITE, "cpu"), SUITE, QUIET).phases["throughput"] == 0.0
    assert prediction.total == pytest.approx(sum(prediction.phases.values()))
    outside = prediction.phases["start"] + prediction.phases["report"]
    assert sum(prediction.visits.values()) == pytest.approx(prediction.total - outside)


def test_percentiles_need_the_samples_that_statistics_say() -> None:
    assert {percent: minimum_samples(percent) for percent in PERCENTILES} == SAMPLES


def test_a_network_is_counted_once_a_run_and_a_search_costs_by_its_plans() -> None:
    once = predict(make_plan(SUITE, "cuda"), SUITE, QUIET).phases
    thrice = predict(make_plan(SUITE, "cuda", rounds=3), SUITE, QUIET).phases
    assert thrice["counts"] == once["counts"] > 0
    assert thrice["build"] == pytest.approx(3 * once["build"])
    every_plan = structs.replace(SUITE, protocol={"cudnn_benchmark_limit": 10})
    at_once = structs.replace(QUIET, steps={cell.cell_id: 0.25 for cell in make_plan(SUITE, "cuda").cells})
    four, ten = (
        predict(make_plan(suite, "cuda"), suite, at_once).phases["cuDNN search"] for suite in (SUITE, every_plan)
    )
    runs_s = 4 * 0.5 * 0.5  # of each plan, of half of a step, of both cells
    assert four - 4 * runs_s == pytest.approx((ten - 10 * runs_s) * (0.2 + 0.8 * 0.4))


def test_jobs_side_by_side_share_the_cores() -> None:
    assert shared_s([3.0], [1.0], 1) == 3.0
    assert shared_s([3.0, 3.0], [1.0, 1.0], 1) == 6.0
    assert shared_s([1.0, 3.0], [1.0, 1.0], 1) == 4.0  # one at half its speed for 2 s, then alone
    assert shared_s([1.0, 3.0], [1.0, 1.0], 2) == 3.0
    assert shared_s([2.0, 2.0], [2.0, 2.0], 3) == pytest.approx(2 * 4 / 3)


ROOM = Room(kind="cuda", cores=8, memory_bytes=None)


def test_processes_prepared_together_cost_what_the_longest_does() -> None:
    suite = structs.replace(SUITE, architectures=tuple(Network(name=name) for name in ("resnet18", "vgg16", "alexnet")))
    plan = make_plan(suite, "cuda")
    together, apart = (predict(plan, suite, QUIET, room).phases for room in (ROOM, None))
    prepared = ("processes", "build", "counts")
    longest = max(
        sum(predict(make_plan(one, "cuda"), one, QUIET).phases[phase] for phase in prepared)
        for one in (structs.replace(suite, architectures=(network,)) for network in suite.architectures)
    )
    assert sum(together[phase] for phase in prepared) == pytest.approx(longest)
    assert together["warm-up"] < apart["warm-up"]  # the device is warm for the second and the third
    changed = {phase for phase in PHASES if together[phase] != pytest.approx(apart[phase])}
    assert changed == {*prepared, "warm-up"}


def test_warm_compile_times_are_taken_once_under_the_same_toggles() -> None:
    compiled = structs.replace(SUITE, axes=Axes(batch_size=(1, 8), compile_mode=("default",)), metrics=("compile",))
    rates = structs.replace(QUIET, compile_cold=(10.0, 0.0), compile_warm=(1.0, 0.0), parameter=0.0)
    phases = predict(make_plan(compiled, "cuda"), compiled, rates).phases
    assert phases["compile cold"] == 20.0
    assert phases["compile warm"] == 1.0 + rates.process
    assert phases["cuDNN search"] == 0.0


def test_stored_rows_go_before_constants() -> None:
    plan = make_plan(SUITE, "cpu", rounds=1)
    first, second = plan.cells
    usual = kind_named("cpu").rates(2)
    guessed = predict(plan, SUITE, usual)
    rows = [row(first.cell_id, step=0.05, duration=7.0), row(second.cell_id, step=0.4, duration=40.0)]
    known = learned(usual, [(SUITE, rows)])
    assert known.steps == {first.cell_id: 0.05, second.cell_id: 0.4}
    again = predict(plan, SUITE, known)
    # The two cells' own ratios differ, and their median corrects both: what they took together comes out nearly.
    assert sum(again.visits.values()) == pytest.approx(47.0, rel=0.3)
    assert again.total != pytest.approx(guessed.total, rel=0.05)
    assert "2 stored rows" in again.basis
    # A network that was never measured here is as much slower as those that were.
    other = structs.replace(SUITE, architectures=(Network(name="resnet50"),))
    assert learned(usual, []) == usual
    assert predict(make_plan(other, "cpu"), other, known).total > predict(make_plan(other, "cpu"), other, usual).total


def test_a_compilation_takes_what_its_last_one_took_there() -> None:
    suite = structs.replace(SUITE, axes=Axes(batch_size=(1,), compile_mode=("default",)))
    (cell,) = make_plan(suite, "cpu").cells
    usual = kind_named("cpu").rates(2)
    for given in ({"first_call_s": 3.0}, {"first_call_s": 9.0, "compile_cold_s": 3.0}):
        rows = [structs.replace(row(cell.cell_id, step=0.05, duration=10.0), **given)]
        known = structs.replace(learned(usual, [(suite, rows)]), pace=1.0)
        assert predict(make_plan(suite, "cpu"), suite, known).phases["compile cold"] == pytest.approx(3.0, abs=0.1)


def test_the_committed_run_is_foretold() -> None:
    """Its 84 cells took 12 min 30 s on two cores; constants alone come within a fifth, its own rows within a tenth."""
    path = next((Path(__file__).parents[2] / "results" / "imagenet_backbones").glob("*/environment.json")).parent
    store = RunStore.open(path)
    suite, records = store.suite, list(store.records())
    real = sum(record.duration_s or 0.0 for record in records)
    plan = make_plan(suite, "cpu")
    usual = kind_named("cpu").rates(2, store.environment.hardware_class)
    for rates, error in ((usual, 0.2), (learned(usual, [(suite, records)]), 0.1)):
        assert sum(predict(plan, suite, rates).visits.values()) == pytest.approx(real, rel=error)


def test_16_bits_take_long_where_a_cpu_has_no_arithmetic_for_them() -> None:
    """resnet18's 3.6 GFLOP took 2.2 s on two cores with AVX2 alone, where fp32 took 45 ms."""
    suite = structs.replace(SUITE, axes=Axes(batch_size=(1,), precision=("fp32", "amp-bf16")))
    plan = make_plan(suite, "cpu")

    def seconds(unit: str) -> list[float]:
        rates = kind_named("cpu").rates(2, f"AMD EPYC x2 {unit}".strip())
        return [predict(plan, suite, rates).visits[cell.cell_id, 0, 0] for cell in plan.cells]

    assert seconds("AVX-512") == seconds("AMX") == pytest.approx(seconds(""))
    fp32, bf16 = seconds("AVX2")
    assert fp32 == pytest.approx(seconds("AVX-512")[0])
    assert bf16 > 5 * fp32


def test_a_countdown_follows_the_prediction_and_then_the_run() -> None:
    plan = make_plan(SUITE, "cuda")
    prediction = predict(plan, SUITE, QUIET)
    first, second = (prediction.visits[cell.cell_id, 0, 0] for cell in plan.cells)
    start, report = prediction.phases["start"], prediction.phases["report"]
    countdown = Countdown(prediction, 7.0)
    assert countdown.left_s == pytest.approx(start + first + second + report)
    countdown.finished(row(plan.cells[0].cell_id, step=1e-3, duration=1.0), 7.0 + start + first)
    assert countdown.left_s == pytest.approx(second + report)  # as expected
    slow = Countdown(prediction, 0.0)
    slow.finished(row(plan.cells[0].cell_id, step=1e-3, duration=1.0), start + first + 600.0)
    assert slow.left_s > 5 * second
    slow.finished(row("a stranger", step=1e-3, duration=1.0), start + first + 601.0)
    slow.finished(row(plan.cells[1].cell_id, step=1e-3, duration=1.0), start + first + 602.0)
    assert slow.left_s == pytest.approx(report)


@pytest.mark.parametrize("pace", [0.8, 1.0, 1.25])
def test_the_time_left_is_right_while_waves_prepare_too(pace: float) -> None:
    """Compiling takes every process 20 s, two at a time, in a world that is `pace` times as slow as foretold."""
    networks = ("resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "alexnet", "vgg11", "densenet121")
    axes = Axes(batch_size=(1, 8), compile_mode=("default",))
    suite = structs.replace(
        SUITE,
        architectures=tuple(Network(name=name) for name in networks),
        axes=axes,
        metrics=("latency", "throughput"),
    )
    rates = structs.replace(
        kind_named("cpu").rates(2),
        compile_cold=(20.0, 0.0),
        compile_cores=1.0,
        process=0.0,
        parameter=0.0,
        operator_s=0.0,
    )
    plan = make_plan(suite, "cpu", rounds=1)
    room = Room(kind="cpu", cores=2, memory_bytes=None)
    prediction, alone = predict(plan, suite, rates, room), predict(plan, suite, rates).visits
    events, now = [], pace * prediction.phases["start"]
    for _, members in groupby(arranged(plan.rounds[0], room, suite.metrics), key=itemgetter(0)):
        groups = [group for _, group in members]
        for place in range(2):
            now += pace * 20.0
            for group in groups:
                now += pace * (alone[group.cells[place].cell_id, 0, 0] - 20.0)
                # What a row says of itself: on cores that it shared, compiling took as long as for both.
                events.append((now, row(group.cells[place].cell_id, step=1e-3, duration=pace * 25.0)))
    ends = now + prediction.phases["report"]
    countdown = Countdown(prediction, 0.0)
    off = abs(1 - 1 / pace)
    for at, finished in events:
        countdown.finished(finished, at)
        # What it took so far counts for more and more: at half-time for twice what was foretold.
        known = off if at < ends / 2 else off / 3
        assert countdown.left_s == pytest.approx(ends - at, rel=0.02 + known, abs=1.0)


def test_networks_outside_the_catalogue_and_static_runs_are_foretold_too() -> None:
    strange = structs.replace(SUITE, architectures=(Network(name="mypkg.nets:build"), Network(name="timm:resnet10t")))
    assert predict(make_plan(strange, "cuda"), strange, H100).total > 0
    static = structs.replace(SUITE, metrics=("static",))
    phases = predict(make_plan(static, "cpu"), static, kind_named("cpu").rates(4)).phases
    assert phases["counts"] > 0
    assert phases["latency"] == phases["warm-up"] == 0.0
    # Rows of a static run, the second of which costs nothing by the rules, teach nothing and break nothing.
    cells = make_plan(static, "cpu").cells
    rows = [structs.replace(row(cell.cell_id, step=1.0, duration=0.1), latency_median_s=None) for cell in cells]
    known = learned(kind_named("cpu").rates(4), [(static, rows)])
    assert predict(make_plan(static, "cpu"), static, known).total > 0
