"""The preflight that every command makes before it measures."""

from __future__ import annotations

import sys

from archbench.model.errors import UnfitError


def refuse_unfit(device: str, force: bool) -> None:
    """Warn of what the preflight finds, on stderr. Raises `UnfitError` where the device is unfit, unless `force`."""
    from archbench.device import preflight

    for finding in preflight(device):
        line = f"{finding.what}; {finding.remedy}" if finding.remedy else finding.what
        if finding.severity == "unfit" and not force:
            raise UnfitError(f"{line} (--force measures all the same)")
        if finding.severity in ("warn", "unfit"):
            print(f"archbench: warning: {line}", file=sys.stderr)
