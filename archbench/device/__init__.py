"""The machine: which devices there are, what they are, how they fare while we measure. Never imports torch."""

from archbench.device.visible import resolve_device

__all__ = ["resolve_device"]
