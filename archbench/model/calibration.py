"""What a device reached here, as against its data sheet."""

from __future__ import annotations

from msgspec import Struct

from archbench.model.axes import Precision


class Calibration(Struct, frozen=True, kw_only=True):
    """Measured ceilings of one device: a large matrix product at each arithmetic, and a large copy."""

    matmul_flops: dict[str, float]
    """FLOP/s of a square matrix product on random data, by arithmetic: `fp32`, `tf32`, `bf16`, `fp16`."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written per second by a copy that is larger than the caches."""

    def peak(self, precision: Precision) -> float | None:
        """The measured FLOP/s that a cell's convolutions and products could reach; None where it was not measured."""
        return self.matmul_flops.get(precision.removeprefix("amp-"))
