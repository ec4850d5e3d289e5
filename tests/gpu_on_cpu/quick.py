"""The protocol of a test."""

from __future__ import annotations

QUICK = (
    "{soak_s: 0.05, energy_window_s: 0.1, warmup_first_cell_s: 0.05, warmup_later_cell_s: 0.02, warmup_cap_s: 0.2, "
    "max_sampling_s: 0.2, min_sampling_s: 0.1, max_throughput_s: 0.2, min_throughput_s: 0.1, burst_s: 0.02, "
    "turn_s: 0.01, turns: 6}"
)
"""A protocol under which a cell takes a second: what is tested is that its rows are filled, not their figures."""
