"""Statistics of arrays of floats; knows nothing of benchmarks.

What measuring needs is exported here and needs numpy alone. What comparing needs (`paired`, `twostage` and
`changepoint`) is imported from its module; it loads scipy when it is called.
"""

from archbench.stats.intervals import (
    Interval,
    block_medians,
    blocked_interval,
    median_interval,
    minimum_samples,
    percentile,
    wilson_interval,
)
from archbench.stats.sampling import Drift, Stop, StoppingRule, WarmupDetector, drifting

__all__ = [
    "Drift",
    "Interval",
    "Stop",
    "StoppingRule",
    "WarmupDetector",
    "block_medians",
    "blocked_interval",
    "drifting",
    "median_interval",
    "minimum_samples",
    "percentile",
    "wilson_interval",
]
