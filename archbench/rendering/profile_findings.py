"""Why a network takes the time and the memory that it takes, and what would help: rules over a profile's figures.

No rule speaks without its figure, and a remedy says how much of the step it can touch, not how much it will save.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from archbench.model.profile import CATEGORIES, Explanation, KernelMap, ModuleProfile, Profile
from archbench.model.units import GIGA, MIB, MS, NULL, figure, percent, plain
from archbench.rendering.profile_memory import EXPLODED, VANISHED, saved_line

MUCH = 0.10
"""Share of the step from which something is worth a line."""
COSTLY_WATCHING = 0.05
"""Observing cost from which the report says so."""
POOR = 0.4
"""Share of the roofline below which a large stage is said to leave room."""
GOOD = 0.7
UNBALANCED = 1.3
"""A stage's share of the time over its share of the MACs from which it is called expensive for its arithmetic."""
PREDICTION_OFF = 0.10
_KINDS_NAMED = 3
_MOVES = ("cat", "copy_", "clone", "contiguous", "_to_copy", "stack", "_cat")
"""Operators that only put data elsewhere."""


def findings(profile: Profile) -> tuple[Explanation, ...]:
    """All that the rules have to say, time first, the most telling first."""
    return tuple(finding for rule in RULES for finding in rule(profile))


def _largest_stage(profile: Profile) -> Iterator[Explanation]:
    stages = profile.stage_rows
    if not stages or not profile.macs:
        return
    top = max(stages, key=lambda row: row.total_s)
    macs = f"with {percent(top.macs / profile.macs)} of the MACs" if top.macs else "without a single MAC"
    yield Explanation(
        "largest_stage",
        f"`{top.path}` takes most of the step: {percent(top.share)} ({figure(top.total_s, MS)} ms), {macs}",
    )
    for row in stages:
        of_macs = (row.macs or 0) / profile.macs
        if row is not top and row.share > MUCH and of_macs and row.share / of_macs > UNBALANCED:
            reached = "" if row.roofline_share is None else f", at {_reached(row, profile, 'its roofline')}"
            yield Explanation(
                "expensive_stage",
                f"`{row.path}` is expensive for its arithmetic: {percent(row.share)} of the step for "
                f"{percent(of_macs)} of the MACs{reached}",
            )


def _kinds(profile: Profile) -> Iterator[Explanation]:
    """By the class of the module that does the work itself."""
    seconds: dict[str, float] = defaultdict(float)
    for row in profile.modules:
        seconds[row.kind] += row.own_s
    named = sorted(seconds, key=lambda kind: -seconds[kind])[:_KINDS_NAMED]
    parts = (f"{kind} {percent(seconds[kind] / profile.observed_step_s)}" for kind in named)
    yield Explanation("kinds", f"By kind of module: {', '.join(parts)} of the step")


def _reach(profile: Profile) -> Iterator[Explanation]:
    whole = profile.modules[0]
    if whole.roofline_share is None or whole.achieved_flops is None or whole.intensity is None:
        return
    text = (
        f"The network's modules reach {figure(whole.achieved_flops, GIGA)} GFLOP/s at {plain(whole.intensity)} "
        f"FLOP/byte: {_reached(whole, profile, 'what the measured ceilings allow')}"
    )
    poor = [row for row in profile.stage_rows if row.share > MUCH and (row.roofline_share or 1.0) < POOR]
    remedy = None
    if whole.roofline_share <= GOOD and poor:
        worst = min(poor, key=lambda row: row.roofline_share or 1.0)
        reached = percent(worst.roofline_share or 0.0)
        remedy = f"most room: `{worst.path}`, {percent(worst.share)} of the step at {reached} of its ceiling"
    yield Explanation("roofline", text, remedy)


