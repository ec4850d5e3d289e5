"""The canary: a short fixed piece of work, timed between blocks, that tells the machine's drift from the network's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from archbench.device.clock import Clock
from archbench.device.kind import kind_of
from archbench.measure.device_time import repeated_s
from archbench.measure.state import plain_fp32


class Canary:
    """A convolution and a matrix product of fixed size in fp32, the same for every cell on one kind of device.

    Its time per call in seconds says how fast the machine is at that moment; rows are corrected by it when they are
    read, against the median over the whole run.
    """

    def __init__(self, device: torch.device, clock: Clock) -> None:
        generator = torch.Generator().manual_seed(0)
        sizes = kind_of(device).canary
        channels, side = sizes.image[1], sizes.matrix
        self._image = torch.randn(sizes.image, generator=generator).to(device)
        self._kernel = torch.randn(channels, channels, 3, 3, generator=generator).to(device)
        self._matrix = torch.randn(side, side, generator=generator).to(device)
        self._repeats = sizes.repeats
        self._clock = clock
        with plain_fp32():
            for _ in range(3):
                self._work()

    def _work(self) -> None:
        # Inference mode and no autocast, whatever the cell under test runs under.
        with torch.inference_mode(), torch.autocast(self._image.device.type, enabled=False):
            F.conv2d(self._image, self._kernel, padding=1)
            torch.mm(self._matrix, self._matrix)

    def time(self) -> float:
        """Do the work as often as this device needs it, and return the seconds of once."""
        with plain_fp32():
            return repeated_s(self._work, self._clock, self._repeats)
