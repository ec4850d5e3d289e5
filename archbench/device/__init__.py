"""The machine: which devices there are, what they are, how they fare while we measure. Never imports torch."""

from archbench.device.doctor import examine, preflight
from archbench.device.environment import collect_environment
from archbench.device.health import BlockHealth, Finding, Probe, Reading, between
from archbench.device.kind import open_probe, resolve_device

__all__ = [
    "BlockHealth",
    "Finding",
    "Probe",
    "Reading",
    "between",
    "collect_environment",
    "examine",
    "open_probe",
    "preflight",
    "resolve_device",
]
