"""A gate with made-up processes, as a program: gate_parent.py FOLDER TURN_PAUSE; prints pairs done and verdicts."""

from __future__ import annotations

import sys
from pathlib import Path

from gate_builders import make_spec
from turn_fakes import make_turn_worker

from archbench.comparison.gate import GatePlay, GateSpec, conclude
from archbench.comparison.interleave import PairStore
from archbench.comparison.sides import SideRun
from archbench.model.axes import Scalar
from archbench.model.cell import Cell, Network
from archbench.model.protocol import Protocol
from archbench.worker import run_lock


def cells_of(folder: Path, *, slow: bool) -> list[Cell]:
    options: dict[str, Scalar] = {"true_s": 0.01, "jitter": 0.001}
    if slow:
        options["busy"] = str(folder / "busy")
    return [Cell(network=Network(name=name, options=options), batch_size=1) for name in ("a", "b", "c")]


def main(folder: Path, slow: bool) -> None:
    cells = cells_of(folder, slow=slow)
    spec = make_spec(cells, turns=9)
    begun = PairStore(folder, GateSpec)
    store = begun if begun.holds() else PairStore.create(folder, spec, suite="suite: tiny\n")
    with run_lock(folder), make_turn_worker() as base, make_turn_worker() as head:
        play = GatePlay(spec, store, cells, Protocol())
        done = sum(len(log.everything) for log in play.logs.values())
        sides = [SideRun(python=sys.executable, env={})] * 2
        list(play.play([base, head], sides, max_time_s=None))
        result = conclude(spec, list(play.logs.values()))
    print(done, *(cell.verdict for cell in result.cells))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "slow")
