"""archbench: which network, with which settings, on my machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archbench.api import Run, compare, export, load, merge, pick, plan, report, run, site, summary
    from archbench.folklore.asked import claims
    from archbench.gating import duel, gate
    from archbench.known import fits, show
    from archbench.model.errors import FitnessWarning, Interrupted, UnfitError, UsageError
    from archbench.profiling import profile
    from archbench.training.probe import train_probe

__version__ = "0.1.0"
__all__ = [
    "FitnessWarning",
    "Interrupted",
    "Run",
    "UnfitError",
    "UsageError",
    "claims",
    "compare",
    "duel",
    "export",
    "fits",
    "gate",
    "load",
    "merge",
    "pick",
    "plan",
    "profile",
    "report",
    "run",
    "show",
    "site",
    "summary",
    "train_probe",
]
_HOMES = dict.fromkeys(("FitnessWarning", "Interrupted", "UnfitError", "UsageError"), "model.errors")
_HOMES |= {"duel": "gating", "gate": "gating", "profile": "profiling", "show": "known", "fits": "known"}
_HOMES |= {"claims": "folklore.asked", "train_probe": "training.probe"}


def __getattr__(name: str) -> Any:
    # Looked up when it is first used: every worker and every command imports this file.
    if name not in __all__:
        raise AttributeError(f"module 'archbench' has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"archbench.{_HOMES.get(name, 'api')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
