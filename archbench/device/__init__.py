"""The machine: which devices there are, what they are, how they fare while we measure. Never imports torch."""

from archbench.device.checks import Finding
from archbench.device.doctor import examine, preflight
from archbench.device.environment import collect_environment
from archbench.device.health import BlockHealth, between
from archbench.device.kind import open_probe, resolve_device
from archbench.device.peaks import peak_flops
from archbench.device.probe import Probe, Reading

__all__ = [
    "BlockHealth",
    "Finding",
    "Probe",
    "Reading",
    "between",
    "collect_environment",
    "examine",
    "open_probe",
    "peak_flops",
    "preflight",
    "resolve_device",
]
