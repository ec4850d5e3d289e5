"""Taking turns: with processes whose true cost is known, and which die, hang and lie as they are told."""

from __future__ import annotations

import math
import time
from typing import Any

import psutil
import pytest
from turn_fakes import make_request, make_turn_worker, play
from worker_fakes import make_environment

from archbench.model.comparison import Frozen
from archbench.worker import turns
from archbench.worker.turns import InterleavedProcess, fit_together


@pytest.fixture(scope="module")
def workers():
    with make_turn_worker() as base, make_turn_worker() as head:
        base.start()
        head.start()
        yield [base, head]


def statuses(pair):
    return [row.status for row in pair.rows]


def test_a_known_ratio_comes_out_of_jitter_and_a_ramp_that_both_share(workers):
    noise: dict[str, Any] = {"jitter": 0.002, "ramp_per_s": 2.0, "since": time.monotonic()}
    pairs = [play(workers, make_request(**noise), make_request(**noise, true_s=0.0103), seed=n) for n in range(3)]
    for pair in pairs:
        assert pair.log_ratio() == pytest.approx(math.log(1.03), abs=0.004)
        assert len(pair.turns) == 9
    # The ramp is in the times, and not in the ratio. Nine turns of a fake take a few milliseconds, in which the jitter
    # can hide it; between the first pair and the last lie the starts of four processes.
    assert pairs[-1].turns[-1].seconds[0] > 1.01 * pairs[0].turns[0].seconds[0]


def test_without_turns_the_ramp_is_in_the_ratio(workers):
    """What turn-taking is for: whole processes one after the other see another machine."""
    alternate = Frozen(warmup_steps=(5, 5), steps=(10, 10), alternate=True)
    request = make_request(ramp_per_s=20.0, since=time.monotonic())
    apart = play(workers, request, request, frozen=alternate)
    together = play(workers, request, request, frozen=Frozen(warmup_steps=(5, 5), steps=(10, 10)))
    ratio_apart, ratio_together = apart.log_ratio(), together.log_ratio()
    assert ratio_apart is not None
    assert ratio_together is not None
    assert abs(ratio_apart) > 3 * abs(ratio_together)
    assert apart.frozen.alternate


def test_never_two_at_once_and_either_may_be_first(workers, tmp_path):
    busy = str(tmp_path / "busy")
    pair = play(workers, make_request(busy=busy), make_request(busy=busy), turns=20)
    assert statuses(pair) == ["ok", "ok"]
    assert {turn.first for turn in pair.turns} == {0, 1}


def test_both_sides_have_the_same_warmup_and_the_same_steps_in_a_block(workers, tmp_path):
    log = tmp_path / "log"
    pair = play(workers, make_request("base", needs=7, log=str(log)), make_request("head", needs=12, log=str(log)))
    assert pair.frozen == Frozen(warmup_steps=(12, 12), steps=(10, 10))
    lines = log.read_text().splitlines()
    assert "base warm 5 0" in lines, "the one that needed less makes up for it"
    assert {line.split()[-1] for line in lines if "turn" in line} == {"10"}
    log.unlink()
    play(workers, make_request("base", log=str(log)), make_request("head", log=str(log)), frozen=pair.frozen)
    assert sorted(line for line in log.read_text().splitlines() if "warm" in line) == [
        "base warm 12 1",
        "head warm 12 1",
    ]


def test_cells_of_a_duel_have_numbers_of_their_own(workers):
    pair = play(workers, make_request("quick", needs=7), make_request("slow", needs=3, true_s=0.05), alike=False)
    assert pair.frozen == Frozen(warmup_steps=(7, 3), steps=(10, 2))
    assert pair.log_ratio() == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("moment", "act", "status", "says"),
    [
        ("build", "error", "error", "error at build"),
        ("warmup", "die", "crashed", "exited with code 7: my last words"),
        ("turn4", "kill", "crashed", "SIGKILL"),
        ("turn0", "babble", "crashed", "said Built where TurnTaken was to come"),
        ("turn2", "kill-host", "crashed", "worker killed by SIGKILL"),
        ("start", "die", "crashed", "exited with code 7"),
        ("finish", "die", "crashed", "exited with code 7"),
    ],
)
def test_a_failing_head_is_a_row_and_the_base_shows_that_it_works(workers, moment, act, status, says):
    pair = play(workers, make_request(), make_request(**{moment: act}))
    assert statuses(pair) == ["ok", status]
    assert says in pair.rows[1].error_message
    assert pair.log_ratio() is None
    assert play(workers, make_request(), make_request()).log_ratio() == 0, "the next pair is none the worse"


def test_a_hanging_child_is_killed_and_is_a_timeout(workers, monkeypatch):
    monkeypatch.setattr(turns, "TURN_LEAST_PATIENCE_S", 0.3)
    monkeypatch.setattr(turns, "TURN_PATIENCE", 1.0)
    pair = play(workers, make_request(turn3="hang"), make_request())
    assert statuses(pair) == ["timeout", "ok"]
    assert pair.rows[0].error_phase == "turns"
    assert play(workers, make_request(), make_request()).log_ratio() == 0


def test_processes_predicted_not_to_fit_run_one_after_the_other(workers):
    big = make_request(survey=True, predicted=1 << 60)
    pair = play(workers, big, big)
    assert pair.frozen.alternate
    assert pair.frozen.warmup_steps[0] == pair.frozen.warmup_steps[1]
    assert pair.log_ratio() == 0


def test_running_out_of_memory_together_is_tried_apart(workers, tmp_path):
    once = str(tmp_path / "once")
    pair = play(workers, make_request(), make_request(build="oom", once=once))
    assert statuses(pair) == ["ok", "ok"]
    assert pair.frozen.alternate


def test_running_out_of_memory_alone_is_a_row(workers):
    pair = play(workers, make_request(), make_request(build="oom"))
    assert statuses(pair) == ["ok", "oom"]
    assert pair.log_ratio() is None


def test_what_fits_is_a_matter_of_the_device():
    environment = make_environment()  # 1 GiB
    assert fit_together([1 << 20, 1 << 20], environment)
    assert not fit_together([300 << 20, 300 << 20], environment), "each also holds its libraries"
    assert fit_together([None, 1 << 60], environment), "what is not known is tried"


def test_rejected_turns_are_repeated_up_to_half_as_many_again(workers):
    pair = play(workers, make_request(rejects=3), make_request(), turns=8)
    assert sum(turn.kept for turn in pair.turns) == 8
    assert len(pair.turns) == 11
    worst = play(workers, make_request(rejects=100), make_request(), turns=8)
    assert len(worst.turns) == 12
    assert worst.log_ratio() is None
    assert not any(turn.kept for turn in worst.turns)


def test_whoever_waits_burns_no_cpu(workers):
    process = InterleavedProcess(workers[0], make_request())
    process.begin()
    child = psutil.Process(process.surveyed().pid)
    process.build()
    process.built()
    process.warm_up(None)
    processes = [child, child.parent()]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(0.5)
    after = [sum(process.cpu_times()[:2]) for process in processes]
    process.take_turn(1, 0.1)
    assert max(b - a for a, b in zip(before, after, strict=True)) <= 0.02, "two ticks of the kernel's clock"
    assert process.finish().status == "ok"
