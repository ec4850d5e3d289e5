"""What a suite can ask for: one file a metric, in the order in which a cell fills them.

`compile` and `profile` come last: what they do is not to be felt by any other figure.
"""

from __future__ import annotations

from archbench.measure.metrics.accuracy import ACCURACY
from archbench.measure.metrics.compile import COMPILE
from archbench.measure.metrics.energy import ENERGY
from archbench.measure.metrics.latency import LATENCY
from archbench.measure.metrics.memory import MEMORY
from archbench.measure.metrics.metric import Metric
from archbench.measure.metrics.numerics import NUMERICS
from archbench.measure.metrics.profile import PROFILE
from archbench.measure.metrics.static import STATIC
from archbench.measure.metrics.throughput import THROUGHPUT

METRICS: tuple[Metric, ...] = (STATIC, LATENCY, THROUGHPUT, ENERGY, MEMORY, NUMERICS, ACCURACY, PROFILE, COMPILE)

__all__ = ["METRICS", "Metric"]
