"""A whole gate with made-up processes: what is played, kept, resumed, and what stops it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gate_builders import make_spec
from gate_parent import cells_of
from turn_fakes import make_turn_worker
from worker_fakes import is_running, wait_until

from archbench.comparison.gate import LEARNING_PAIRS, GatePlay, GateSpec, conclude, finish, refuse_other
from archbench.comparison.interleave import PairStore, StoredPair, find_stores
from archbench.comparison.noise import read_noise
from archbench.comparison.schedule import PairLog
from archbench.comparison.sides import SideRun
from archbench.model.cell import Cell, Group, Network, Plan
from archbench.model.errors import UnfitError, UsageError
from archbench.model.protocol import Protocol
from archbench.rendering.comparison_formats import render_comparison
from archbench.results.files import write_json

TESTS = Path(__file__).parents[1]
PARENT = str(Path(__file__).with_name("gate_parent.py"))


@pytest.fixture(scope="module")
def workers():
    with make_turn_worker() as base, make_turn_worker() as head:
        yield [base, head]


def cell_of(name, **options):
    return Cell(network=Network(name=name, options={"true_s": 0.01, "jitter": 0.001, **options}), batch_size=1)


def gate(folder, workers, *cells, max_time_s=None, sides=None, **overrides):
    """Play a gate; give its play and its comparison."""
    spec = make_spec(cells, **overrides)
    store = PairStore.create(folder, spec, suite="suite: tiny\n")
    play = GatePlay(spec, store, cells, Protocol())
    runs = sides or [SideRun(python=sys.executable, env={})] * 2
    list(play.play(workers, runs, max_time_s=max_time_s))
    return play, conclude(spec, list(play.logs.values()))


def test_identical_sides_are_the_same_in_three_pairs_a_cell(tmp_path, workers):
    play, result = gate(tmp_path / "g", workers, *(cell_of(name) for name in "abc"))
    assert [cell.verdict for cell in result.cells] == ["same"] * 3
    assert result.exit_code() == 0
    assert len(list((tmp_path / "g" / "pairs").iterdir())) == 9
    assert not play.next_pairs()
    (numbers,) = {log.frozen for log in play.logs.values()}
    assert all(pair.frozen == numbers for log in play.logs.values() for pair in log.everything)
    rounds = [row.round for log in play.logs.values() for pair in log.everything for row in pair.rows]
    assert sorted(set(rounds)) == [0, 1, 2]


def test_the_head_that_is_slower_is_found_and_nobody_else(tmp_path, workers):
    slow = cell_of("slow")
    # One cell whose head sees other options: the fake reads them from the environment of its side.
    with make_turn_worker(env={**os.environ, "ARCHBENCH_TEST_SLOWDOWN": "slow:1.05"}) as head:
        _, result = gate(tmp_path / "g", [workers[0], head], cell_of("a"), slow, cell_of("b"))
    verdicts = {cell.architecture: cell.verdict for cell in result.cells}
    assert verdicts == {"a": "same", "slow": "slower", "b": "same"}
    assert result.exit_code() == 1
    (found,) = result.having("slower")
    assert found.ratio == pytest.approx(1.05, abs=0.003)
    assert found.pairs == 12


def test_dead_and_hanging_children_are_findings(tmp_path, workers):
    bad = cell_of("bad", turn1="die")
    play, result = gate(tmp_path / "g", workers, bad, cell_of("good"))
    verdicts = {cell.architecture: (cell.verdict, cell.why.code) for cell in result.cells}
    assert verdicts == {"bad": ("invalid", "failed"), "good": ("same", "equivalent")}
    assert len(play.logs[bad.cell_id].everything) == 2


@pytest.mark.parametrize("midst", [False, True])
def test_a_pair_whose_worker_is_killed_is_played_again(tmp_path, midst):
    """By a real SIGKILL, between two pairs that share their workers, and in the midst of one."""
    import psutil

    cells = [cell_of(name) for name in "abc"]
    spec = make_spec(cells)
    store = PairStore.create(tmp_path / "g", spec, suite="suite: tiny\n")
    play = GatePlay(spec, store, cells, Protocol())
    with make_turn_worker() as base, make_turn_worker() as head:
        killer = threading.Thread(target=lambda: kill(head._worker._process.pid))

        def kill(victim):
            if midst:
                wait_until(lambda: bool(psutil.Process(victim).children()))
            os.kill(victim, signal.SIGKILL)

        def kill_after_the_first(played):
            if played.pairs_done == 1:  # the other cells' first pairs come from the same workers
                killer.start()
                if not midst:
                    killer.join()

        sides = [SideRun(python=sys.executable, env={})] * 2
        for played in play.play([base, head], sides, max_time_s=None):
            kill_after_the_first(played)
    result = conclude(spec, list(play.logs.values()))
    assert [cell.verdict for cell in result.cells] == ["same"] * 3
    wasted = sum(log.wasted for log in play.logs.values())
    # At its child's first moment the worker may yet be replaced before the pair has begun.
    assert wasted in ((0, 1) if midst else (1,))
    assert play.pairs_done == 9 + wasted


def test_time_that_runs_out_leaves_cells_undecided_with_the_reason(tmp_path, workers):
    _, result = gate(tmp_path / "g", workers, *(cell_of(name) for name in "abc"), max_time_s=0.0)
    # What a pair takes is not known before the first one, which is therefore begun at most once.
    assert {cell.why.code for cell in result.cells} == {"out_of_time"}
    assert result.exit_code() == 0
    assert result.exit_code(strict=True) == 3
    assert "--max-time" in result.cells[0].why.sentence


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("ARCHBENCH_TEST_CLASS", "the base's worker sees 'fake', the head's 'other'"),
        ("ARCHBENCH_TEST_NODE", "the base's worker sees '.*', the head's 'other/cpu'"),  # another device of the class
    ],
)
def test_another_device_on_a_side_is_refused(tmp_path, workers, variable, said):
    with (
        make_turn_worker(env={**os.environ, variable: "other"}) as head,
        pytest.raises(UnfitError, match=said),
    ):
        gate(tmp_path / "g", [workers[0], head], cell_of("a"))


def test_user_code_from_elsewhere_is_refused(tmp_path, workers):
    tree = tmp_path / "tree"
    tree.mkdir()
    side = SideRun(python=sys.executable, env={}, tree=tree)
    inside, outside = str(tree / "nets.py"), "/site-packages/nets.py"
    gate(tmp_path / "g", workers, cell_of("nets:build", origin=inside), sides=[side, side])
    with pytest.raises(UnfitError, match="nets was imported from /site-packages"):
        gate(tmp_path / "h", workers, cell_of("nets:build", origin=outside), sides=[side, side])


def run_parent(folder, pace, **options):
    paths = [str(TESTS), str(TESTS / "worker"), str(TESTS / "comparison")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, PARENT, str(folder), pace], env=env, stdout=subprocess.PIPE, text=True)


def test_a_killed_gate_leaves_nobody_behind_and_resumes(tmp_path):
    import psutil

    folder = tmp_path / "g"
    process = run_parent(folder, "slow")
    wait_until(lambda: len(list((folder / "pairs").glob("*.parquet"))) >= 4, 30)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_running(one.pid) for one in family))
    kept = len(list((folder / "pairs").glob("*.parquet")))
    (folder / "busy").unlink(missing_ok=True)
    process = run_parent(folder, "slow")
    out, _ = process.communicate(timeout=60)
    assert out.split() == [str(kept), "same", "same", "same"]
    assert 4 <= kept < 9
    assert len(list((folder / "pairs").glob("*.parquet"))) == 9


def test_a_damaged_pair_is_played_again(tmp_path, workers, caplog):
    cells = [cell_of("a")]
    gate(tmp_path / "g", workers, *cells)
    victim = sorted((tmp_path / "g" / "pairs").iterdir())[-1]
    victim.write_bytes(victim.read_bytes()[:100])
    logs = PairStore(tmp_path / "g", GateSpec).fill(PairLog(cell) for cell in cells)
    assert len(logs[cells[0].cell_id].everything) == 2
    assert victim.name in caplog.text


def test_a_damaged_pair_is_replaced_and_no_whole_one_is_written_over(tmp_path, workers):
    cells = [cell_of("a")]
    gate(tmp_path / "g", workers, *cells)
    files = sorted((tmp_path / "g" / "pairs").iterdir())
    before = [file.read_bytes() for file in files]
    files[1].write_bytes(before[1][:100])
    assert (
        PairStore(tmp_path / "g", GateSpec)
        .fill(PairLog(cell) for cell in cells)[cells[0].cell_id]
        .next_number("screen")
        == 1
    )


def test_where_the_first_pair_is_damaged_its_successor_counts_again(tmp_path, workers):
    cells = [cell_of("a")]
    gate(tmp_path / "g", workers, *cells)
    store = PairStore(tmp_path / "g", GateSpec)
    first = min((tmp_path / "g" / "pairs").iterdir())
    first.write_bytes(b"{")
    (log,) = store.fill(PairLog(cell) for cell in cells).values()
    assert log.frozen is not None
    assert not log.surveyed
    again = GatePlay(store.spec(), store, cells, Protocol())
    list(again.play(workers, [SideRun(python=sys.executable, env={})] * 2, max_time_s=None))
    (log,) = again.logs.values()
    assert log.surveyed
    assert conclude(store.spec(), [log]).exit_code() == 0


def stored_in(folder):
    return {(one.cell_id, one.stage, one.number): one.pair for one in PairStore(folder, GateSpec).stored()}


def test_pairs_are_folded_into_one_file_whatever_dies(tmp_path, workers, caplog):
    """Killed after the large file is written and before the small ones are gone, and with one of those cut short."""
    cells = [cell_of(name) for name in "abc"]
    play, _ = gate(tmp_path / "g", workers, *cells)
    small = {file: file.read_bytes() for file in sorted((tmp_path / "g" / "pairs").iterdir())}
    before = stored_in(tmp_path / "g")
    assert len(before) == len(small) == play.pairs_done == 9
    store = PairStore(tmp_path / "g", GateSpec)
    store.merge()
    assert not list((tmp_path / "g" / "pairs").iterdir())
    assert stored_in(tmp_path / "g") == before
    for number, (file, content) in enumerate(small.items()):
        file.write_bytes(content if number else content[:100])
    assert stored_in(tmp_path / "g") == before
    assert "is damaged" in caplog.text
    store.merge()
    assert stored_in(tmp_path / "g") == before
    assert [file.suffix for file in (tmp_path / "g" / "pairs").iterdir()] == [".damaged"]
    again = GatePlay(store.spec(), store, cells, Protocol())
    assert again.pairs_done == 9
    assert not again.next_pairs()


def test_a_gate_of_before_pairs_had_a_journal_is_read_and_goes_on(tmp_path, workers):
    """Then every pair was a JSON file of its own."""
    cells = [cell_of(name) for name in "ab"]
    _, result = gate(tmp_path / "g", workers, *cells)
    folder, before = tmp_path / "g" / "pairs", stored_in(tmp_path / "g")
    for file in folder.iterdir():
        file.unlink()
    for number, (key, pair) in enumerate(sorted(before.items(), key=lambda one: one[0])):
        if number != 4:  # the last but one of b was not played yet
            write_json(folder / f"{number}.json", StoredPair(cell_id=key[0], stage="screen", number=key[2], pair=pair))
    store = PairStore(tmp_path / "g", GateSpec)
    again = GatePlay(store.spec(), store, cells, Protocol())
    assert again.pairs_done == 5
    list(again.play(workers, [SideRun(python=sys.executable, env={})] * 2, max_time_s=None))
    store.merge()
    assert stored_in(tmp_path / "g").keys() == before.keys()
    assert len(list(folder.glob("*.json"))) == 5
    again = GatePlay(store.spec(), store, cells, Protocol())
    assert conclude(store.spec(), list(again.logs.values())).cells[0] == result.cells[0]


def learning(folder, workers, cells, most=LEARNING_PAIRS):
    """Begin a learning gate, or go on with it, and conclude it as the command does; give the pairs known since."""

    def tell(played):
        if played.pairs_done == most:
            raise KeyboardInterrupt

    spec = make_spec(cells, learning=True)
    store = (
        PairStore(folder, GateSpec)
        if PairStore(folder, GateSpec).holds()
        else PairStore.create(folder, spec, suite="suite: tiny\n")
    )
    play = GatePlay(spec, store, cells, Protocol())
    sides = [SideRun(python=sys.executable, env={})] * 2
    with contextlib.suppress(KeyboardInterrupt):
        for played in play.play(workers, sides, max_time_s=None):
            tell(played)
    plan = Plan(suite="tiny", device="cpu", seed=0, rounds=((Group(cells=tuple(cells)),),))
    comparison = finish(play, spec, plan, sides)
    print(render_comparison(comparison, "text"))
    assert comparison.exit_code() == 0
    noise = read_noise(spec.base_environment.hardware_class)
    return {cell.cell_id: len(cell.log_ratios) for cell in noise.cells}


def test_what_a_learning_gate_measured_after_it_was_concluded_is_learnt_too(tmp_path, workers, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = [cell_of("a")]
    assert learning(tmp_path / "g", workers, cells, 3) == {cells[0].cell_id: 3}
    assert "Learnt how widely" in " ".join(capsys.readouterr().out.split())
    for _ in range(2):  # to conclude it once more teaches nothing twice
        assert learning(tmp_path / "g", workers, cells) == {cells[0].cell_id: LEARNING_PAIRS}
    out = " ".join(capsys.readouterr().out.split())
    assert "Learnt how widely the cells scatter: results/noise/" in out


def test_only_the_same_command_continues_a_gate(tmp_path):
    cells = cells_of(tmp_path, slow=False)
    spec = make_spec(cells)
    path = tmp_path / "tiny" / "one"
    PairStore.create(path, spec, suite="suite: tiny\n")
    assert [store.path for store in find_stores(tmp_path / spec.suite, spec)] == [path]
    assert list(find_stores(tmp_path / spec.suite, make_spec(cells, turns=5))) == []
    refuse_other(PairStore(path, GateSpec), spec)
    with pytest.raises(UsageError, match="another turns"):
        refuse_other(PairStore(path, GateSpec), make_spec(cells, turns=5))
    other = make_spec(cells, base=spec.head)
    with pytest.raises(UsageError, match="whose base is a"):
        refuse_other(PairStore(path, GateSpec), other)
    with pytest.raises(UsageError, match="already holds a gate"):
        PairStore.create(path, spec, suite="suite: tiny\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.doc").write_text("")
    with pytest.raises(UsageError, match=r"holds 'thesis.doc'"):
        PairStore.create(tmp_path / "x", spec, suite="suite: tiny\n")


def test_the_order_does_not_depend_on_the_order_of_the_file(tmp_path, workers):
    orders = []
    for number, names in enumerate(("abc", "cba")):
        cells = [cell_of(name) for name in names]
        spec = make_spec(cells)
        play = GatePlay(
            spec,
            PairStore.create(tmp_path / str(number), spec, suite=""),
            cells,
            Protocol(),
        )
        orders.append([move.cell_id for move in play.next_pairs()])
    assert orders[0] == orders[1]
