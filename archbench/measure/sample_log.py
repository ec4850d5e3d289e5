"""The raw timings of one cell, collected in the form in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from archbench.measure.sampling import Sampled
from archbench.model.blank import RunContext
from archbench.model.record import Sample


class SampleLog:
    """Collects a cell's timings, so that every statistic of its row can be computed again."""

    def __init__(self, cell_id: str, context: RunContext) -> None:
        self._cell_id = cell_id
        self._context = context
        self._samples: list[Sample] = []

    def add(self, sampled: Sampled, experiment: Literal["latency", "throughput"]) -> None:
        """Take in every timing of an experiment, those that the monitor rejected included."""
        for block, stretch in enumerate(sampled.stretches):
            self._samples += [
                self._sample(experiment, block, sampled.steps, timing.host_s, timing.device_s, stretch.kept)
                for timing in stretch.timings
            ]

    def add_canaries(self, seconds: Sequence[float]) -> None:
        """Take in the canary's times, in seconds."""
        self._samples += [self._sample("canary", block, 1, one, None, True) for block, one in enumerate(seconds)]

    def all(self) -> tuple[Sample, ...]:
        """The timings so far, in the order in which they were taken in."""
        return tuple(self._samples)

    def _sample(
        self,
        experiment: Literal["latency", "throughput", "canary"],
        block: int,
        steps: int,
        host_s: float,
        device_s: float | None,
        kept: bool,
    ) -> Sample:
        return Sample(
            cell_id=self._cell_id,
            round=self._context.round,
            visit=self._context.visit,
            experiment=experiment,
            block=block,
            steps=steps,
            host_s=host_s,
            device_s=device_s,
            kept=kept,
        )
