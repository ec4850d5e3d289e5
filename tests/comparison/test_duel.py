"""A duel with made-up processes: its ratio, what is kept of it, how it goes on, and what stops it."""

from __future__ import annotations

import pytest
from builders import make_environment
from msgspec import structs
from turn_fakes import make_turn_worker

from archbench.comparison import gate as gate_module
from archbench.comparison.gate import DUELS, DuelPlay, DuelSpec, open_duel
from archbench.model.cell import Cell, Network
from archbench.model.comparison import PairDone
from archbench.model.errors import UnfitError
from archbench.model.protocol import Protocol
from archbench.model.record import Facts

PROTOCOL = Protocol(turns=5)


@pytest.fixture(scope="module")
def workers():
    with make_turn_worker() as one, make_turn_worker() as other:
        yield [one, other]


def cell_of(name, **options):
    return Cell(network=Network(name=name, options={"true_s": 0.01, "jitter": 0.001, **options}), batch_size=1)


def spec_of(*cells, environment=None):
    return DuelSpec(cells=cells, protocol=PROTOCOL, environment=environment or make_environment())


def fought(store, workers, *cells, tell=lambda told: None, max_time_s=None):
    play = DuelPlay(store.spec(), store, pairs=4)
    for told in play.play(workers, max_time_s=max_time_s):
        tell(told)
    return play.concluded()


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Opens the duel of these cells."""
    monkeypatch.chdir(tmp_path)
    # The fakes' networks are in no catalogue, and are nobody's code.
    monkeypatch.setattr(
        gate_module, "facts", lambda network: Facts(source="user code" if ":" in network.name else "archbench")
    )
    return lambda *cells, environment=None, **options: open_duel(spec_of(*cells, environment=environment), **options)


def test_the_true_ratio_lies_in_the_interval(workers, begun):
    cells = cell_of("quick"), cell_of("slow", true_s=0.0105)
    duel = fought(begun(*cells), workers, *cells)
    (rival,) = duel.rivals
    assert duel.baseline == cells[0].cell_id
    assert rival.verdict == "slower"
    # Of a 95 % interval one in twenty misses, and a test may not: at four pairs one of thrice its width misses in 400.
    assert abs(rival.ratio - 1.05) < 3 * (rival.ci_high - rival.ci_low) / 2
    assert rival.ratio == pytest.approx(1.05, abs=0.003)
    assert (duel.pairs, duel.turns, len(duel.log_ratios[0])) == (4, 5, 4)


def test_what_was_played_is_kept_and_counts(workers, begun):
    cells = cell_of("one"), cell_of("other", true_s=0.02)

    def stop_after_two(told):
        if told.pairs_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fought(begun(*cells), workers, *cells, tell=stop_after_two)
    kept = DuelPlay(spec_of(*cells), begun(*cells)).played
    assert len(kept) == 2
    new: list[PairDone] = []
    duel = fought(begun(*cells), workers, *cells, tell=new.append)
    assert [(told.pairs_done, told.pairs_left) for told in new] == [(3, 1), (4, 0)]
    assert all(told.pair.frozen == kept[0].frozen for told in new)
    assert duel.pairs == 4
    assert fought(begun(*cells), workers, *cells, tell=pytest.fail).log_ratios == duel.log_ratios


def test_another_question_has_a_directory_of_its_own(begun, caplog):
    one, other = cell_of("one"), cell_of("other")
    path = begun(one, other).path
    assert begun(one, other).path == path
    assert begun(one, other, fresh=True).path != path
    assert begun(other, one).path != path, "the ratio is to the first one"
    newer = structs.replace(make_environment(), torch_version="3.0")
    assert begun(one, other, environment=newer).path != path
    own = cell_of("nets:build")
    assert begun(own, one).path != begun(own, one).path, "code may have changed"


def test_a_duel_of_an_older_archbench_is_named_and_left_alone(begun, caplog, tmp_path):
    cells = cell_of("one"), cell_of("third")
    old = tmp_path / DUELS / f"20260101T000000.000000Z-{spec_of(*cells).identity}"
    old.mkdir(parents=True)
    (old / "000.json").write_text("{}")
    assert begun(*cells).path != old
    assert f"{old.relative_to(tmp_path)} is of an older archbench" in caplog.text
    assert [file.name for file in old.iterdir()] == ["000.json"]


def test_a_damaged_pair_is_left_out_and_its_place_taken(workers, begun, caplog):
    cells = cell_of("one"), cell_of("other")
    store = begun(*cells)
    fought(store, workers, *cells)
    broken = sorted((store.path / "pairs").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:100])
    assert len(DuelPlay(spec_of(*cells), store).played) == 3
    assert f"{broken.name} is damaged" in caplog.text
    new: list[PairDone] = []
    fought(store, workers, *cells, tell=new.append)
    assert len(new) == 1
    assert len(list((store.path / "pairs").iterdir())) == 4


def test_what_cannot_be_judged_says_why(workers, begun):
    failing = cell_of("good"), cell_of("bad", build="error")
    with pytest.raises(UnfitError, match=r"bad.* ended with error in build: error at build"):
        fought(begun(*failing), workers, *failing)
    throttled = cell_of("good"), cell_of("throttled", rejects=99)
    for _ in range(2):  # what failed is kept, and forgotten by the next attempt
        with pytest.raises(UnfitError, match="no pair is fit to be used: the device's monitor rejected every turn"):
            fought(begun(*throttled), workers, *throttled)
    assert len(list((begun(*throttled).path / "pairs").iterdir())) == 4
    hasty = cell_of("one"), cell_of("other")
    with pytest.raises(UnfitError, match="over after 1 of 4 pairs"):
        fought(begun(*hasty), workers, *hasty, max_time_s=1e-3)
