"""A process set aside while tests are collected, before any of them has run a step: as measuring ones set theirs aside.

A test process has run many by then, and torch may refuse what is forked from it a backward pass: each would be done by
an interpreter of its own, which takes seconds to import torch.
"""

from __future__ import annotations

import torch._dynamo  # noqa: F401 - what is forked would import it each time

from archbench.analyze.fresh import FreshProcesses

ASIDE = FreshProcesses()