def _memory_bound(profile: Profile) -> Iterator[Explanation]:
    """Modules that do next to no arithmetic for what they read and write."""
    if profile.roofline is None:
        return
    holders = {row.path.rpartition(".")[0] for row in profile.modules if row.path}
    leaves = (row for row in profile.modules if row.path not in holders and row.path)
    bound = [row for row in leaves if row.bound == "memory"]
    share = sum(row.own_s for row in bound) / profile.observed_step_s
    if share < MUCH:
        return
    by_kind: dict[str, float] = defaultdict(float)
    for row in bound:
        by_kind[row.kind] += row.own_s / profile.observed_step_s
    named = sorted(by_kind, key=lambda kind: -by_kind[kind])[:_KINDS_NAMED]
    moved = sum(row.own_bytes for row in bound)
    cell = profile.cell
    remedies = []
    if cell.precision in ("fp32", "tf32"):
        remedies.append(f"half the bytes (`amp-bf16`) can save up to half of these {percent(share)}")
    if cell.compile_mode == "off":
        remedies.append("`--compile-mode default` fuses them into their neighbours")
    yield Explanation(
        "memory_bound",
        f"{percent(share)} of the step goes to modules that memory limits, not arithmetic "
        f"({', '.join(f'{kind} {percent(by_kind[kind])}' for kind in named)}); they move {figure(moved, MIB)} MiB",
        remedy="; ".join(remedies) or None,
    )


def _copies(profile: Profile) -> Iterator[Explanation]:
    share: dict[str, float] = defaultdict(float)
    for operator in profile.operators:
        name = operator.name.rpartition("::")[2]
        if name in _MOVES:
            share[name] += operator.share
    total = sum(share.values())
    if total < MUCH:
        return
    names = ", ".join(f"{name} {percent(share[name])}" for name in sorted(share, key=lambda name: -share[name]))
    yield Explanation("copies", f"{percent(total)} of the operators' time only moves data ({names})")


def _waiting(profile: Profile) -> Iterator[Explanation]:
    roofline = profile.roofline
    if roofline is None:
        return
    gap, host = ((lost or 0.0) / profile.step_s for lost in (roofline.launch_gap_s, roofline.host_s))
    if gap > MUCH:
        remedy = "a larger batch; `--compile-mode reduce-overhead` replays the launches as one CUDA graph"
        text = f"The GPU stands idle for {percent(gap)} of the step and waits for the host's launches"
        yield Explanation("launch_bound", text, remedy)
    if host > MUCH:
        compile = "; `--compile-mode default`" if profile.cell.compile_mode == "off" else ""
        text = f"{percent(host)} of the step passes in Python, outside every operator"
        yield Explanation("host_bound", text, f"a larger batch{compile}")


def _matrix_units(profile: Profile) -> Iterator[Explanation]:
    known = [kernel for kernel in profile.kernels if kernel.tensor_core is not None]
    if not known:
        return
    share = sum(kernel.share for kernel in known if kernel.tensor_core)
    slow = profile.cell.precision == "fp32"
    yield Explanation(
        "tensor_cores",
        f"{percent(share)} of the kernels' time is on tensor cores, by the kernels' names",
        remedy="`--precision tf32` or `amp-bf16` uses them" if slow and share < MUCH else None,
    )


def _optimizer(profile: Profile) -> Iterator[Explanation]:
    part = next((part for part in profile.parts if part.name == "optimizer"), None)
    if part is not None and part.share > MUCH:
        text = f"The optimizer takes {percent(part.share)} of the step, whatever the batch size"
        yield Explanation("optimizer", text, remedy="a larger batch spreads it over more images")


def _compiled(profile: Profile) -> Iterator[Explanation]:
    if profile.compiled is not None:
        yield Explanation("compiled", compiled_line(profile.compiled))


def compiled_line(found: KernelMap) -> str:
    """What compiling gained and cost; a clause."""
    share = found.mapped_share
    mapped = "" if share is None else f"; {percent(share)} of its kernels' time is mapped to modules"
    return (
        f"Compiled, the step takes {figure(found.step_s, MS)} ms: {plain(found.eager_step_s / found.step_s)} times as "
        f"fast as in eager ({figure(found.eager_step_s, MS)} ms), for {plain(found.compile_s)} s of compilation{mapped}"
    )


