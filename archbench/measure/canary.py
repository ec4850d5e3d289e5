"""The canary: a short fixed piece of work, timed between blocks, that tells the machine's drift from the network's."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from archbench.device.kind import Clock, kind_of
from archbench.measure.device_time import repeated_s
from archbench.measure.state import plain_fp32

SETTLED = 4
"""So many times in a row that bring nothing new are a reading."""
STILL_FALLING = 0.02
"""A time that is below all before it by this share is something new: what ran before has not worn off."""
MOST_TIMES = 24
MOST_S = 0.15
"""Of the canary's own time. Undisturbed a reading takes 40 ms on two slow cores."""


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
    and no more than `MOST_S` of them: where a neighbour makes each take many times its own, one tells as much as five.
    """
    times = [once()]
    while sum(times) < MOST_S and len(times) < MOST_TIMES:
        if len(times) > SETTLED and min(times[-SETTLED:]) >= (1 - STILL_FALLING) * min(times[:-SETTLED]):
            break
        times.append(once())
    return median(times[-SETTLED:])
