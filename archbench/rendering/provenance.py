"""What was run, on which devices, how far its figures can be trusted, what they leave out, how to get them again."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from keyword import iskeyword

import msgspec
from msgspec.structs import replace

from archbench.choose.cell_summary import CellSummary
from archbench.model.cell import is_passed, is_user_code, short_id
from archbench.model.environment import Environment, Gpu
from archbench.model.reasons import REASONS
from archbench.model.record import FAILED, VERDICTS
from archbench.model.units import GIB, NULL, counted, duration, percent, whole
from archbench.rendering.content import (
    Block,
    Code,
    Columns,
    Section,
    Table,
    body,
    bullets,
    fold,
    listed,
    section,
    table,
    tabled,
)
from archbench.rendering.figures import BATCH, NETWORK, PHASE, SETTING, CellColumns
from archbench.rendering.run_data import RunData
from archbench.stats.variance import FEWEST_DEVICES

_SHORT_LIST = 6
_MOST_PATTERNS = 12
_STATED = "stated by the suite: "
_SCOPE = [
    (
        "Not in any time: reading, decoding and augmenting images, and copies from host to device. Inputs are random "
        "numbers that lie on the device. The first call is kept apart (`first_call_s`)."
    ),
    "Weights are random: they change neither the work nor the memory, and outputs are never judged for accuracy.",
    "GMACs are multiply-accumulates of one forward pass of one image (FLOP = 2 x MAC).",
    "A percentile is withheld where the samples are too few to support it.",
    "`-` is not measured or not known; it is never zero.",
]
_TRAINING = (
    "A training step is the forward pass, cross-entropy loss, the backward pass and a step of SGD with momentum, "
    "with gradients cleared; amp-fp16 adds loss scaling."
)
_MOST_ROWS = 100
_LONGEST_MESSAGE = 160
_EXAMPLES = 3
_VERDICT_MEANING = {
    "ok": "fit to be used",
    "suspect": "usable with care; ranked with a mark",
    "invalid": "not of this network on this machine; never ranked",
}


def lead(run: RunData) -> tuple[Block, ...]:
    """The question that the suite answers, the size of the answer, and what the settings stand for."""
    question = run.suite.description.strip() or "Which network, with which settings, on this machine?"
    every = run.cells
    phases = " and ".join(dict.fromkeys(one.phase for one in every))
    batches = sorted({one.batch_size for one in every})
    sizes, shared, settings = {one.input_size for one in every}, every[0].shared, list(run.settings)
    parts = [
        counted(len({one.variant for one in every}), "network"),
        phases,
        f"batch size{'s' if len(batches) > 1 else ''} {', '.join(map(str, batches))}",
        settings[0] if len(settings) == 1 else counted(len(settings), "setting"),
        *([f"images of {next(iter(sizes))} px"] if len(sizes) == 1 and None not in sizes else []),
        *([f"all with {shared}"] if shared else []),
        counted(run.rounds, "round"),
    ]
    size = f"{'; '.join(parts)}: {run.extent(_when(run))}."
    if run.only:
        size += f" Only {', '.join(f'`{pattern}`' for pattern in run.only)} of the run."
    if run.waiting:
        size = (
            f"{size[:-1]}: {counted(len(run.waiting), 'cell')} of the suite without a row yet, or left out by `--only`."
        )
    said = verdicts(run)
    trusted = f"Verdicts: {said}. {run.trust.statement}" if said else "Nothing was measured."
    here = run.environment
    where = f"Measured on {here.hardware_class} with torch {here.torch_version or 'of unknown version'}."
    return body(question, f"{size} {where} {trusted}", _legend(run))


def machine(run: RunData) -> Section | None:
    """The machine and its software, in a few lines."""
    here = run.environment
    rows = {"Measured on": f"`{here.device}`, class {here.hardware_class}", **machine_facts(here)}
    rows["torch"] += f", torchvision {rows.pop('torchvision')}"
    return section("Machine", table(("", ""), rows.items()))


def machine_facts(here: Environment) -> dict[str, str]:
    """What a machine and its software are, by subject."""
    facts = {}
    if here.gpus:
        facts["GPU"] = "; ".join(map(_gpu, here.gpus))
        facts["Driver"] = f"{here.driver_version or NULL}, CUDA {here.cuda_version or NULL}"
    commit, _, dirty = (here.git_commit or "").partition("+")
    cpu = [
        here.cpu_model,
        f"{counted(here.cpu_count, 'core')} used",
        f"{whole(here.memory_bytes, GIB)} GiB",
        f"governor {here.governor}" if here.governor else None,
        None if here.turbo is None else f"turbo {'on' if here.turbo else 'off'}",
    ]
    return facts | {
        "CPU": ", ".join(filter(None, cpu)),
        "System": ", ".join(filter(None, (here.os, here.kernel, here.container, here.hypervisor))),
        "torch": here.torch_version or NULL,
        "torchvision": here.torchvision_version or NULL,
        "timm": here.timm_version or NULL,
        "Python": here.python_version,
        "archbench": here.archbench_version
        + (f" commit {commit[:10]}{' with changes' if dirty else ''}" if commit else ""),
        "Variables": " ".join(f"`{name}={value}`" for name, value in here.settings.items()) or "none set",
    }


def _gpu(gpu: Gpu) -> str:
    memory = None if gpu.memory_bytes is None else f"{whole(gpu.memory_bytes, GIB)} GiB"
    power = None if gpu.power_limit_w is None else f"power limit {gpu.power_limit_w:.0f} W"
    clock = None if gpu.max_sm_clock_mhz is None else f"up to {gpu.max_sm_clock_mhz} MHz"
    flags = {"MIG": gpu.mig_enabled, "persistence": gpu.persistence, "ECC": gpu.ecc}
    states = (f"{name} {'on' if on else 'off'}" for name, on in flags.items() if on is not None)
    return ", ".join(filter(None, (gpu.name, memory, power, clock, *states)))


def _legend(run: RunData) -> Table:
    used = {one.setting for one in run.cells}
    rows = (
        (name, setting.toggles.label)
        for name, setting in run.suite.settings.items()
        if name in used and name != setting.precision
    )
    return table(("Setting", "stands for"), rows)


def _when(run: RunData) -> str:
    if run.begun is None:
        return ""
    begun = datetime.fromisoformat(run.begun)
    return f" on {begun.day} {begun:%B %Y} in {duration(run.spent_s)}"


def verdicts(run: RunData) -> str:
    """`22 ok, 6 suspect` of its cells, by verdict; empty where nothing was measured."""
    counts = Counter(one.verdict for one in run.cells if one.status == "ok")
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts[verdict])


def outcome(run: RunData) -> str:
    """`18 of 32 planned cells measured; unfinished; 16 ok, 2 suspect; 1 oom`: every cell once, whatever the rounds."""
    without = Counter(one.status for one in run.cells if one.status != "ok")
    failed = ", ".join(f"{number:,} {status}" for status, number in without.items())
    return "; ".join(filter(None, (run.extent(), verdicts(run), failed)))


def trust(run: RunData) -> Section | None:
    """Which differences are differences, verdicts counted, and each reason with its remedy."""
    counts = Counter(one.verdict for one in run.cells if one.status == "ok")
    failed = Counter(one.status for one in run.cells if one.status != "ok")
    rows = [(verdict, f"{counts[verdict]:,}", _VERDICT_MEANING[verdict]) for verdict in VERDICTS]
    rows += [(status, f"{count:,}", "no figures, see below") for status, count in failed.most_common()]
    return section(
        "How far to trust this",
        bullets(run.trust.statement, _intervals(run), *_noise(run)),
        table(("Verdict", ">Cells", "Meaning"), rows),
        _reasons(run),
    )


def _intervals(run: RunData) -> str:
    if run.trust.apart is None:
        return "± is the 95 % interval within a process."
    return (
        "A figure is the median over its processes; ± is its 95 % interval, which contains how far processes differ: "
        "as far as its own do, moderated towards how far those of all cells do (empirical Bayes). One pair of equal "
        "networks in twenty differs by more than is said here; more rounds make it less."
    )


def _noise(run: RunData) -> Iterator[str]:
    if run.drift is not None:
        low, high = (percent(change, signed=True) for change in run.drift)
        yield (
            f"The time of a fixed kernel, taken beside every cell, stayed between {low} and {high} of its median in "
            "nine measurements of ten."
        )
    if run.corrected:
        yield "Times and rates in this report are corrected for that drift; the raw ones are in `results.parquet`."


def _reasons(run: RunData) -> Table:
    counts = Counter(code for one in run.cells if one.status == "ok" for code in one.reasons if ":" not in code)
    order = {"invalid": 0, "suspect": 1, "label": 2}
    known = {code: REASONS[code] for code in counts if code in REASONS and REASONS[code].effect in order}
    rows = [
        (code, f"{counts[code]:,}", f"{reason.effect}: {reason.meaning}", reason.remedy or "nothing to do")
        for code, reason in sorted(known.items(), key=lambda item: (order[item[1].effect], -counts[item[0]]))
    ]
    return table(("Reason", ">Cells", "Meaning", "What to do"), rows)


def failures(run: RunData) -> Section | None:
    """Failed cells one by one, cells that were not run by reason; `None` where there are neither."""
    failed = [one for one in run.cells if one.status in FAILED or (one.status == "ok" and one.error_message)]
    not_run = [one for one in run.cells if one.status in ("unsupported", "skipped")]
    failed.sort(key=lambda one: (one.variant, one.phase, one.setting_label, one.batch_size))
    return section("Without figures", _failed(failed), _not_run(not_run))


def _failed(cells: Sequence[CellSummary]) -> Block:
    columns: CellColumns = {
        **NETWORK | PHASE | SETTING | BATCH,
        # A process that failed where others did not has left its message, and no figure is missing.
        "Status": lambda one: (
            f"{one.processes - one.processes_used} of {one.processes}" if one.status == "ok" else one.status
        ),
        "During": lambda one: one.error_phase or NULL,
        "Message": _message,
    }
    return listed(cells, columns, noun="cells", most=_MOST_ROWS)


def _not_run(cells: Sequence[CellSummary]) -> Block:
    groups: dict[tuple[str, str], list[CellSummary]] = {}
    for one in cells:
        groups.setdefault((one.status, _message(one)), []).append(one)
    columns: Columns[list[CellSummary]] = {
        "Not run": lambda members: members[0].status,
        ">Cells": lambda members: f"{len(members):,}",
        "Why": lambda members: _message(members[0]),
        "Such as": _examples,
    }
    return listed(sorted(groups.values(), key=len, reverse=True), columns, noun="reasons", most=_MOST_ROWS)


def _message(one: CellSummary) -> str:
    """What went wrong, or else the reasons that are about the whole cell."""
    text = one.error_message or ", ".join(code for code in one.reasons if ":" not in code) or NULL
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def _examples(cells: list[CellSummary]) -> str:
    names = list(dict.fromkeys(one.network for one in cells))
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")


def devices(run: RunData) -> Section | None:
    """What the cells that several devices measured say of these; `None` for a run of one device."""
    found = run.devices
    if found is None:
        return None
    columns: Columns[tuple[str, float]] = {
        "Device": lambda one: one[0],
        ">Time over the class's": lambda one: percent(math.expm1(one[1]), signed=True),
        "": lambda one: "far from its class" if one[0] in found.far else "",
    }
    slowest_first = sorted(found.effects.items(), key=lambda one: -one[1])
    return section("Devices", about_devices(run), tabled(slowest_first, columns, "The devices"))


def devices_in_short(run: RunData) -> str:
    """`8, 3.0 % apart`, and how many of them are far from their class."""
    if run.devices is None:
        return str(run.machines)
    far = f", {len(run.devices.far)} far from the others" if run.devices.far else ""
    return f"{run.machines}, {percent(run.devices.range(run.devices.effects))} apart{far}"


def about_devices(run: RunData) -> str | None:
    """`These 8 NVIDIA H100 differ by 3.1 %`, what that is known by, and what it means for the figures."""
    found, hardware_class = run.devices, run.environment.hardware_class
    if found is None:
        return None
    number = len(found.effects)
    others = f" ({percent(found.range(found.well))} without those far from their class)" if found.far else ""
    said = [
        f"These {number} devices of class {hardware_class} differ by {percent(found.range(found.effects))}{others}",
        f"from fastest to slowest, {percent(math.expm1(found.between))} (standard deviation) beyond what processes",
        f"alone explain; told by {counted(found.cells, 'cell')} that several of them measured.",
        "The device is a random effect: intervals hold for the class, not for the card that a cell happened to meet.",
    ]
    if found.far:
        names = ", ".join(f"{name} ({percent(math.expm1(found.effects[name]), signed=True)})" for name in found.far)
        said.append(f"Far from their class, and to be looked at (clocks, power limit, cooling, neighbours): {names}.")
        said.append("Their rows are `suspect`.")
    elif number < FEWEST_DEVICES:
        said.append("Of two devices nobody can say which is not as it should be.")
    return " ".join(said)


def scope(run: RunData) -> Section | None:
    """What is and what is not in the figures."""
    training = any(one.phase == "training" for one in run.cells)
    return section("What is not included", bullets(_TRAINING if training else None, *_SCOPE))


def accuracy(run: RunData) -> Section | None:
    """Who published every accuracy, or that the suite states it; `None` where no network has one."""
    stated = _stated(run)
    by_source: dict[str, dict[str, None]] = {}
    for one in run.cells:
        if one.top1 is not None:
            by = _STATED if (one.variant, one.input_size) in stated else ""
            by_source.setdefault(f"{by}{one.accuracy_source or 'source not recorded'}", {})[one.network] = None
    rows = [(source, ", ".join(sorted(networks))) for source, networks in sorted(by_source.items())]
    sources = table(("Weights and protocol", "Networks"), rows)
    datasets = sorted({one.accuracy_dataset or "an unknown data set" for one in run.cells if one.top1 is not None})
    apart = "recipes, image sizes or data sets" if len(datasets) > 1 else "recipes or image sizes"
    origins = ["was published for the weights named here"] * any(not one.startswith(_STATED) for one in by_source)
    origins += ["whoever wrote the suite states"] * bool(stated)
    return section(
        "Where the accuracies come from",
        fold(f"{len(rows)} sources", sources) if len(rows) > _SHORT_LIST else sources,
        note=f"Top-1 is what {', or '.join(origins)}, on {' and '.join(datasets)}; it was not measured. "
        f"Accuracies of different {apart} are not on one scale.",
    )


def _stated(run: RunData) -> set[tuple[str, int | None]]:
    """Variant and image size of the networks whose accuracy the suite states."""
    stating = [network for network in run.suite.architectures if network.accuracy is not None]
    known = {(one.variant, one.input_size) for one in run.cells}
    return {
        (variant, size)
        for variant, size in known
        for network in stating
        if variant in (network.label, replace(network, input_size=network.input_size or size).label)
    }


def reproduce(run: RunData) -> Section | None:
    """What measures the cells of this report once more: a command, or Python where networks were passed as objects."""
    passed = [one.name for one in run.suite.architectures if is_passed(one.name)]
    stands_for: dict[str, str] = {}
    for name in passed:
        word = name.partition("#")[0]
        word += "_" * iskeyword(word)
        number = sum(one.rstrip("0123456789") == word for one in stands_for.values())
        stands_for.setdefault(name, f"{word}{number + 1}" if number else word)
    only = chain.from_iterable(("--only", pattern) for pattern in _only(run))
    command = ["archbench", "run", "suite.yaml", "--device", run.environment.device]
    command += [*(["--allow-code"] if _needs_permission(run) else []), *only]
    objects = ", ".join(f"`{word}` as `{name}`" for name, word in stands_for.items())
    return section(
        "Measure it again",
        Code(_call(run, stands_for), "python") if objects else Code(shlex.join(command)),
        note=f"This is run `{run.run_id}`. Its directory holds the suite as run, the machine's description and every "
        "row (`archbench.load` reads them). "
        + (f"With the objects that were passed, {objects}:" if objects else "There:"),
    )


def _call(run: RunData, stands_for: dict[str, str]) -> str:
    """The same in Python, where each object has a name."""
    networks = []
    for network in run.suite.architectures:
        name = stands_for.get(network.name) or repr(network.name)
        rest = {key: value for key, value in msgspec.to_builtins(network).items() if key != "name"}
        networks.append(f"{{'name': {name}, **{rest!r}}}" if rest else name)
    options = {axis: values for axis, values in msgspec.to_builtins(run.suite.axes).items() if values is not None}
    options |= {"metrics": list(run.suite.metrics), "device": run.environment.device}
    options |= {"allow_code": True} if _needs_permission(run) else {}
    options |= {"only": _only(run)} if _only(run) else {}
    arguments = [f"[{', '.join(networks)}]", *(f"{name}={value!r}" for name, value in options.items())]
    return "import archbench\n\narchbench.run(\n" + "".join(f"    {one},\n" for one in arguments) + ")"


def _needs_permission(run: RunData) -> bool:
    return any(is_user_code(network.name) for network in run.suite.architectures)


def _only(run: RunData) -> list[str]:
    """Patterns for the cells that have a row, where the suite has more; none where they could not be read."""
    if run.only and not run.waiting:
        return list(run.only)
    unfinished = {cell_id.rpartition("@")[0] for cell_id in run.waiting}
    cells = [one.cell_id for one in run.cells] if unfinished else []
    named = (cell_id.rpartition("@")[0] for cell_id in cells)
    patterns = dict.fromkeys(
        short_id(cell_id) if name in unfinished else name for cell_id, name in zip(cells, named, strict=True)
    )
    return list(patterns) if len(patterns) <= _MOST_PATTERNS and all(map(str.isprintable, patterns)) else []
