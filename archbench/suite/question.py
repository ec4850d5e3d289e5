"""What a decision asks, checked while its file is at hand: every mistake gets its line and column."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from archbench import catalog
from archbench.model.cell import Network
from archbench.model.derived import RANKING_KEYS
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.suite import Decision
from archbench.query.expression import Among, Leaf, leaves
from archbench.query.parsing import ExpressionError, column_named, number_column, parse
from archbench.query.quantity import stored_value
from archbench.suite.document import ValuePath
from archbench.suite.shape import Origin


def check_question(decision: Decision, path: ValuePath, origin: Origin, networks: Iterable[Network]) -> None:
    """Raise `UsageError`, with the place that `origin` gives it, for the first thing that cannot be asked."""
    _check_goal(decision, path, origin)
    names = {network.name for network in networks}
    for number, condition in enumerate(decision.where):
        _check_condition(condition, (*path, "where", number), origin, names)
    for bounds in ("at_least", "at_most"):
        for column, bound in getattr(decision, bounds).items():
            place = (*path, bounds, column)
            _check_column(column, place, origin, at_key=True)
            if isinstance(bound, str):
                try:
                    stored_value(bound, column_named(column))
                except ValueError as error:
                    raise origin.error(place, str(error)) from None
    for column in decision.at_most_of_baseline:
        _check_column(column, (*path, "at_most_of_baseline", column), origin, at_key=True)
    if decision.at_most_of_baseline and decision.baseline is None:
        what = "at_most_of_baseline needs a baseline; add 'baseline: NAME'"
        raise origin.error((*path, "at_most_of_baseline"), what, at_key=True)
    for number, column in enumerate(decision.show):
        try:
            column_named(column)
        except UsageError as error:
            raise origin.error((*path, "show", number), str(error)) from None
    for number, column in enumerate(decision.across):
        if column not in RANKING_KEYS:
            near = did_you_mean(column, RANKING_KEYS) or f"; it can be {', '.join(RANKING_KEYS)}"
            raise origin.error((*path, "across", number), f"{column!r} locks nothing{near}")


def _check_goal(decision: Decision, path: ValuePath, origin: Origin) -> None:
    goals = [goal for goal in ("minimize", "maximize") if getattr(decision, goal) is not None]
    if len(goals) != 1:
        which = "both minimize and maximize" if goals else "neither minimize nor maximize"
        raise origin.error(path, f"the decision {decision.situation!r} has {which}; give one column to judge by")
    _check_column(getattr(decision, goals[0]), (*path, goals[0]), origin)


def _check_column(name: str, path: ValuePath, origin: Origin, *, at_key: bool = False) -> None:
    try:
        number_column(name)
    except UsageError as error:
        raise origin.error(path, str(error), at_key=at_key) from None


def _check_condition(condition: str, path: ValuePath, origin: Origin, names: Collection[str]) -> None:
    """A condition that can be read, about networks that the suite has."""
    try:
        for leaf in leaves(parse(condition)):
            _check_names(leaf, names)
    except ExpressionError as error:
        raise origin.error(path, error.problem, offset=error.position) from None
    except UsageError as error:
        raise origin.error(path, str(error)) from None


def _check_names(leaf: Leaf, names: Collection[str]) -> None:
    """A misspelt name would match nothing in silence, and the decision would never have an answer."""
    values = leaf.values if isinstance(leaf, Among) else (leaf.value,)
    if leaf.column == "architecture":
        known, kind, there_are = names, "architecture of the suite", "; see `architectures:`"
    elif leaf.column == "family":
        # As installed libraries have families that the catalogue lacks, only what is near one of ours is a mistake.
        families = {catalog.resolve(name, allow_code=True).family for name in names}
        known, kind, there_are = {one for one in families if one is not None}, "family of the suite", ""
    else:
        return
    for value in values:
        near = did_you_mean(str(value), known) or there_are
        if value not in known and near:
            raise UsageError(f"{value!r} is no {kind}{near}")
