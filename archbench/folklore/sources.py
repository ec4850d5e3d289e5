"""Where a claim's figures come from: the catalogue's tables, stored runs, a training probe, facts, and what is built.

Only what is built (`experiments`) loads torch, and only when a formula asks for it.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from archbench.catalog import counted_by_label, resolve
from archbench.catalog.card import COUNTED, LISTED, columns_of
from archbench.folklore.formula import Figure, Figures, Term
from archbench.model.axes import TOGGLES, Toggles
from archbench.model.cell import Network
from archbench.model.errors import UsageError, did_you_mean
from archbench.query.expression import Expression, holds
from archbench.query.parsing import number_column
from archbench.training.settings import SUBJECTS

if TYPE_CHECKING:
    from archbench.choose.candidates import Candidates
    from archbench.training.probe import Probe

STRUCTURE = ("modules", "kernels", "attribute", "channels", "side", "part_params", "training_bytes")
"""Functions of `experiments` that are told by a network once it is built."""
EXPERIMENTS = (
    *("max_derivative", "mean_derivative", "init_variance", "batchnorm_mean", "batchnorm_std", "gradient_ratio"),
    *("signal_ratio", "receptive_field", "dropout_masks", "shortcut_jacobian", "zero_share", "sparse_slowdown"),
    "identity_loss",
)
"""The others: done here and now."""
TRAINED = ("train_loss", "train_accuracy", "test_accuracy", "trained_gradient_ratio")
"""Of a network of the training probe: where its trainings ended; `at=0.25`: after a quarter of the steps."""
PUBLISHED = ("fact", "top1", "top5")
"""Of papers and libraries: neither counted nor measured here."""
_OWN = (*STRUCTURE, *EXPERIMENTS, *TRAINED, "fact")
"""Functions that are no columns."""
_NETWORKLESS = {*EXPERIMENTS} - {"gradient_ratio", "signal_ratio", "receptive_field", "zero_share"}
_RANKED = {
    "latency_median_s": ("rank_latency_s", "rank_latency_low_s", "rank_latency_high_s"),
    "throughput_img_s": ("rank_throughput_img_s", "rank_throughput_low_img_s", "rank_throughput_high_img_s"),
}
CATALOGUED = {*LISTED, *COUNTED}
KEYS = ("run_id", "hardware_class", "phase", "batch_size", *TOGGLES, "threads")
"""Columns in which cells are alike that are held against each other."""


_Place = tuple[int, int]
"""Of a row: the number of its run, and its own in there."""


class MissingError(Exception):
    """A figure that is not here; what would bring it stands in `command`, where anything would."""

    def __init__(self, why: str, command: str | None = None) -> None:
        super().__init__(why)
        self.command = command


class Situation(Struct, frozen=True):
    """One setting under which all cells that a formula asks for were measured."""

    values: tuple[tuple[str, Any], ...] = ()
    """By the columns of `KEYS`; empty where nothing measured is asked for."""

    @property
    def text(self) -> str:
        """`inference, batch 1, fp32`: without the machine and the run."""
        of = dict(self.values)
        if not of:
            return ""
        toggles = Toggles(**{name: of[name] for name in TOGGLES}).label
        threads = [] if of["threads"] is None else [f"{of['threads']} threads"]
        return ", ".join([of["phase"], f"batch {of['batch_size']}", toggles, *threads])


def check_term(term: Term, facts: Mapping[str, object]) -> None:
    """Raises `UsageError` for a figure that nothing here can give, or of a network that is not known."""
    name, about = term.function, term.about
    if name == "fact":
        if len(about) != 1 or about[0] not in facts:
            raise UsageError(f"there is no fact {_word(term)!r}{did_you_mean(_word(term), facts)}; add it under facts")
    elif name in TRAINED:
        if len(about) != 1 or about[0] not in SUBJECTS:
            near = did_you_mean(_word(term), SUBJECTS)
            raise UsageError(f"the training probe has no {_word(term)!r}{near}; it has {', '.join(SUBJECTS)}")
    elif name not in _NETWORKLESS:
        if name not in (*STRUCTURE, *EXPERIMENTS):
            _column(name)
        if not about or not isinstance(about[0], str):
            raise UsageError(f"{term.text} names no network; write {name}(resnet50)")
        resolve(str(about[0]))


def _column(name: str) -> str:
    try:
        return number_column(name).name
    except UsageError as error:
        near = did_you_mean(name, _OWN)
        raise UsageError(f"{error}{near}" if near else str(error)) from None


def is_measured(term: Term) -> bool:
    """Whether stored rows have it, and nothing else does."""
    return term.function not in _OWN and number_column(term.function).name not in CATALOGUED


class Sources:
    """All that claims may be judged by, at once."""

    def __init__(
        self, facts: Mapping[str, Any], cells: Sequence[Candidates] = (), probe: Probe | None = None, *,
        builds: bool = True,
    ) -> None:  # fmt: skip
        """`cells`: of each run, the newest last. `builds`: whether torch may be loaded for what no table has."""
        self._facts = facts
        self._probe = probe
        self._builds = builds
        frames = (run.frame for run in cells)
        fit = (frame[(frame["status"] == "ok") & (frame["verdict"] != "invalid")] for frame in frames)
        self._frames = [frame.reset_index(drop=True) for frame in fit]
        self._rows: dict[str, list[tuple[_Place, dict[str, Any]]]] = {}
        """By network, each with its place among all."""

    def situations(self, terms: Sequence[Term], where: Sequence[Expression]) -> list[Situation]:
        """The settings under which every measured term has a cell of `where`. Raises `MissingError` for none."""
        wanted = [term for term in terms if is_measured(term)]
        if not wanted:
            return [Situation()]
        asked: dict[str, list[tuple[Term, str]]] = defaultdict(list)
        for term in wanted:
            asked[_network(term).label].append((term, _column(term.function)))
        found: dict[Situation, set[Term]] = {}
        for _, row in sorted((one for label in asked for one in self._rows_of(label)), key=itemgetter(0)):
            if all(holds(condition, row) for condition in where):
                here = Situation(tuple((key, row[key]) for key in KEYS))
                for term, column in asked[row["variant"]]:
                    if row[column] is not None:
                        found.setdefault(here, set()).add(term)
        # Of several runs on one class of machine the newest that has all: a ratio is of one run's figures.
        whole = {one.values[1:]: one for one, there in found.items() if len(there) == len(set(wanted))}
        if not whole:
            raise MissingError(*_unmeasured(wanted, where))
        return list(whole.values())

    def figures(self, terms: Sequence[Term], situation: Situation) -> Figures:
        """Of every term. Raises `MissingError` for the first that is not here."""
        return {term: self._figure(term, situation) for term in terms}

    def _figure(self, term: Term, situation: Situation) -> Figure:
        name = term.function
        if name == "fact":
            fact = self._facts[str(term.about[0])]
            return Figure(value=fact.value, origin=fact.source)
        if name in TRAINED:
            return self._trained(term)
        if name in (*STRUCTURE, *EXPERIMENTS):
            return self._built(term)
        column = _column(name)
        return self._counted(term, column) if column in CATALOGUED else self._stored(term, column, situation)

    def _counted(self, term: Term, column: str) -> Figure:
        network = _network(term)
        known = columns_of(resolve(network.name)).get(column)
        if network.options or term.options:
            counted = counted_by_label().get(network.label)
            if counted is None:
                return self._built(Term("counted", (column, *term.about), term.options))
            known = getattr(counted.counts, column)
        if not isinstance(known, int | float):
            raise MissingError(f"the catalogue has no {column} of {network.label}")
        published = column in PUBLISHED
        origin = str(columns_of(resolve(network.name))["accuracy_source"]) if published else "counted"
        return Figure(value=float(known), origin=origin)

    def _stored(self, term: Term, column: str, situation: Situation) -> Figure:
        wanted = dict(situation.values).items()
        rows = self._rows_of(_network(term).label)
        row = next(one for _, one in rows if all(one[key] == value for key, value in wanted))
        value, *ends = (row[name] for name in _RANKED.get(column, (column,)))
        low, high = ends or (None, None)
        return Figure(value=float(value), low=low, high=high, origin=f"run {row['run_id']} on {row['hardware_class']}")

    def _rows_of(self, label: str) -> list[tuple[_Place, dict[str, Any]]]:
        """As plain values, and of this network alone: a run has a hundred thousand rows."""
        from archbench.choose.cell_summary import plain_values

        if label not in self._rows:
            found = self._rows[label] = []
            for number, frame in enumerate(self._frames):
                frame = frame[frame["variant"] == label]
                if frame.empty:  # a hundred and thirty columns take a moment even so
                    continue
                columns = {name: plain_values(frame[name]) for name in frame.columns}
                values = zip(*columns.values(), strict=True)
                found += [
                    ((number, int(place)), dict(zip(columns, row, strict=True)))
                    for place, row in zip(frame.index, values, strict=True)
                ]
        return self._rows[label]

    def _trained(self, term: Term) -> Figure:
        name, share = str(term.about[0]), float(dict(term.options).get("at", 1.0))  # type: ignore[arg-type]
        command = "archbench train-probe"
        if self._probe is None:
            raise MissingError("there is no training probe", command)
        steps = self._probe.about.settings.schedules[SUBJECTS[name].kind].steps
        values = []
        for seed in self._probe.about.settings.seeds:
            along = [one for one in self._probe.points if (one.network, one.seed) == (name, seed)]
            if not along:
                continue
            # A training that ended at a loss of NaN has no later point: there its loss is beyond any bound.
            point = min(along, key=lambda one: abs(one.step - share * steps))
            if term.function == "trained_gradient_ratio":
                value = point.gradient_norms[0] / point.gradient_norms[-1] if point.gradient_norms[-1] else math.nan
            else:
                value = getattr(point, term.function)
            values.append(math.inf if math.isnan(value) else value)
        if not values:
            raise MissingError(f"the training probe has not trained {name}", f"{command} {name}")
        origin = f"{self._probe.path}, {len(values)} seeds on {self._probe.about.hardware_class}"
        return _mean(values, origin, most=100.0 if term.function.endswith("accuracy") else math.inf)

    def _built(self, term: Term) -> Figure:
        if not self._builds:
            raise MissingError(f"{term.text} needs the network to be built", "archbench claims")
        return _made(term)


@cache
def _made(term: Term) -> Figure:
    from archbench.folklore import experiments

    found = getattr(experiments, term.function)(*term.about, **dict(term.options))
    values = found if isinstance(found, list) else [found]
    return _mean(list(map(float, values)), "tried here" if term.function in EXPERIMENTS else "built here")


def _mean(values: Sequence[float], origin: str, most: float = math.inf) -> Figure:
    """Their mean, with Student's 95 % interval where there are several and all are finite.

    What is positive stays so, by an interval on the log scale, and what is a share of `most` below that, by the odds
    (both by the delta method).
    """
    from scipy.special import stdtrit

    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else max(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Figure(value=mean, origin=origin)
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    low, high = (_moved(mean, by, most if min(values) > 0 else None) for by in (-half, half))
    return Figure(value=mean, low=low, high=high, origin=origin)


def _moved(mean: float, by: float, most: float | None) -> float:
    """`mean` and `by`, on the scale of logs or of odds where there is a `most`, infinite or not."""
    if most is None or mean >= most:
        return mean + by
    left = 1 - mean / most
    return 1 / ((1 / mean - 1 / most) * math.exp(-by / (mean * left)) + 1 / most)


def _network(term: Term) -> Network:
    return Network(name=resolve(str(term.about[0])).name, options=dict(term.options))


def _word(term: Term) -> str:
    return str(term.about[0]) if term.about else ""


def _unmeasured(terms: Sequence[Term], where: Sequence[Expression]) -> tuple[str, str]:
    """Why there is no setting under which all were measured, and the command that measures them."""
    from archbench.query.expression import leaves, show

    names = list(dict.fromkeys(_network(term).label for term in terms))
    under = f" where {' and '.join(map(show, where))}" if where else ""
    asked = {leaf.column: leaf for condition in where for leaf in leaves(condition)}
    values = {column: getattr(asked.get(column), "value", None) for column in ("phase", "batch_size", "precision")}
    options = (
        f"--{column.replace('_', '-')} {int(value) if isinstance(value, float) else value}"
        for column, value in values.items()
        if value is not None
    )
    what = ", ".join(dict.fromkeys(term.function for term in terms))
    why = f"no run has {what} of {' and '.join(names)} under one setting{under}"
    return why, " ".join(["archbench run", *names, *options])
