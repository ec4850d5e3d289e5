"""What measuring the same thing against itself scatters by, learnt by `gate --aa` and kept a hardware class at a time.

`results/noise/<hardware class>.json`, one object: `hardware_class`, and `cells`, one entry a cell: its id, the turns
and the seconds of a block, and by gate the log ratios and the base's times of its A/A pairs. Pairs of other turns,
other code or other libraries scatter otherwise, or about another time: a gate of such replaces the entry instead of
adding to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from archbench.model.comparison import Floor, ProcessPair
from archbench.model.errors import UsageError
from archbench.results.files import read_struct, write_json
from archbench.stats.paired import VISIBLE_EFFECT, minimum_detectable_effect, paired, sd
from archbench.stats.twostage import CONFIRM_EFFECT, CONFIRM_LEVEL, CONFIRM_PAIRS, CONFIRM_TRIM, SCREEN_EFFECT
from archbench.stats.variance import pooled

if TYPE_CHECKING:
    from archbench.comparison.gate import GateSpec

NOISE = Path("results") / "noise"
MOST_KEPT = 4
"""Gates whose A/A pairs of a cell are kept: the latest."""
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


class Learnt(Struct, frozen=True, kw_only=True):
    """The A/A pairs of one cell in one gate."""

    began: str
    """When its first pair of the cell began, ISO 8601: a gate that goes on takes the place of what it taught before."""
    log_ratios: tuple[float, ...]
    base_s: tuple[float, ...]
    """The base's time in each pair: how widely processes scatter that take no turns."""


class CellNoise(Struct, frozen=True, kw_only=True):
    """The A/A pairs of one cell: of one code under one set of libraries, in turns of one length."""

    cell_id: str
    subject: str
    """`GateSpec.subject` of the gates that they are of."""
    turns: int
    turn_s: float
    gates: tuple[Learnt, ...]

    @property
    def log_ratios(self) -> tuple[float, ...]:
        """log(head / base) of all pairs."""
        return tuple(ratio for gate in self.gates for ratio in gate.log_ratios)

    @property
    def base_s(self) -> tuple[float, ...]:
        return tuple(time for gate in self.gates for time in gate.base_s)

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

    def learnt(self, pairs: Mapping[str, Sequence[ProcessPair]], spec: GateSpec) -> Noise:
        """This and the A/A pairs of a gate, by cell id; a pair that is not fit to be used teaches nothing.

        To learn the same gate again, or more of it, changes nothing else.
        """
        cells = {cell.cell_id: cell for cell in self.cells}
        for cell_id, played in pairs.items():
            known = [(ratio, one.latency_s()) for one in played if one.fit and (ratio := one.log_ratio()) is not None]
            if not known:
                continue
            ratios, times = zip(*known, strict=True)
            fresh = Learnt(began=min(one.started_at for one in played), log_ratios=ratios, base_s=times)
            before = cells.get(cell_id)
            again = before is not None and before.subject == spec.subject
            kept = [one for one in before.gates if one.began != fresh.began] if before is not None and again else []
            cells[cell_id] = CellNoise(
                cell_id=cell_id,
                subject=spec.subject,
                turns=spec.turns,
                turn_s=spec.turn_s,
                gates=(*kept, fresh)[-MOST_KEPT:],
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
    if not path.exists():
        return Noise(hardware_class=hardware_class)
    try:
        noise = read_struct(path, Noise)
    except UsageError as error:
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
    write_json(path, noise)
    return path


def known_floor(hardware_class: str, root: Path = NOISE) -> Floor | None:
    """How far apart two processes of one cell lie on this hardware that take no turns; `None` where unknown.

    From the base's times in the A/A pairs, which are seconds to minutes apart within a gate, and as far apart as the
    gates of one code. Within a pair two processes lie far closer, but a stored baseline takes no turns with anybody.
    """
    cells = [cell for cell in read_noise(hardware_class, root).cells if len(cell.base_s) >= FEWEST]
    pool = pooled([sd(np.log(cell.base_s)) ** 2 for cell in cells], [len(cell.base_s) - 1 for cell in cells])
    if pool is None:
        return None
    latest = max(gate.began for cell in cells for gate in cell.gates)
    return Floor(spread=math.expm1(pool.limit()), origin=f"gate --aa of {latest[:10]}")
