"""A program that measures one group: measuring_parent.py FOLDER GRACE DEADLINE ACT...; it prints the statuses."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from worker_fakes import make_task, make_worker

from archbench.model.messages import CellFinished, PhaseStarted
from archbench.worker import run_lock, run_tasks, sweep


def main(folder: Path, grace_s: float, deadline_s: float, acts: list[str]) -> None:
    task = make_task(*acts, deadline_s=deadline_s)
    statuses = []
    try:
        with patch.object(sweep, "HOST_GRACE_S", grace_s), run_lock(folder), make_worker() as worker:
            for event in run_tasks(worker, [task]):
                if isinstance(event, CellFinished):
                    statuses.append(str(event.record.status))
                elif isinstance(event, PhaseStarted) and event.cell_id == task.group.cells[-1].cell_id:
                    (folder / "at-last-cell").touch()
    except KeyboardInterrupt:
        statuses.append("interrupted")
    print(*statuses)


main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
