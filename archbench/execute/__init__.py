"""Runs tasks in processes that may die, and gives a row for every cell all the same. Never imports torch."""

from archbench.execute.local import LocalExecutor
from archbench.execute.locks import device_lock, run_lock

__all__ = ["LocalExecutor", "device_lock", "run_lock"]
