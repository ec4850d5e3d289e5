"""How long a run will take on a machine, by what it did before: for `archbench plan` and a run's progress.

Free of pyarrow and pandas until there are stored rows to read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from archbench.model.cell import Plan
from archbench.model.environment import Environment
from archbench.model.errors import UsageError
from archbench.model.record import Record
from archbench.model.suite import Suite
from archbench.suite.duration import Prediction, learned, predict
from archbench.suite.rates import usual_rates

LEARNED_RUNS = 20
"""Stored runs, the latest, that a prediction learns from: reading more takes longer than it tells."""


def expected(plan: Plan, suite: Suite, environment: Environment | None, results: Path = Path("results")) -> Prediction:
    """How long a run of `plan` will take on a machine; `None`: on a usual one of the plan's kind, which is not here.

    What is stored under `results` of the same class of hardware goes before constants.
    """
    if environment is None:
        return predict(plan, suite, usual_rates(plan.device, os.cpu_count() or 1))
    rates = usual_rates(plan.device, environment.cpu_count)
    return predict(plan, suite, learned(rates, _runs_of(environment.hardware_class, results)))


def _runs_of(hardware_class: str, results: Path) -> list[tuple[Suite, list[Record]]]:
    """Suite and rows of the latest runs on such a machine; those of other versions are left out."""
    found: list[tuple[Suite, list[Record]]] = []
    for marker in sorted(results.glob("*/*/environment.json"), key=lambda path: path.parent.name, reverse=True):
        with suppress(OSError, msgspec.MsgspecError, UsageError):
            if msgspec.json.decode(marker.read_bytes(), type=Environment).hardware_class == hardware_class:
                from archbench.results import RunStore

                store = RunStore.open(marker.parent)
                found.append((store.suite, store.records()))
        if len(found) == LEARNED_RUNS:
            break
    return found
