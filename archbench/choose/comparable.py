"""The comparability lock: which rows may be ranked against each other, and what a reader has to know of those that are.

Rows that differ in a column of `RANKING_KEYS` are split into groups, each ranked by itself, unless it was named
(`across`); then they are ranked together, and the difference is a footnote.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.model.axes import AS_USUAL, ROLES, TOGGLES, Toggles
from archbench.model.derived import RANKING_KEYS
from archbench.model.units import listed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

ACCURACY_DATASET = "accuracy_dataset"
PUBLISHED = "as published"
"""In the place of an image size: each network at the size that it was published for."""
NULL_MEANS = {
    "threads": "default",
    "inputs": "one square image",
    **{name: str(getattr(AS_USUAL, name)).lower() for name in ROLES},
}
"""What a row has in whose column nothing stands, where that says something."""
_MOST_NAMED = 6
_PLACE = ["variant", "hardware_class", "phase", "batch_size"]


class Circumstance(Struct, frozen=True):
    """What all rows of a group have in common in one column that tells groups apart."""

    column: str
    value: str | int


class Footnote(Struct, frozen=True):
    """One column in which cells differ that are ranked together."""

    column: str
    text: str


class Comparables(Struct, frozen=True, kw_only=True):
    """Rows that may be ranked against each other."""

    circumstances: tuple[Circumstance, ...]
    """Empty where all rows are alike."""
    rows: NDArray[np.int64]
    """Positions in the frame: of the rows that were asked about, and of the others under the same circumstances."""


def comparable_groups(
    frame: pd.DataFrame, wanted: NDArray[np.bool_], across: Collection[str], *, by_accuracy: bool = False
) -> tuple[Comparables, ...]:
    """Split the frame's rows by every locked column in which the `wanted` ones differ, but for those in `across`.

    `by_accuracy`: what is asked judges accuracies, so that those of different data sets stand apart, too.

    One group of all rows where nothing is wanted. Groups come in the order of their circumstances, numbers ascending.
    """
    import pandas as pd

    keys: dict[str, pd.Series[Any]] = {}
    for column in RANKING_KEYS:
        values = _sizes(frame, wanted) if column == "input_size" else frame[column].astype(object)
        if column == ACCURACY_DATASET and not by_accuracy:
            continue
        if column not in across and values[wanted].nunique(dropna=False) > 1:
            keys[column] = values.where(values.notna(), NULL_MEANS.get(column, "unknown"))
    if not keys:
        return (Comparables(circumstances=(), rows=np.arange(len(frame))),)
    key_frame = pd.DataFrame(keys)
    number = key_frame.groupby(list(keys), sort=False).ngroup().to_numpy()
    groups = []
    for one in np.unique(number[wanted]):
        rows = np.flatnonzero(number == one)
        first = key_frame.iloc[rows[0]]
        own = ((name, first[name]) for name in keys)
        alike = tuple(Circumstance(n, int(v) if isinstance(v, (int, np.integer)) else str(v)) for n, v in own)
        groups.append(Comparables(circumstances=alike, rows=rows))
    return tuple(sorted(groups, key=lambda group: [_order(one.value) for one in group.circumstances]))


def differences(ranked: pd.DataFrame, across: Collection[str]) -> tuple[Footnote, ...]:
    """What rows that stand in one ranking differ in, one sentence a difference."""
    notes = []
    for column, why in RANKING_KEYS.items():
        usual = NULL_MEANS.get(column)
        known = ranked[column].dropna() if usual is None else ranked[column].astype(object).fillna(usual)
        values = known.unique()
        if column in across and len(values) > 1:
            shown = ", ".join(str(value) for value in sorted(values.tolist(), key=_order))
            notes.append(Footnote(column, f"Ranked across {column} ({shown}): {why}."))
        elif column == "input_size" and len(values) > 1:
            notes.append(Footnote(column, _published_sizes(ranked)))
    return tuple(notes)


def unlike_settings(frame: pd.DataFrame, ahead: pd.DataFrame, behind: pd.DataFrame) -> tuple[Footnote, ...]:
    """Who loses to a network under a setting that they were never tried under: a tuned network against an untuned one.

    `ahead`, `behind`: rows of `frame`, pair by pair. A setting that failed was tried. One sentence a row ahead.
    """
    tried = set(frame.loc[frame["status"] != "skipped", [*_PLACE, *TOGGLES]].itertuples(index=False, name=None))
    untried: dict[tuple[str, str], list[str]] = {}
    pairs = zip(ahead[["variant", *TOGGLES]].values.tolist(), behind[_PLACE].values.tolist(), strict=True)
    for (first, *toggles), place in pairs:
        if (*place, *toggles) not in tried:
            untried.setdefault((first, Toggles(**dict(zip(TOGGLES, toggles, strict=True))).label), []).append(place[0])
    return tuple(
        Footnote(
            "setting",
            f"{listed(names, _MOST_NAMED)} {'was' if len(names) == 1 else 'were'} not measured under {setting}, as "
            f"{first} was: part of the distance may be the setting's.",
        )
        for (first, setting), names in untried.items()
    )


def accuracies(ranked: pd.DataFrame) -> tuple[str, ...]:
    """Whose weights and protocol the published accuracies are of, one sentence each; empty where there are none."""
    sources = ranked.drop_duplicates("variant").groupby("accuracy_source", sort=False)["variant"]
    if sources.ngroups < 2:
        return tuple(f"Top-1 is quoted, not measured: {source}." for source in sources.groups)
    notes = ["Top-1 is quoted, not measured, and not by one protocol."]
    for source, members in sources:
        notes.append(f"{source}: {listed(members.tolist(), _MOST_NAMED)}.")
    return tuple(notes)


def _sizes(frame: pd.DataFrame, wanted: NDArray[np.bool_]) -> pd.Series[Any]:
    """Image sizes, but `PUBLISHED` for networks at their own wherever the wanted rows have several.

    An engineer who asks for the best network means EfficientNet-B4 at 380 px and ResNet-50 at 224 px. Only a network
    that was measured at another size than its own is a different question.
    """
    sizes = frame["input_size"].astype(object)
    if sizes[wanted].nunique(dropna=False) < 2:
        return sizes
    return sizes.where(frame["variant"].str.contains("input_size=", regex=False), PUBLISHED)


def _published_sizes(ranked: pd.DataFrame) -> str:
    usual = ranked["input_size"].mode().iloc[0]
    others = ranked[ranked["input_size"].notna() & (ranked["input_size"] != usual)].drop_duplicates("variant")
    named = listed([f"{row.variant} {row.input_size}" for row in others.itertuples()], _MOST_NAMED)
    return f"Each network at the image size that it was published for: {usual} px, but {named}."


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, (int, np.integer))
    return (not number, float(value) if number else 0.0, str(value))
