"""How fast the machine itself is, by fixed work: its ceilings once a session, and a canary beside each cell."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from archbench.device.kind import CalibrationSizes, Clock, Step, kind_of
from archbench.measure.device_time import repeated_s
from archbench.measure.state import plain_fp32, restored_state
from archbench.model.axes import Precision
from archbench.model.environment import Calibration

CEILING_S = 0.5
"""No single ceiling is worth more time than this."""
SETTLED = 4
"""So many of the canary's times in a row that bring nothing new are a reading."""
STILL_FALLING = 0.02
"""A time that is below all before it by this share is something new: what ran before has not worn off."""
MOST_TIMES = 24
CANARY_S = 0.15
"""At most of the canary's own time. Undisturbed a reading takes 40 ms on two slow cores."""

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
    first = clock.burst(work, 1)
    if first.issue_s is None and first.seconds > CEILING_S:
        # A CPU without arithmetic in bf16 takes a second for what its neighbour does in five milliseconds, and what the
        # first call prepares is little beside that.
        return first.seconds
    seconds: list[float] = []
    start = time.perf_counter()
    while not seconds or (len(seconds) < repeats and time.perf_counter() - start < CEILING_S):
        seconds.append(repeated_s(work, clock, 1))
    return min(seconds)


def _random(device: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(shape, device=device, generator=generator).to(dtype)


class Canary:
    """A convolution and a matrix product of fixed size in fp32, the same for every cell on one kind of device.

    On a CPU a chain of small layers follows, which is bound by its calls and its memory as much as by arithmetic: of
    the two halves either alone follows fewer networks. Its time in seconds says how fast the machine is at that moment;
    rows are corrected by it when they are read, against the median over the whole run.
    """

    def __init__(self, device: torch.device, clock: Clock) -> None:
        generator = torch.Generator().manual_seed(0)
        sizes = kind_of(device).canary

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(device)

        channels, side = sizes.image[1], sizes.matrix
        self._image, self._kernel = drawn(*sizes.image), drawn(channels, channels, 3, 3)
        self._matrix = drawn(side, side)
        self._small, self._weights = drawn(8, 16, 32, 32), drawn(sizes.layers, 16, 16, 3, 3) / 12  # 12: of its inputs
        self._mean, self._variance = drawn(16) / 10, torch.ones(16, device=device)
        self._repeats = sizes.repeats
        self._clock = clock
        with plain_fp32():
            for _ in range(3):
                self.work()

    def work(self) -> None:
        """The piece of work, once."""
        # Inference mode and no autocast, whatever the cell under test runs under.
        with torch.inference_mode(), torch.autocast(self._image.device.type, enabled=False):
            F.conv2d(self._image, self._kernel, padding=1)
            torch.mm(self._matrix, self._matrix)
            image = self._small
            for weight in self._weights:
                image = F.batch_norm(F.conv2d(image, weight, padding=1), self._mean, self._variance).relu()

    def time(self) -> float:
        """Seconds of the work, whatever ran before it: see `settled`."""
        with plain_fp32():
            return settled(lambda: repeated_s(self.work, self._clock, self._repeats))


def settled(once: Callable[[], float]) -> float:
    """What `once` takes when repeated until its time does not depend on what ran before.

    A network leaves its own data in the caches, and an idle core its clock low: the first time after vgg16 is 20 % and
    more above the first after the canary itself, and corrected by it a network would pay for its own size. So until
    the last `SETTLED` times are not below those before them by `STILL_FALLING`; their median. At most `MOST_TIMES`,
    and no more than `CANARY_S`: where a neighbour makes each take many times its own, one tells as much as five.
    """
    times = [once()]
    while sum(times) < CANARY_S and len(times) < MOST_TIMES:
        if len(times) > SETTLED and min(times[-SETTLED:]) >= (1 - STILL_FALLING) * min(times[:-SETTLED]):
            break
        times.append(once())
    return median(times[-SETTLED:])
