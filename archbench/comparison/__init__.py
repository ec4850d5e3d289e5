"""Is the head slower than the base? Two sets of rows in, verdicts out; and how cells changed over many runs."""

from archbench.comparison.history import History, history, read_runs
from archbench.comparison.rows import MUST_MATCH, NEVER, NOTED, Rows, read_rows
from archbench.comparison.stored import compare

__all__ = ["MUST_MATCH", "NEVER", "NOTED", "History", "Rows", "compare", "history", "read_rows", "read_runs"]
