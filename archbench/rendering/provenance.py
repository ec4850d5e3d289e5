"""What was run, on which devices, how far its figures can be trusted, what they leave out, how to get them again."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from keyword import iskeyword

import msgspec
from msgspec.structs import replace

from archbench.choose.cell_summary import CellSummary
from archbench.model.cell import is_passed, is_user_code, network_of, short_id
from archbench.model.environment import Environment, Gpu
from archbench.model.reasons import REASONS
from archbench.model.record import FAILED, VERDICTS
from archbench.model.units import GIB, NULL, counted, duration, percent, whole
from archbench.rendering import content
from archbench.rendering.content import Code, Columns, Section, bullets, fold, grouped, listed, section, table, tabled
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


def lead(run: RunData) -> tuple[content.Block, ...]:
    """The question that the suite answers, the size of the answer, and what the settings stand for."""
    every, here = run.cells, run.environment
    batches, sizes = sorted({one.batch_size for one in every}), {one.input_size for one in every}
    settings, shared = list(run.settings), every[0].shared
    parts = (
        counted(len({one.variant for one in every}), "network"),
        " and ".join(dict.fromkeys(one.phase for one in every)),
        f"batch size{'s' if len(batches) > 1 else ''} {', '.join(map(str, batches))}",
        settings[0] if len(settings) == 1 else counted(len(settings), "setting"),
        f"images of {next(iter(sizes))} px" if len(sizes) == 1 and None not in sizes else None,
        f"all with {shared}" if shared else None,
        counted(run.rounds, "round"),
    )
    when = ""
    if run.begun is not None:
        begun = datetime.fromisoformat(run.begun)
        when = f" on {begun.day} {begun:%B %Y} in {duration(run.spent_s)}"
    size = f"{'; '.join(filter(None, parts))}: {run.extent(when)}"
    if run.only:
        size += f". Only {', '.join(f'`{pattern}`' for pattern in run.only)} of the run"
    if run.waiting:
        size += f": {counted(len(run.waiting), 'cell')} of the suite without a row yet, or left out by `--only`"
    said = verdicts(run)
    trusted = f"Verdicts: {said}. {run.trust.statement}" if said else "Nothing was measured."
    where = f"Measured on {here.hardware_class} with torch {here.torch_version or 'of unknown version'}."
    used = {one.setting for one in every}
    legend = (
        (name, setting.toggles.label)
        for name, setting in run.suite.settings.items()
        if name in used and name != setting.precision
    )
    return content.body(
        run.suite.description.strip() or "Which network, with which settings, on this machine?",
        f"{size}. {where} {trusted}",
        table(("Setting", "stands for"), legend),
    )


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


def verdicts(run: RunData) -> str:
    """`22 ok, 6 suspect` of its cells, by verdict; empty where nothing was measured."""
    return ", ".join(f"{run.outcomes[verdict]:,} {verdict}" for verdict in VERDICTS if run.outcomes[verdict])


def outcome(run: RunData) -> str:
    """`18 of 32 planned cells measured; unfinished; 16 ok, 2 suspect; 1 oom`: every cell once, whatever the rounds."""
    failed = ", ".join(f"{number:,} {status}" for status, number in run.outcomes.items() if status not in VERDICTS)
    return "; ".join(filter(None, (run.extent(), verdicts(run), failed)))


def trust(run: RunData) -> Section | None:
    """Which differences are differences, verdicts counted, and each reason with its remedy."""
    rows = [(verdict, f"{run.outcomes[verdict]:,}", meaning) for verdict, meaning in _VERDICT_MEANING.items()]
    failed = ((status, count) for status, count in run.outcomes.most_common() if status not in VERDICTS)
    rows += [(status, f"{count:,}", "no figures, see below") for status, count in failed]
    counts = Counter(code for one in run.cells if one.status == "ok" for code in one.reasons if ":" not in code)
    reasons = [
        (code, f"{count:,}", f"{effect}: {REASONS[code].meaning}", REASONS[code].remedy or "nothing to do")
        for effect in ("invalid", "suspect", "label")
        for code, count in counts.most_common()
        if code in REASONS and REASONS[code].effect == effect
    ]
    return section(
        "How far to trust this",
        bullets(run.trust.statement, *_noise(run)),
        table(("Verdict", ">Cells", "Meaning"), rows),
        table(("Reason", ">Cells", "Meaning", "What to do"), reasons),
    )


def _noise(run: RunData) -> Iterator[str]:
    if run.trust.apart is None:
        yield "± is the 95 % interval within a process."
    else:
        yield (
            "A figure is the median over its processes; ± is its 95 % interval, which contains how far processes "
            "differ: as far as its own do, moderated towards how far those of all cells do (empirical Bayes). One pair "
            "of equal networks in twenty differs by more than is said here; more rounds make it less."
        )
    if run.drift is not None:
        low, high = (percent(change, signed=True) for change in run.drift)
        yield (
            f"The time of a fixed kernel, taken beside every cell, stayed between {low} and {high} of its median in "
            "nine measurements of ten."
        )
    if run.corrected:
        yield "Times and rates in this report are corrected for that drift; the raw ones are in `results.parquet`."


def failures(run: RunData) -> Section | None:
    """Failed cells one by one, cells that were not run by reason; `None` where there are neither."""

    def status(one: CellSummary) -> str:
        # A process that failed where others did not has left its message, and no figure is missing.
        return f"{one.processes - one.processes_used} of {one.processes}" if one.status == "ok" else one.status

    def examples(members: list[CellSummary]) -> str:
        names = list(dict.fromkeys(one.network for one in members))
        return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")

    failed = [one for one in run.cells if one.status in FAILED or (one.status == "ok" and one.error_message)]
    failed.sort(key=lambda one: (one.variant, one.phase, one.setting_label, one.batch_size))
    of_failed: CellColumns = {
        **NETWORK | PHASE | SETTING | BATCH,
        "Status": status,
        "During": lambda one: one.error_phase or NULL,
        "Message": _message,
    }
    not_run = (one for one in run.cells if one.status in ("unsupported", "skipped"))
    reasons = sorted(grouped(not_run, lambda one: (one.status, _message(one))).values(), key=len, reverse=True)
    of_reason: Columns[list[CellSummary]] = {
        "Not run": lambda members: members[0].status,
        ">Cells": lambda members: f"{len(members):,}",
        "Why": lambda members: _message(members[0]),
        "Such as": examples,
    }
    return section(
        "Without figures",
        listed(failed, of_failed, noun="cells", most=_MOST_ROWS),
        listed(reasons, of_reason, noun="reasons", most=_MOST_ROWS),
    )


def _message(one: CellSummary) -> str:
    """What went wrong, or else the reasons that are about the whole cell."""
    text = one.error_message or ", ".join(code for code in one.reasons if ":" not in code) or NULL
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


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
    stated, known = _stated(run), [one for one in run.cells if one.top1 is not None]

    def source(one: CellSummary) -> str:
        by = _STATED if (one.variant, one.input_size) in stated else ""
        return f"{by}{one.accuracy_source or 'source not recorded'}"

    by_source = sorted(grouped(known, source).items())
    rows = [(source, ", ".join(sorted({one.network for one in those}))) for source, those in by_source]
    sources = table(("Weights and protocol", "Networks"), rows)
    datasets = sorted({one.accuracy_dataset or "an unknown data set" for one in known})
    apart = "recipes, image sizes or data sets" if len(datasets) > 1 else "recipes or image sizes"
    origins = ["was published for the weights named here"] * any(not one.startswith(_STATED) for one, _ in by_source)
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
    allowed = any(is_user_code(network.name) for network in run.suite.architectures)
    command = ["archbench", "run", "suite.yaml", "--device", run.environment.device]
    command += [*(["--allow-code"] if allowed else []), *only]
    objects = ", ".join(f"`{word}` as `{name}`" for name, word in stands_for.items())
    return section(
        "Measure it again",
        Code(_call(run, stands_for, allowed=allowed), "python") if objects else Code(shlex.join(command)),
        note=f"This is run `{run.run_id}`. Its directory holds the suite as run, the machine's description and every "
        "row (`archbench.load` reads them). "
        + (f"With the objects that were passed, {objects}:" if objects else "There:"),
    )


def _call(run: RunData, stands_for: dict[str, str], *, allowed: bool) -> str:
    """The same in Python, where each object has a name."""
    networks = []
    for network in run.suite.architectures:
        name = stands_for.get(network.name) or repr(network.name)
        rest = {key: value for key, value in msgspec.to_builtins(network).items() if key != "name"}
        networks.append(f"{{'name': {name}, **{rest!r}}}" if rest else name)
    options = {axis: values for axis, values in msgspec.to_builtins(run.suite.axes).items() if values is not None}
    options |= {"metrics": list(run.suite.metrics), "device": run.environment.device}
    options |= {"allow_code": True} if allowed else {}
    options |= {"only": _only(run)} if _only(run) else {}
    arguments = [f"[{', '.join(networks)}]", *(f"{name}={value!r}" for name, value in options.items())]
    return "import archbench\n\narchbench.run(\n" + "".join(f"    {one},\n" for one in arguments) + ")"


def _only(run: RunData) -> list[str]:
    """Patterns for the cells that have a row, where the suite has more; none where they could not be read."""
    if run.only and not run.waiting:
        return list(run.only)
    unfinished = set(map(network_of, run.waiting))
    cells = [one.cell_id for one in run.cells] if unfinished else []
    patterns = dict.fromkeys(short_id(one) if network_of(one) in unfinished else network_of(one) for one in cells)
    return list(patterns) if len(patterns) <= _MOST_PATTERNS and all(map(str.isprintable, patterns)) else []
