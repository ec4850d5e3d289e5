"""What was run, and where."""

from __future__ import annotations

from datetime import datetime
from itertools import chain

from archbench.choose.cell_summary import toggles_label
from archbench.model.environment import Environment, Gpu
from archbench.model.units import GIB, NULL, duration, whole
from archbench.rendering.content import Block, Paragraph, Section, Table
from archbench.rendering.run_data import RunData
from archbench.rendering.trust import in_short


def lead(run: RunData) -> tuple[Block, ...]:
    """The question that the suite answers, the size of the answer, and what the settings stand for."""
    question = run.suite.description.strip() or "Which network, with which settings, on this machine?"
    every = run.cells
    phases = " and ".join(dict.fromkeys(one.phase for one in every))
    batches = sorted({one.batch_size for one in every})
    measured = sum(one.status == "ok" for one in every)
    parts = [
        _count(len({one.variant for one in every}), "network"),
        phases,
        f"batch size{'s' if len(batches) > 1 else ''} {', '.join(map(str, batches))}",
        _count(len(run.setting_labels()), "setting"),
        _count(run.rounds, "round"),
    ]
    size = f"{'; '.join(parts)}: {measured:,} of {_count(len(every), 'cell')} measured{_when(run)}."
    return (Paragraph(question), Paragraph(f"{size} {_where(run)} {in_short(run)}"), *_legend(run))


def machine(run: RunData) -> Section:
    """The machine and its software, in a few lines."""
    here = run.environment
    memory = f"{whole(here.memory_bytes, GIB)} GiB"
    lines = [
        *chain.from_iterable(_gpu(gpu, here) for gpu in here.gpus),
        ("CPU", f"{here.cpu_model}, {_count(here.cpu_count, 'core')} used, {memory}{_cpu_state(here)}"),
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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
