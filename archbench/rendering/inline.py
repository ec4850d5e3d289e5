"""The text of `report.content` as HTML: everything escaped but `code` between backticks."""

from __future__ import annotations

import re
from html import escape

from archbench.choose.cell_summary import printable

CODE = re.compile(r"`([^`]+)`")
"""Splits a text into what stands outside and, at odd places, inside of backticks."""


def html(text: str) -> str:
    """One line of text between tags."""
    if text.isalnum():  # most cells of a long table
        return text
    pieces = CODE.split(printable(text))
    return "".join(f"<code>{escape(piece)}</code>" if odd % 2 else escape(piece) for odd, piece in enumerate(pieces))
