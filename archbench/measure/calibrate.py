"""Measures a device's ceilings once a session: what networks reach is told as a share of them."""

from __future__ import annotations

import time
import traceback
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from archbench.device.kind import CalibrationSizes, Clock, Step, kind_of
from archbench.measure.device_time import repeated_s
from archbench.measure.state import restored_state
from archbench.model.axes import Precision
from archbench.model.environment import Calibration

MOST_S = 0.5
"""No single ceiling is worth more time than this."""

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def calibrate(device: torch.device, clock: Clock, threads: int, soak_s: float) -> Calibration:
    """Keep the device busy for `soak_s` until its clocks have settled, then measure products, convolutions and a copy.

    A ceiling is the fastest of several, for whatever disturbs one makes it slower.

    Whatever fails in it, the process-wide state is as before, and none of its memory is kept from the network.
    """
    kind = kind_of(device)
    sizes = kind.calibration
    kind.synchronize(device)  # or the device's random numbers, which begin with its first use, would not be put back
    try:
        _soak(device, clock, sizes.matrix, soak_s)
        products: dict[str, float] = {}
        convolutions: dict[str, float] = {}
        images, channels, height, width = sizes.image
        for precision in sizes.precisions:
            with restored_state(precision, threads, seed=0):
                dtype = _DTYPES[precision]
                products[precision] = 2 * sizes.matrix**3 / _product_s(device, clock, sizes, dtype)
                work = 2 * images * height * width * channels**2 * 9
                convolutions[precision] = work / _convolution_s(device, clock, sizes, dtype)
        return Calibration(
            matmul_flops=products,
            conv_flops=convolutions,
            copy_bytes_per_s=2 * sizes.copy_bytes / _copy_s(device, clock, sizes),
        )
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # which hold the products
        raise
    finally:
        kind.release()


def _soak(device: torch.device, clock: Clock, matrix: int, soak_s: float) -> None:
    if not soak_s:
        return
    left, right = (_random(device, (matrix, matrix), torch.bfloat16) for _ in range(2))
    start = time.perf_counter()
    while time.perf_counter() - start < soak_s:
        clock.burst(lambda: torch.mm(left, right), 10)


def _product_s(device: torch.device, clock: Clock, sizes: CalibrationSizes, dtype: torch.dtype) -> float:
    left, right = (_random(device, (sizes.matrix, sizes.matrix), dtype) for _ in range(2))
    return _least_s(clock, sizes.repeats, lambda: torch.mm(left, right))


def _convolution_s(device: torch.device, clock: Clock, sizes: CalibrationSizes, dtype: torch.dtype) -> float:
    """In the faster memory format, without what autograd would keep."""
    channels = sizes.image[1]
    images, kernel = _random(device, sizes.image, dtype), _random(device, (channels, channels, 3, 3), dtype)
    seconds = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images, kernel = images.to(memory_format=memory_format), kernel.to(memory_format=memory_format)
        seconds.append(_least_s(clock, sizes.repeats, partial(F.conv2d, images, kernel, padding=1)))
    return min(seconds)


def _copy_s(device: torch.device, clock: Clock, sizes: CalibrationSizes) -> float:
    source = torch.ones(sizes.copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _least_s(clock, sizes.repeats, lambda: target.copy_(source))


def _least_s(clock: Clock, repeats: int, work: Step) -> float:
    clock.burst(work, 1)
    seconds: list[float] = []
    start = time.perf_counter()
    # A CPU without arithmetic in bf16 takes a second for what its neighbour does in five milliseconds.
    while not seconds or (len(seconds) < repeats and time.perf_counter() - start < MOST_S):
        seconds.append(repeated_s(work, clock, 1))
    return min(seconds)


def _random(device: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(shape, device=device, generator=generator).to(dtype)
