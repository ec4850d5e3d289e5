"""Processes that measure and may die: the parent's client, the host that has torch imported, the child of one group.

Nothing here imports torch at the top: the parent uses `death` and `progress` too.
"""

from archbench.worker.local import LocalExecutor
from archbench.worker.locks import device_lock, run_lock

__all__ = ["LocalExecutor", "device_lock", "run_lock"]
