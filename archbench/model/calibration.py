"""What a device reached here, as against its data sheet."""

from __future__ import annotations

from msgspec import Struct

from archbench.model.axes import Precision


class Calibration(Struct, frozen=True, kw_only=True):
    """Measured ceilings of one device: a matrix product and a convolution at each arithmetic, and a large copy."""

    matmul_flops: dict[str, float]
    """FLOP/s of a square matrix product on random data, by arithmetic: `fp32`, `tf32`, `bf16`, `fp16`."""
    conv_flops: dict[str, float] = {}
    """FLOP/s of a 3x3 convolution in the faster memory format, likewise; empty in runs of earlier versions. Libraries
    have kernels of their own for it, which may be faster than their product."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written per second by a copy that is larger than the caches."""

    def peak(self, precision: Precision) -> float | None:
        """FLOP/s that a cell's convolutions and products could reach, the best measured; None where none was."""
        arithmetic = precision.removeprefix("amp-")
        return max((one[arithmetic] for one in (self.matmul_flops, self.conv_flops) if arithmetic in one), default=None)
