"""From plain values to a `Suite`: names looked up in the catalogue, and what contradicts itself refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from typing import Any

import msgspec
from msgspec import inspect

from archbench import catalog
from archbench.catalog import Entry
from archbench.model.axes import PLAIN, TOGGLES, DeviceKind, Metric
from archbench.model.cell import Network, inputs_problem
from archbench.model.derived import RANKING_KEYS
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.suite import Axes, Decision, Filter, Section, Setting, Suite
from archbench.query.expression import Among, Leaf, leaves
from archbench.query.parsing import ExpressionError, column_named, number_column, parse
from archbench.query.quantity import stored_value
from archbench.suite.document import ValuePath
from archbench.suite.schema import ArchitectureEntry, SuiteFile
from archbench.suite.shape import Origin, shaped


@cache
def grammar() -> inspect.Type:
    """The types of a suite file, for walking."""
    return inspect.type_info(SuiteFile)


def checked(value: Any, origin: Origin, *, allow_code: bool) -> Suite:
    """Turn plain values into a `Suite`. Raises `UsageError` for the first mistake, with the place `origin` gives it."""
    plain = shaped(value, grammar(), (), origin)
    return _Check(plain, origin, allow_code=allow_code).suite()


class _Check:
    """One suite being checked: the values as written and, step by step, what they mean."""

    def __init__(self, plain: dict[str, Any], origin: Origin, *, allow_code: bool) -> None:
        self._plain = plain
        self._origin = origin
        self._allow_code = allow_code
        self._file = msgspec.convert(plain, SuiteFile)
        self._networks: tuple[Network, ...] = ()

    def suite(self) -> Suite:
        file = self._file
        self._networks = self._read_architectures()
        self._check_toggles(file.axes, bool(file.settings), ("axes",))
        return Suite(
            **{
                **msgspec.structs.asdict(file),
                "description": file.description.strip(),
                "architectures": self._networks,
                "settings": self._read_settings(),
                "devices": {kind: self._read_sections(kind, sections) for kind, sections in file.devices.items()},
                "exclude": tuple(self._read_filter(one, ("exclude", n)) for n, one in enumerate(file.exclude)),
                "metrics": self._metrics(),
                "twin": self._read_twin(),
                "protocol": dict(self._plain.get("protocol", {})),
                "decisions": self._read_decisions(),
            }
        )

    def _error(self, path: ValuePath, what: str, *, at_key: bool = False) -> UsageError:
        return self._origin.error(path, what, at_key=at_key)

    def _metrics(self) -> tuple[Metric, ...]:
        """Those named, else the usual ones; where there are images accuracy too, which needs some."""
        named = self._file.metrics
        if "metrics" not in self._plain and self._converts():
            named = (*named, "numerics")  # a runtime or a format may have made another network of it
        if self._file.images is not None:
            return tuple(dict.fromkeys((*named, "accuracy")))
        if "accuracy" in named:
            raise self._error(("metrics",), "metrics: accuracy is measured on labelled images; add images: FOLDER")
        return named

    def _converts(self) -> bool:
        file, asked = self._file, set[str]()
        for axes in (file.axes, *chain.from_iterable(file.devices.values())):
            asked.update(axes.runtime or (), axes.quantize or ())
        for setting in file.settings.values():
            asked.update((setting.runtime, setting.quantize))
        return bool(asked - {PLAIN.runtime, PLAIN.quantize})

    # Architectures

    def _read_architectures(self) -> tuple[Network, ...]:
        """Every network once. A family may hold what is also named; the same network named twice is a mistake."""
        found: dict[str, Network] = {}
        named: set[str] = set()
        for number, entry in enumerate(self._file.architectures):
            path = ("architectures", number)
            one = ArchitectureEntry(name=entry) if isinstance(entry, str) else entry
            members = self._members(one, path)
            self._check_inputs(one, path)
            for network in (self._network(one, member) for member in members):
                if one.name is not None and network.label in named:
                    raise self._error(path, f"{network.label} is listed twice; keep one of them")
                if one.name is not None:
                    named.add(network.label)
                found.setdefault(network.label, network)
        return tuple(found.values())

    def _members(self, one: ArchitectureEntry, path: ValuePath) -> tuple[Entry, ...]:
        if (one.name is None) == (one.family is None):
            which = "neither name nor family" if one.name is None else "both name and family"
            raise self._error(path, f"an architecture with {which}; give one of them")
        for key, what in (("accuracy", "an accuracy is"), ("weights", "weights are")):
            if one.family is not None and getattr(one, key) is not None:
                raise self._error(
                    (*path, key), f"{what} of one network, not of a family; name the network", at_key=True
                )
        with placing(self._origin, (*path, "name" if one.family is None else "family")):
            if one.family is not None:
                return catalog.family(one.family)
            return (catalog.resolve(one.name or "", allow_code=self._allow_code),)

    def _check_inputs(self, one: ArchitectureEntry, path: ValuePath) -> None:
        if one.inputs and (clash := next((key for key in ("input_size", "in_channels") if getattr(one, key)), None)):
            what = f"{clash} says of an image what inputs already say; leave one of them out"
            raise self._error((*path, clash), what, at_key=True)
        if problem := inputs_problem(one.inputs):
            raise self._error((*path, "inputs"), f"inputs: {problem}", at_key=True)

    def _network(self, one: ArchitectureEntry, entry: Entry) -> Network:
        said = {name: getattr(one, name) for name in Network.__struct_fields__}
        size = one.input_size if one.input_size != entry.input_size else None
        return Network(**{**said, "name": entry.name, "input_size": size})

    # Settings, sections, filters

    def _check_toggles(self, axes: Axes, has_settings: bool, path: ValuePath) -> None:
        clash = next((toggle for toggle in TOGGLES if getattr(axes, toggle) is not None), None)
        if has_settings and clash is not None:
            what = f"{clash} stands among the axes, but settings already say it; write it in the settings"
            raise self._error((*path, clash), f"{what}, or drop the settings", at_key=True)

    def _read_settings(self) -> dict[str, Setting]:
        seen: dict[bytes, str] = {}
        result: dict[str, Setting] = {}
        for name, setting in self._file.settings.items():
            path = ("settings", name)
            if setting.only.setting:
                what = "the `only` of a setting cannot name settings; restrict it by the other fields"
                raise self._error((*path, "only", "setting"), what, at_key=True)
            read = msgspec.structs.replace(setting, only=self._read_filter(setting.only, (*path, "only")))
            key = msgspec.json.encode(read)
            if key in seen:
                what = f"the settings {seen[key]} and {name} are the same; change or remove one"
                raise self._error(path, what, at_key=True)
            seen[key] = name
            result[name] = read
        return result

    def _read_sections(self, kind: DeviceKind, sections: Iterable[Section]) -> tuple[Section, ...]:
        result = []
        for number, section in enumerate(sections):
            path: ValuePath = ("devices", kind, number)
            self._check_toggles(section, section.settings is not None, path)
            self._check_known(section.settings or (), self._file.settings, "setting", (*path, "settings"))
            self._check_families(section.family or (), (*path, "family"))
            patterns = section.architectures
            if patterns is not None:
                patterns = self._read_patterns(patterns, (*path, "architectures"))
            result.append(msgspec.structs.replace(section, architectures=patterns))
        return tuple(result)

    def _read_filter(self, filter: Filter, path: ValuePath) -> Filter:
        if path[0] == "exclude" and filter == Filter():
            raise self._error(path, "an empty exclusion would leave nothing; say what to exclude")
        self._check_known(filter.setting, self._file.settings, "setting", (*path, "setting"))
        self._check_families(filter.family, (*path, "family"))
        patterns = self._read_patterns(filter.architecture, (*path, "architecture"))
        return msgspec.structs.replace(filter, architecture=patterns)

    def _check_known(self, names: Iterable[str], known: Iterable[str], kind: str, path: ValuePath) -> None:
        known = tuple(known)
        for number, name in enumerate(names):
            if name not in known:
                there_are = f"; the suite has {', '.join(known)}" if known else f"; the suite has no {kind}s"
                hint = did_you_mean(name, known) or there_are
                raise self._error((*path, number), f"unknown {kind} {name!r}{hint}")

    def _check_families(self, names: Iterable[str], path: ValuePath) -> None:
        if names:
            families = dict.fromkeys(catalog.resolve(n.name, allow_code=True).family for n in self._networks)
            self._check_known(names, [one for one in families if one is not None], "family", path)

    def _read_patterns(self, patterns: tuple[str, ...], path: ValuePath) -> tuple[str, ...]:
        return tuple(self._read_pattern(pattern, (*path, number)) for number, pattern in enumerate(patterns))

    def _read_pattern(self, pattern: str, path: ValuePath) -> str:
        """Aliases become names. Raises where the pattern selects none of the suite's networks."""
        wanted = canonical(pattern)
        if not any(selects(wanted, network) for network in self._networks):
            hint = did_you_mean(pattern, [network.label for network in self._networks]) or "; see `architectures:`"
            raise self._error(path, f"{pattern!r} matches none of the suite's architectures{hint}")
        return wanted

    # Twin and decisions

    def _read_twin(self) -> str | None:
        twin = self._file.twin
        if twin is None:
            return None
        wanted = canonical(twin)
        for network in self._networks:
            if wanted in (network.label, network.name):
                return wanted
        hint = did_you_mean(twin, [network.label for network in self._networks]) or "; choose one of them"
        raise self._error(("twin",), f"the twin {twin!r} is not among the suite's architectures{hint}")

    def _read_decisions(self) -> tuple[Decision, ...]:
        result: list[Decision] = []
        for number, decision in enumerate(self._file.decisions):
            path: ValuePath = ("decisions", number)
            if any(decision.situation == earlier.situation for earlier in result):
                raise self._error((*path, "situation"), f"{decision.situation!r} stands twice; keep one of them")
            result.append(self._read_decision(decision, path))
        return tuple(result)

    def _read_decision(self, decision: Decision, path: ValuePath) -> Decision:
        check_question(decision, path, self._origin, self._networks)
        usual = [self._network_named(name, (*path, "folklore", n)) for n, name in enumerate(decision.usual_choice)]
        baseline = decision.baseline and self._network_named(decision.baseline, (*path, "baseline"))
        return msgspec.structs.replace(decision, usual_choice=tuple(usual), baseline=baseline)

    def _network_named(self, name: str, path: ValuePath) -> str:
        with placing(self._origin, path):
            return catalog.resolve(name, allow_code=True).name


