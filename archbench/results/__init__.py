"""Results on disk: one run is one directory, every finished cell is in it at once, and anything can read it."""

from archbench.results.files import new_run_id, run_identity, suite_hash
from archbench.results.frame import load_frame, read_table
from archbench.results.merging import class_folder, merge
from archbench.results.places import Exported, Remote, export, is_here, located, placed, url_of
from archbench.results.run import RunStore, Session, runs_alike

__all__ = [
    "Exported",
    "Remote",
    "RunStore",
    "Session",
    "class_folder",
    "export",
    "is_here",
    "load_frame",
    "located",
    "merge",
    "new_run_id",
    "placed",
    "read_table",
    "run_identity",
    "runs_alike",
    "suite_hash",
    "url_of",
]
