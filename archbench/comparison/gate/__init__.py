"""Is the head slower than the base, on this machine and now? Two sides whose processes take turns, block by block."""

from archbench.comparison.gate.books import GATES, GateBooks, GateSpec, find_gates, new_gate_id, refuse_other
from archbench.comparison.gate.conclude import conclude
from archbench.comparison.gate.noise import known_floor
from archbench.comparison.gate.play import GatePlay
from archbench.comparison.gate.sides import Project, SideRun, SideSpec, find_project, opened, read_side, uncommitted

__all__ = [
    "GATES",
    "GateBooks",
    "GatePlay",
    "GateSpec",
    "Project",
    "SideRun",
    "SideSpec",
    "conclude",
    "find_gates",
    "find_project",
    "known_floor",
    "new_gate_id",
    "opened",
    "read_side",
    "refuse_other",
    "uncommitted",
]
