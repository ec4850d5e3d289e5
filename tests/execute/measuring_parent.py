"""A program that measures one group: measuring_parent.py FOLDER ISOLATION DEADLINE ACT...; it prints the statuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from execute_fakes import make_executor, make_task

from archbench.model.messages import CellFinished, PhaseStarted
from archbench.worker import run_lock


def main(folder: Path, isolation: Any, deadline_s: float, acts: list[str]) -> None:
    task = make_task(*acts, deadline_s=deadline_s)
    statuses = []
    try:
        with run_lock(folder), make_executor(isolation=isolation) as executor:
            for event in executor.run([task]):
                if isinstance(event, CellFinished):
                    statuses.append(str(event.record.status))
                elif isinstance(event, PhaseStarted) and event.cell_id == task.group.cells[-1].cell_id:
                    (folder / "at-last-cell").touch()
    except KeyboardInterrupt:
        statuses.append("interrupted")
    print(*statuses)


main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:])
