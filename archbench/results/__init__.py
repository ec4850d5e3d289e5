"""Results on disk: one run is one directory, every finished cell is in it at once, and anything can read it."""

from archbench.results.frame import load_frame, read_table
from archbench.results.merging import merge
from archbench.results.run import RunStore, Session, new_run_id, run_identity, runs_alike, suite_hash

__all__ = [
    "RunStore",
    "Session",
    "load_frame",
    "merge",
    "new_run_id",
    "read_table",
    "run_identity",
    "runs_alike",
    "suite_hash",
]
