"""Shell patterns over names of networks, as suites and `--only` use them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from archbench.model.cell import Network


def is_pattern(text: str) -> bool:
    """Whether `text` can match more than the one name that it spells. A label's brackets do not count."""
    return "*" in text or "?" in text


def selects(pattern: str, network: Network) -> bool:
    """Whether `pattern` is, or matches, the name of `network` (all its variants) or its label (that variant)."""
    if pattern in (network.name, network.label):
        return True
    return fnmatchcase(network.name, pattern) or (is_pattern(pattern) and fnmatchcase(network.label, pattern))
