"""What a format makes: one text, or several that go into files of their own."""

from __future__ import annotations

from msgspec import Struct


class Document(Struct, frozen=True, kw_only=True):
    """One file's content."""

    text: str
    suffix: str = ""
    """What tells it from the format's other documents: `smaller`, `base`, ...; empty where there is one."""
