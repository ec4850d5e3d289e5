"""A duel with made-up processes: its ratio, what is kept of it, how it goes on, and what stops it."""

from __future__ import annotations

import pytest
from builders import make_environment
from msgspec import structs
from turn_fakes import make_turn_worker

from archbench.comparison.gate.duel import play_duel
from archbench.comparison.gate.duel_books import DuelBooks
from archbench.model.cell import Cell, Network
from archbench.model.errors import UnfitError
from archbench.model.protocol import Protocol

PROTOCOL = Protocol(turns=5)


@pytest.fixture(scope="module")
def workers():
    with make_turn_worker() as one, make_turn_worker() as other:
        yield [one, other]


def cell_of(name, **options):
    return Cell(network=Network(name=name, options={"true_s": 0.01, "jitter": 0.001, **options}), batch_size=1)


def fought(workers, *cells, **options):
    return play_duel(cells, workers, PROTOCOL, pairs=4, **options)


def test_the_true_ratio_lies_in_the_interval(workers):
    duel = fought(workers, cell_of("quick"), cell_of("slow", true_s=0.0105))
    (rival,) = duel.rivals
    assert rival.outcome == "slower"
    assert rival.ci_low < 1.05 < rival.ci_high
    assert rival.ratio == pytest.approx(1.05, abs=0.003)
    assert (duel.pairs, duel.turns, len(duel.log_ratios[0])) == (4, 5, 4)


@pytest.fixture
def books(tmp_path, monkeypatch):
    """Opens the duel of two cells of the catalogue, as the command does."""
    monkeypatch.chdir(tmp_path)

    def of(*names, environment=None, **options):
        cells = [Cell(network=Network(name=name), batch_size=1) for name in names or ("resnet18", "resnet34")]
        return DuelBooks.of(cells, PROTOCOL, environment or make_environment(), **options)

    return of


def test_what_was_played_is_kept_and_counts(workers, books):
    cells = cell_of("one"), cell_of("other", true_s=0.02)

    def stop_after_two(pair, done):
        books().append(pair)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fought(workers, *cells, tell=stop_after_two)
    kept = books().pairs()
    assert len(kept) == 2
    new = []
    duel = fought(workers, *cells, so_far=kept, tell=lambda pair, done: new.append((pair, done)))
    assert [done for _, done in new] == [3, 4]
    assert all(pair.frozen == kept[0].frozen for pair, _ in new)
    assert duel.pairs == 4
    assert fought(workers, *cells, so_far=[*kept, *(pair for pair, _ in new)]).log_ratios == duel.log_ratios


def test_another_question_has_books_of_its_own(workers, books):
    fought(workers, cell_of("one"), cell_of("other"), tell=lambda pair, done: books().append(pair))
    begun = books()
    assert len(begun.pairs()) == 4
    assert books().path == begun.path
    assert books(fresh=True).path != begun.path
    assert books("resnet34", "resnet18").path != begun.path, "the ratio is to the first one"
    newer = structs.replace(make_environment(), torch_version="3.0")
    assert books(environment=newer).path != begun.path
    assert books("nets:build", "resnet18").path != books("nets:build", "resnet18").path, "code may have changed"


def test_a_damaged_pair_is_left_out_and_its_place_taken(workers, books, caplog):
    fought(workers, cell_of("one"), cell_of("other"), tell=lambda pair, done: books().append(pair))
    broken = books().path / "001.json"
    broken.write_bytes(broken.read_bytes()[:100])
    kept = books().pairs()
    assert len(kept) == 3
    assert "001.json is damaged" in caplog.text
    books().append(kept[0])
    assert len(books().pairs()) == 4


def test_what_cannot_be_judged_says_why(workers):
    with pytest.raises(UnfitError, match=r"bad.* ends with error in build: error at build"):
        fought(workers, cell_of("good"), cell_of("bad", build="error"))
    with pytest.raises(UnfitError, match=r"not fit for a duel now \(every turn was rejected\)"):
        fought(workers, cell_of("good"), cell_of("throttled", rejects=99))
    with pytest.raises(UnfitError, match="over after 1 of 4 pairs"):
        fought(workers, cell_of("one"), cell_of("other"), max_time_s=1e-3)
