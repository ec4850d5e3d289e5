"""Processes that measure and may die: the parent's client, the host that has torch imported, the child of one group.

Nothing here imports torch at the top: the parent uses `processes` and `group_tracker` too.
"""

from archbench.worker.client import WorkerClient
from archbench.worker.processes import device_lock, run_lock
from archbench.worker.sweep import run_tasks

__all__ = ["WorkerClient", "device_lock", "run_lock", "run_tasks"]