def canonical(name: str) -> str:
    """The catalogue's name for an alias; any other word unchanged."""
    try:
        return name if is_pattern(name) else catalog.resolve(name, allow_code=True).name
    except UsageError:
        return name  # A label such as `densenet121[memory_efficient=true]`, or unknown: the caller finds out.


@contextmanager
def placing(origin: Origin, path: ValuePath, *, at_key: bool = False) -> Iterator[None]:
    """Give what the block refuses the place of the value at `path`, or of its key; a condition's mistake its own."""
    try:
        yield
    except ExpressionError as error:
        raise origin.error(path, error.problem, offset=error.position) from None
    except (UsageError, ValueError) as error:
        raise origin.error(path, str(error), at_key=at_key) from None


def check_question(decision: Decision, path: ValuePath, origin: Origin, networks: Iterable[Network]) -> None:
    """Raise `UsageError`, with the place that `origin` gives it, for the first thing that cannot be asked."""
    goals = [goal for goal in ("minimize", "maximize") if getattr(decision, goal) is not None]
    if len(goals) != 1:
        which = "both minimize and maximize" if goals else "neither minimize nor maximize"
        raise origin.error(path, f"the decision {decision.situation!r} has {which}; give one column to judge by")
    with placing(origin, (*path, goals[0])):
        number_column(getattr(decision, goals[0]))
    names = {network.name for network in networks}
    for number, condition in enumerate(decision.where):
        with placing(origin, (*path, "where", number)):
            for leaf in leaves(parse(condition)):
                _check_names(leaf, names)
    for bounds in ("at_least", "at_most"):
        for column, bound in getattr(decision, bounds).items():
            with placing(origin, (*path, bounds, column), at_key=True):
                known = number_column(column)
            if isinstance(bound, str) or known.unit == "%":
                with placing(origin, (*path, bounds, column)):
                    stored_value(str(bound), known)
    for column in decision.at_most_of_baseline:
        with placing(origin, (*path, "at_most_of_baseline", column), at_key=True):
            number_column(column)
    if decision.at_most_of_baseline and decision.baseline is None:
        what = "at_most_of_baseline needs a baseline; add 'baseline: NAME'"
        raise origin.error((*path, "at_most_of_baseline"), what, at_key=True)
    for number, column in enumerate(decision.show):
        with placing(origin, (*path, "show", number)):
            column_named(column)
    for number, column in enumerate(decision.across):
        if column not in RANKING_KEYS:
            near = did_you_mean(column, RANKING_KEYS) or f"; it can be {', '.join(RANKING_KEYS)}"
            raise origin.error((*path, "across", number), f"{column!r} locks nothing{near}")


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


def is_pattern(text: str) -> bool:
    """Whether `text` can match more than the one name that it spells. A label's brackets do not count."""
    return "*" in text or "?" in text


def selects(pattern: str, network: Network) -> bool:
    """Whether `pattern` is, or matches, the name of `network` (all its variants) or its label (that variant)."""
    if pattern in (network.name, network.label):
        return True
    return fnmatchcase(network.name, pattern) or (is_pattern(pattern) and fnmatchcase(network.label, pattern))
