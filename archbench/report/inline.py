"""The text of `report.content` as HTML: everything escaped but `code` between backticks."""

from __future__ import annotations

import re
from html import escape

CODE = re.compile(r"`([^`]+)`")
"""Splits a text into what stands outside and, at odd places, inside of backticks."""


def printable(text: str) -> str:
    """On one line, with control and direction marks replaced: they could reorder what is read."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def html(text: str) -> str:
    """One line of text between tags."""
    if text.isalnum():  # most cells of a long table
        return text
    pieces = CODE.split(printable(text))
    return "".join(f"<code>{escape(piece)}</code>" if odd % 2 else escape(piece) for odd, piece in enumerate(pieces))
