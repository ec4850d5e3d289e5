"""The preflight, for the commands that do not begin by `archbench.session.held` yet."""

from __future__ import annotations


def refuse_unfit(device: str, force: bool) -> None:
    """As `archbench.session.refuse_unfit`."""
    from archbench import session

    session.refuse_unfit(device, force=force)
