"""Is the head slower than the base? Two sets of rows in, verdicts out; and how cells changed over many runs."""

from archbench.comparison.history import History, history, read_runs
from archbench.comparison.rows import LOCKED, NEVER, NOTED, Rows, read_rows
from archbench.comparison.stored import compare

__all__ = ["LOCKED", "NEVER", "NOTED", "History", "Rows", "compare", "history", "read_rows", "read_runs"]
