"""Which columns of a row each metric fills."""

from __future__ import annotations

from archbench.model.axes import Metric
from archbench.model.suite import PERCENTILES

COLUMNS_OF: dict[Metric, tuple[str, ...]] = {
    "static": ("params", "macs", "flops", "activations", "weight_bytes"),
    "latency": (
        *("latency_median_s", "latency_ci_low_s", "latency_ci_high_s", "device_time_median_s"),
        *(f"latency_p{percent}_s" for percent in PERCENTILES),
    ),
    "throughput": (
        *("throughput_img_s", "throughput_ci_low_img_s", "throughput_ci_high_img_s"),
        *("achieved_flops", "mfu", "measured_peak_share"),
    ),
    "memory": ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes", "predicted_peak_bytes"),
    "energy": ("energy_j_per_img",),
    "compile": ("compile_cold_s", "compile_warm_s"),
    "numerics": ("output_rel_error", "output_cosine", "output_finite"),
    "profile": (),
}
"""What each metric fills (`profile` a file of its own); null and explained where the suite does not ask for it."""
NEEDS_A_STEP = (
    *("applied", "first_call_s", "warmup_steps", "canary_s", "contention"),
    *("throttled_fraction", "power_capped_fraction", "sm_clock_mhz", "mean_power_w"),
)
"""What every cell has that ran at all, whatever its metrics."""
