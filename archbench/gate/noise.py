"""What measuring the same thing against itself scatters by, learnt by `gate --aa` and kept a hardware class at a time.

`results/noise/<hardware class>.json`, one object: `hardware_class`, and `cells`, one entry a cell: its id, the log
ratios of A/A pairs (the latest `MOST_KEPT`), the turns and the seconds of a block that they were taken with, and when.
Pairs of other turns scatter otherwise, so a later `--aa` with other numbers replaces the entry instead of adding to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from archbench.model.comparison import Floor
from archbench.model.errors import UsageError
from archbench.stats.paired import minimum_detectable_effect, paired
from archbench.stats.twostage import CONFIRM_EFFECT, CONFIRM_LEVEL, CONFIRM_PAIRS, CONFIRM_TRIM, SCREEN_EFFECT
from archbench.store.files import write_bytes

NOISE = Path("results") / "noise"
MOST_KEPT = 48
"""A/A pairs of a cell that are kept: four gates' worth."""
FEWEST = 8
"""A/A pairs below which a spread is not believed: its own standard error is a quarter of it there."""
VISIBLE = 0.03
"""A cell in which the confirming pairs would not show a slowdown of this size is noisy."""


class Threshold(Struct, frozen=True, kw_only=True):
    """By how much a cell must differ, as log ratios: to be confirmed, and then to be called slower or faster."""

    screen: float = SCREEN_EFFECT
    confirm: float = CONFIRM_EFFECT
    noisy: bool = False
    """Its A/A pairs scatter too widely to see `VISIBLE`, so the thresholds are its own."""
    spread: float | None = None
    """Standard deviation of its A/A pairs; `None` where there are none."""


class CellNoise(Struct, frozen=True, kw_only=True):
    """The A/A pairs of one cell."""

    cell_id: str
    log_ratios: tuple[float, ...]
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

    def learnt(self, ratios: Mapping[str, Iterable[float]], *, turns: int, turn_s: float) -> Noise:
        """This and the A/A pairs of one more gate."""
        cells = {cell.cell_id: cell for cell in self.cells}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for cell_id, fresh in ratios.items():
            before = cells.get(cell_id)
            kept = before.log_ratios if before and (before.turns, before.turn_s) == (turns, turn_s) else ()
            together = (*kept, *fresh)[-MOST_KEPT:]
            if together:
                cells[cell_id] = CellNoise(cell_id=cell_id, log_ratios=together, turns=turns, turn_s=turn_s, at=now)
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
            if shown <= VISIBLE:
                return Threshold(spread=cell.spread)
            return Threshold(
                screen=SCREEN_EFFECT * shown / VISIBLE,
                confirm=CONFIRM_EFFECT * shown / VISIBLE,
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
    """How far apart two measurements of one cell lie on this hardware when they take turns; `None` where unknown.

    Of the cells' A/A pairs, 95 % lie within it. Processes that do not take turns lie further apart.
    """
    noise = read_noise(hardware_class, root)
    sizes = sorted(abs(ratio) for cell in noise.cells for ratio in cell.log_ratios)
    if len(sizes) < FEWEST:
        return None
    spread = math.expm1(sizes[math.ceil(0.95 * len(sizes)) - 1])
    return Floor(spread=spread, origin=f"gate --aa of {max(cell.at for cell in noise.cells)[:10]}")
