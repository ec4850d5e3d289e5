"""What measuring the same thing against itself scatters by, learnt by `gate --aa` and kept a hardware class at a time.

`results/noise/<hardware class>.json`, one object: `hardware_class`, and `cells`, one entry a cell: its id, the log
ratios and the base's times of A/A pairs (the latest `MOST_KEPT`), the turns and the seconds of a block that they were
taken with, and when. Pairs of other turns scatter otherwise, so a later `--aa` with other numbers replaces the entry
instead of adding to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from archbench.model.comparison import Floor
from archbench.model.errors import UsageError
from archbench.model.pair import Pair
from archbench.stats.paired import VISIBLE_EFFECT, minimum_detectable_effect, paired
from archbench.stats.repeatability import repeatability_limit
from archbench.stats.twostage import CONFIRM_EFFECT, CONFIRM_LEVEL, CONFIRM_PAIRS, CONFIRM_TRIM, SCREEN_EFFECT
from archbench.store.files import write_bytes

NOISE = Path("results") / "noise"
MOST_KEPT = 48
"""A/A pairs of a cell that are kept: four gates' worth."""
FEWEST = 8
"""A/A pairs below which a spread is not believed: its own standard error is a quarter of it there."""


class Threshold(Struct, frozen=True, kw_only=True):
    """By how much a cell must differ, as log ratios: to be confirmed, and then to be called slower or faster."""

    screen: float = SCREEN_EFFECT
    confirm: float = CONFIRM_EFFECT
    noisy: bool = False
    """Its A/A pairs scatter too widely to see `VISIBLE_EFFECT`, so the thresholds are its own."""
    spread: float | None = None
    """Standard deviation of its A/A pairs; `None` where there are none."""


class CellNoise(Struct, frozen=True, kw_only=True):
    """The A/A pairs of one cell."""

    cell_id: str
    log_ratios: tuple[float, ...]
    base_s: tuple[float, ...]
    """The base's time in each pair: how widely processes scatter that take no turns."""
    turns: int
    turn_s: float
    at: str
    """When the last pair was added, UTC, ISO 8601."""

    @property
    def spread(self) -> float | None:
        """Standard deviation of a pair's log ratio, or `None` with too few pairs; one wild pair in five is ignored.

        From the error of the trimmed mean, so that the detectable effect it gives is that of the test it is used in.
        """
        if len(self.log_ratios) < FEWEST:
            return None
        error = paired(self.log_ratios, CONFIRM_TRIM).error
        return None if error is None else error * math.sqrt(len(self.log_ratios))


class Noise(Struct, frozen=True, kw_only=True):
    """What is known of one hardware class."""

    hardware_class: str
    cells: tuple[CellNoise, ...] = ()

    def learnt(self, pairs: Mapping[str, Sequence[Pair]], *, turns: int, turn_s: float) -> Noise:
        """This and the A/A pairs of one more gate, by cell id; a pair that gave no ratio teaches nothing."""
        cells = {cell.cell_id: cell for cell in self.cells}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for cell_id, played in pairs.items():
            before = cells.get(cell_id)
            again = before is not None and (before.turns, before.turn_s) == (turns, turn_s)
            fresh = [(ratio, pair.latency_s()) for pair in played if (ratio := pair.log_ratio()) is not None]
            kept = list(zip(before.log_ratios, before.base_s, strict=True)) if before is not None and again else []
            together = [*kept, *fresh][-MOST_KEPT:]
            if together:
                ratios, times = zip(*together, strict=True)
                cells[cell_id] = CellNoise(
                    cell_id=cell_id, log_ratios=ratios, base_s=times, turns=turns, turn_s=turn_s, at=now
                )
        return Noise(hardware_class=self.hardware_class, cells=tuple(cells[key] for key in sorted(cells)))

    def threshold(self, cell_id: str, *, turns: int, turn_s: float) -> Threshold:
        """What a cell is to be judged by: the usual, unless its A/A pairs show that it is noisy.

        The usual thresholds, 1 and 1.5 %, are a third and a half of the 3 % that they are to show. A cell whose
        confirming pairs show only a larger effect (with 80 % power) has a third and a half of that one.
        """
        for cell in self.cells:
            if cell.cell_id != cell_id or (cell.turns, cell.turn_s) != (turns, turn_s) or cell.spread is None:
                continue
            shown = minimum_detectable_effect(cell.spread, CONFIRM_PAIRS, CONFIRM_LEVEL)
            if shown <= VISIBLE_EFFECT:
                return Threshold(spread=cell.spread)
            return Threshold(
                screen=SCREEN_EFFECT * shown / VISIBLE_EFFECT,
                confirm=CONFIRM_EFFECT * shown / VISIBLE_EFFECT,
                noisy=True,
                spread=cell.spread,
            )
        return Threshold()


def noise_file(hardware_class: str, root: Path = NOISE) -> Path:
    """Where a hardware class's noise is kept."""
    return root / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', hardware_class)}.json"


def read_noise(hardware_class: str, root: Path = NOISE) -> Noise:
    """What is known of a hardware class; empty where nothing is. Raises `UsageError` for a file that is damaged."""
    path = noise_file(hardware_class, root)
    try:
        noise = msgspec.json.decode(path.read_bytes(), type=Noise)
    except FileNotFoundError:
        return Noise(hardware_class=hardware_class)
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{path}: is not what `archbench gate --aa` writes ({error}); delete it, or restore it"
        ) from error
    if noise.hardware_class != hardware_class:
        raise UsageError(f"{path}: is about {noise.hardware_class!r}, not {hardware_class!r}; delete it, or rename it")
    return noise


def write_noise(noise: Noise, root: Path = NOISE) -> Path:
    """Keep it; return where. Raises `UnfitError` where the place cannot be written."""
    path = noise_file(noise.hardware_class, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, msgspec.json.format(msgspec.json.encode(noise), indent=2) + b"\n")
    return path


def known_floor(hardware_class: str, root: Path = NOISE) -> Floor | None:
    """How far apart two processes of one cell lie on this hardware that take no turns; `None` where unknown.

    From the base's times in the A/A pairs, which are some seconds to minutes apart. Within a pair two processes lie far
    closer, but a stored baseline takes no turns with anybody.
    """
    noise = read_noise(hardware_class, root)
    limit = repeatability_limit(np.log(cell.base_s) for cell in noise.cells if len(cell.base_s) >= FEWEST)
    if limit is None:
        return None
    return Floor(spread=math.expm1(limit), origin=f"gate --aa of {max(cell.at for cell in noise.cells)[:10]}")
