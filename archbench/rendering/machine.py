"""What was run, where, what the figures leave out, and how to get them again."""

from __future__ import annotations

import shlex
from datetime import datetime
from itertools import chain

from archbench.model.axes import toggles_label
from archbench.model.cell import is_user_code
from archbench.model.environment import Environment, Gpu
from archbench.model.units import GIB, NULL, counted, duration, whole
from archbench.rendering.content import Block, Bullets, Code, Fold, Paragraph, Section, Table
from archbench.rendering.run_data import RunData
from archbench.rendering.trust import in_short

_SHORT_LIST = 6
_SCOPE = [
    (
        "Not in any time: reading, decoding and augmenting images, and copies from host to device. Inputs are random "
        "numbers that lie on the device. The first call is kept apart (`first_call_s`)."
    ),
    "Weights are random: they change neither the work nor the memory, and outputs are never judged for accuracy.",
    "GMACs are multiply-accumulates of one forward pass of one image (FLOP = 2 x MAC).",
    "p95 is withheld where the samples are too few to support it.",
    "`-` is not measured or not known; it is never zero.",
]
_TRAINING = (
    "A training step is the forward pass, cross-entropy loss, the backward pass and a step of SGD with momentum, "
    "with gradients cleared; amp-fp16 adds loss scaling."
)


def lead(run: RunData) -> tuple[Block, ...]:
    """The question that the suite answers, the size of the answer, and what the settings stand for."""
    question = run.suite.description.strip() or "Which network, with which settings, on this machine?"
    every = run.cells
    phases = " and ".join(dict.fromkeys(one.phase for one in every))
    batches = sorted({one.batch_size for one in every})
    measured = sum(one.status == "ok" for one in every)
    parts = [
        counted(len({one.variant for one in every}), "network"),
        phases,
        f"batch size{'s' if len(batches) > 1 else ''} {', '.join(map(str, batches))}",
        counted(len(run.setting_labels()), "setting"),
        counted(run.rounds, "round"),
    ]
    planned = f"{len(every) + run.waiting:,} planned cells" if run.waiting else counted(len(every), "cell")
    size = f"{'; '.join(parts)}: {measured:,} of {planned} measured{_when(run)}."
    if run.waiting:
        size += f" Unfinished: {counted(run.waiting, 'cell')} of the suite without a row yet, or left out by `--only`."
    return (Paragraph(question), Paragraph(f"{size} {_where(run)} {in_short(run)}"), *_legend(run))


def machine(run: RunData) -> Section:
    """The machine and its software, in a few lines."""
    here = run.environment
    memory = f"{whole(here.memory_bytes, GIB)} GiB"
    lines = [
        *chain.from_iterable(_gpu(gpu, here) for gpu in here.gpus),
        ("CPU", f"{here.cpu_model}, {counted(here.cpu_count, 'core')} used, {memory}{_cpu_state(here)}"),
        ("System", ", ".join(filter(None, (here.os, here.kernel, here.container, here.hypervisor)))),
        ("torch", f"{here.torch_version or NULL}, torchvision {here.torchvision_version or NULL}"),
        ("timm", here.timm_version or NULL),
        ("Python", here.python_version),
        ("archbench", " ".join(filter(None, (here.archbench_version, _short(here.git_commit))))),
        ("Variables", " ".join(f"`{name}={value}`" for name, value in here.settings.items()) or "none set"),
    ]
    rows = (("Measured on", f"`{here.device}`, class {here.hardware_class}"), *lines)
    return Section(title="Machine", blocks=(Table(headings=("", ""), rows=tuple(rows)),))


def _where(run: RunData) -> str:
    here = run.environment
    return f"Measured on {here.hardware_class} with torch {here.torch_version or 'of unknown version'}."


def _gpu(gpu: Gpu, here: Environment) -> list[tuple[str, str]]:
    memory = None if gpu.memory_bytes is None else f"{whole(gpu.memory_bytes, GIB)} GiB"
    power = None if gpu.power_limit_w is None else f"power limit {gpu.power_limit_w:.0f} W"
    clock = None if gpu.max_sm_clock_mhz is None else f"up to {gpu.max_sm_clock_mhz} MHz"
    flags = {"MIG": gpu.mig_enabled, "persistence": gpu.persistence, "ECC": gpu.ecc}
    states = (f"{name} {'on' if on else 'off'}" for name, on in flags.items() if on is not None)
    driver = f"{here.driver_version or NULL}, CUDA {here.cuda_version or NULL}"
    return [
        ("GPU", ", ".join(filter(None, (gpu.name, memory, power, clock, *states)))),
        ("Driver", driver),
    ]


def _cpu_state(here: Environment) -> str:
    governor = f", governor {here.governor}" if here.governor else ""
    turbo = "" if here.turbo is None else f", turbo {'on' if here.turbo else 'off'}"
    return governor + turbo


def _legend(run: RunData) -> tuple[Block, ...]:
    used = {one.setting for one in run.cells}
    rows = tuple(
        (name, toggles_label(setting.precision, setting.memory_format, setting.compile_mode))
        for name, setting in run.suite.settings.items()
        if name in used and name != setting.precision
    )
    return (Table(headings=("Setting", "stands for"), rows=rows),) if rows else ()


def _when(run: RunData) -> str:
    if run.begun is None:
        return ""
    begun = datetime.fromisoformat(run.begun)
    return f" on {begun.day} {begun:%B %Y} in {duration(run.spent_s)}"


def _short(commit: str | None) -> str | None:
    """A commit as people write it, with its `+dirty`."""
    if commit is None:
        return None
    number, _, dirty = commit.partition("+")
    return f"commit {number[:10]}{' with changes' if dirty else ''}"


def scope(run: RunData) -> Section:
    """What is and what is not in the figures."""
    training = [_TRAINING] if any(one.phase == "training" for one in run.cells) else []
    return Section(title="What is not included", blocks=(Bullets((*training, *_SCOPE)),))


def accuracy(run: RunData) -> Section | None:
    """The origin of every published accuracy; `None` where no network has one."""
    by_source: dict[str, dict[str, None]] = {}
    for one in run.cells:
        if one.top1 is not None:
            by_source.setdefault(one.accuracy_source or "source not recorded", {})[one.network] = None
    if not by_source:
        return None
    rows = tuple((source, ", ".join(sorted(networks))) for source, networks in sorted(by_source.items()))
    sources: Block = Table(headings=("Weights and protocol", "Networks"), rows=rows)
    if len(rows) > _SHORT_LIST:
        sources = Fold(summary=f"{len(rows)} sources", blocks=(sources,))
    datasets = sorted({one.accuracy_dataset or "an unknown data set" for one in run.cells if one.top1 is not None})
    apart = "recipes, image sizes or data sets" if len(datasets) > 1 else "recipes or image sizes"
    note = Paragraph(
        f"Top-1 is what was published for the weights named here, on {' and '.join(datasets)}; it was not measured. "
        f"Accuracies of different {apart} are not on one scale."
    )
    return Section(title="Where the accuracies come from", blocks=(note, sources))


def reproduce(run: RunData) -> Section:
    """The one command, and what it leaves behind."""
    command = ["archbench", "run", "suite.yaml", "--device", run.environment.device]
    if any(is_user_code(network.name) for network in run.suite.architectures):
        command.append("--allow-code")
    note = Paragraph(
        f"This is run `{run.run_id}`. Its directory holds the suite as run, the machine's description and every row "
        "(`archbench.load` reads them). There:"
    )
    return Section(title="Measure it again", blocks=(note, Code(shlex.join(command))))
