"""Helpers of a test folder are imported by their bare name."""

from __future__ import annotations
