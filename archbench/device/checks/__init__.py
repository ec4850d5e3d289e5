"""Is this machine fit to measure? Each answer is a finding with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from msgspec import Struct

Severity = Literal["ok", "note", "warn", "unfit"]
"""`ok` fine; `note` good to know; `warn` rows may be suspect or cells fail; `unfit` measuring here gives no answer."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    code: str
    severity: Severity
    what: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Severity:
    """The gravest severity among the findings; `ok` for none."""
    return SEVERITIES[max((SEVERITIES.index(finding.severity) for finding in findings), default=0)]


def ok(code: str, what: str) -> Finding:
    """As it should be."""
    return Finding(code=code, severity="ok", what=what)


def note(code: str, what: str, remedy: str = "") -> Finding:
    """Good to know; figures do not suffer."""
    return Finding(code=code, severity="note", what=what, remedy=remedy)


def warn(code: str, what: str, remedy: str) -> Finding:
    """Figures will scatter more widely than they could."""
    return Finding(code=code, severity="warn", what=what, remedy=remedy)


def unfit(code: str, what: str, remedy: str) -> Finding:
    """Figures from here would mislead."""
    return Finding(code=code, severity="unfit", what=what, remedy=remedy)