def _peak(profile: Profile) -> Iterator[Explanation]:
    memory = profile.memory
    if memory is None:
        return
    peak = memory.peak
    categories = sorted(zip(CATEGORIES, peak.by_category, strict=True), key=lambda pair: -pair[1])[:_KINDS_NAMED]
    held = ", ".join(f"{name} {percent(size / peak.total)}" for name, size in categories if size)
    where = f" in `{peak.module}` ({peak.section})" if peak.module else f" ({peak.section})"
    yield Explanation("memory_peak", f"Memory peaks at {figure(peak.total, MIB)} MiB{where}: {held}")
    predicted, measured = memory.predicted_peak_bytes, memory.measured_peak_bytes
    if predicted is not None and measured and abs(predicted / measured - 1) > PREDICTION_OFF:
        change = percent(predicted / measured - 1, signed=True)
        yield Explanation("prediction", f"The predicted peak is off by {change} of the measured one")


def _saved(profile: Profile) -> Iterator[Explanation]:
    """What is kept for the backward pass, and by which operators."""
    memory = profile.memory
    if memory is None or not memory.saved_bytes:
        return
    share = memory.saved_bytes / memory.peak.total
    joined = sum(one.bytes for one in memory.saved_by_maker if one.made_by == "cat") / memory.saved_bytes
    remedies = []
    if joined > MUCH:
        remedies.append(
            f"concatenations alone keep {percent(joined)}: each one copies all feature maps before it; "
            "recompute them instead (torchvision's DenseNets: option `memory_efficient=true`)"
        )
    elif share > 0.5:
        remedies.append("recompute in the backward pass (checkpointing), or a smaller batch")
    if profile.cell.precision in ("fp32", "tf32") and share > 0.5:
        remedies.append("`amp-bf16` keeps most of it in half the bytes")
    text = saved_line(memory, profile.cell.batch_size).rstrip(".")
    yield Explanation("saved_activations", text, remedy="; ".join(remedies) or None)


def _gradients(profile: Profile) -> Iterator[Explanation]:
    health = profile.gradients
    if health is None or health.first_to_last is None:
        return
    ratio = health.first_to_last.median
    if VANISHED < ratio < EXPLODED:
        text = f"At initialisation the first layer's gradient is {plain(ratio)} times the last one's"
        yield Explanation("gradients", text)
    else:
        what = "explode" if ratio > 1 else "vanish"
        text = f"At initialisation gradients {what}: the first layer's is {plain(ratio)} times the last one's"
        yield Explanation("gradients", text, "shortcuts, normalisation, or an initialisation made for the activation")


def _watching(profile: Profile) -> Iterator[Explanation]:
    if profile.observing_cost > COSTLY_WATCHING:
        text = (
            f"Observing made the step {percent(profile.observing_cost)} slower: small modules look longer than they are"
        )
        yield Explanation("observing_cost", text, remedy="a larger batch makes the share smaller")


RULES: tuple[Callable[[Profile], Iterable[Explanation]], ...] = (
    _largest_stage,
    _kinds,
    _reach,
    _memory_bound,
    _copies,
    _waiting,
    _matrix_units,
    _optimizer,
    _compiled,
    _peak,
    _saved,
    _gradients,
    _watching,
)


def _reached(row: ModuleProfile, profile: Profile, ceiling: str) -> str:
    if row.roofline_share is not None and row.roofline_share <= 1:
        return f"{percent(row.roofline_share)} of {ceiling}"
    return f"more than {ceiling} ({of_ceiling(row, profile)})"


def of_ceiling(row: ModuleProfile, profile: Profile | None = None) -> str:
    """`62 % memory`: how near a module comes to its roofline, and which ceiling that is.

    Nothing does more than its ceiling. What seems to was served from a cache, where memory is the limit and all that
    each call inside reads and writes fits the last-level cache; else the ceiling was measured too low.
    """
    if row.roofline_share is None:
        return NULL
    if row.roofline_share <= 1:
        return f"{percent(row.roofline_share)} {row.bound or ''}".rstrip()
    cache = profile.roofline.cache_bytes if profile is not None and profile.roofline is not None else None
    rows = () if profile is None else profile.modules
    inside = [one for one in rows if not row.path or one.path == row.path or one.path.startswith(f"{row.path}.")]
    largest = max((one.own_bytes / max(one.calls, 1) for one in inside), default=0)
    if row.bound == "memory" and cache is not None and inside and largest <= cache:
        return "served from cache"
    return "ceiling under-measured"
