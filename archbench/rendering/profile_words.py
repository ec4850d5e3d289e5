"""A profile in sentences: which cell and machine, and why the network takes its time and memory, and what would help.

No rule speaks without its figure, and a remedy says how much of the step it can touch, not how much it will save.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from archbench.model.counts import GradientHealth
from archbench.model.profile import CATEGORIES, Explanation, KernelMap, MemoryTimeline, ModuleProfile, Profile
from archbench.model.reasons import LOWER_BOUND, explain
from archbench.model.units import AT_LEAST, GIGA, MIB, MILLION, MS, NULL, counted, figure, listed, percent, plain
from archbench.rendering.content import Bullets, bullets

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
EXPLODED, VANISHED = 100.0, 0.01
"""First over last weight layer. Networks that train lie well within, ResNet-56 at 0.4; plain-56 is at 1,800."""
_DURING = {
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "update": "in the optimizer's step",
    "compiled": "in the compiled step",
}


def findings(profile: Profile) -> tuple[Explanation, ...]:
    """All that the rules have to say, time first, the most telling first."""
    time = (_largest_stage, _kinds, _reach, _memory_bound, _copies, _waiting, _matrix_units, _optimizer, _compiled)
    rules = (*time, _peak, _saved, _gradients, _watching)
    return tuple(finding for rule in rules for finding in rule(profile))


def _largest(shares: Iterable[tuple[str, float]], most: int | None = _KINDS_NAMED) -> str:
    """`Conv2d 62 %, ReLU 10 %`: the largest of them, what has one name together."""
    together: dict[str, float] = defaultdict(float)
    for name, share in shares:
        together[name] += share
    largest = sorted(together.items(), key=lambda pair: -pair[1])[:most]
    return ", ".join(f"{name} {percent(share)}" for name, share in largest)


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
    shares = _largest((row.kind, row.own_s / profile.observed_step_s) for row in profile.modules)
    yield Explanation("kinds", f"By kind of module: {shares} of the step")


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
    kinds = _largest((row.kind, row.own_s / profile.observed_step_s) for row in bound)
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
        f"({kinds}); they move {_mib(moved)}",
        remedy="; ".join(remedies) or None,
    )


def _copies(profile: Profile) -> Iterator[Explanation]:
    named = [(one.name.rpartition("::")[2], one.share) for one in profile.operators]
    moves = [(name, share) for name, share in named if name in _MOVES]
    total = sum(share for _, share in moves)
    if total >= MUCH:
        names = _largest(moves, most=None)
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
    held = _largest((name, size / peak.total) for name, size in zip(CATEGORIES, peak.by_category, strict=True) if size)
    where = f" in `{peak.module}` ({peak.section})" if peak.module else f" ({peak.section})"
    yield Explanation("memory_peak", f"Memory peaks at {_mib(peak.total)}{where}: {held}")
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
    times = f"{plain(ratio)} times the last one's"
    if VANISHED < ratio < EXPLODED:
        yield Explanation("gradients", f"At initialisation the first layer's gradient is {times}")
    else:
        text = f"At initialisation gradients {'explode' if ratio > 1 else 'vanish'}: the first layer's is {times}"
        yield Explanation("gradients", text, "shortcuts, normalisation, or an initialisation made for the activation")


def _watching(profile: Profile) -> Iterator[Explanation]:
    if profile.observing_cost > COSTLY_WATCHING:
        text = (
            f"Observing made the step {percent(profile.observing_cost)} slower: small modules look longer than they are"
        )
        yield Explanation("observing_cost", text, remedy="a larger batch makes the share smaller")


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


def profile_label(profile: Profile) -> str:
    """`resnet50: inference, batch size 1, fp32, eager`."""
    cell = profile.cell
    words = [cell.phase, f"batch size {cell.batch_size}", cell.precision]
    words += [cell.memory_format] if cell.memory_format != "contiguous" else []
    words.append("eager" if cell.compile_mode == "off" else f"compiled ({cell.compile_mode})")
    return f"{profile.network}: {', '.join(words)}"


def machine_words(profile: Profile) -> str:
    """`Intel Xeon x2, 2 threads`."""
    where = profile.environment.hardware_class if profile.environment else profile.device
    return f"{where}, {counted(profile.threads, 'thread')}" if profile.device == "cpu" else where


def step_words(profile: Profile) -> str:
    """`step 20.1 ms (49.8 img/s)`; of a compiled cell the compiled step, beside the eager one that is taken apart."""

    def timed(seconds: float) -> str:
        return f"{figure(seconds, MS)} ms ({plain(profile.cell.batch_size / seconds)} img/s)"

    if profile.cell.compile_mode == "off":
        return f"step {timed(profile.step_s)}"
    own = "not timed" if profile.cell_step_s is None else timed(profile.cell_step_s)
    return f"compiled step {own}; in eager, of which the modules are: {timed(profile.step_s)}"


def verdict_words(profile: Profile) -> str:
    """`Verdict ok`, or what else with its reasons and remedies."""
    told = [f"Verdict {profile.verdict}{', not to be used' if profile.verdict == 'invalid' else ''}"]
    for code, reason in ((code, explain(code)) for code in profile.reasons):
        if reason.effect in ("invalid", "suspect"):
            told.append(f"{code}: {reason.meaning}" + (f" ({reason.remedy})" if reason.remedy else ""))
    return "; ".join(told)


def header(profile: Profile) -> Iterator[str]:
    """Where and how well it was measured, its size and its step, in lines."""
    peak = profile.memory.measured_peak_bytes if profile.memory else None
    bound = AT_LEAST if LOWER_BOUND in profile.reasons else ""
    yield f"on {machine_words(profile)}"
    yield verdict_words(profile)
    yield (
        f"{step_words(profile)}, "
        f"{bound}{figure(profile.macs, GIGA)} GMACs an image, {figure(profile.params, MILLION)} M parameters, "
        f"peak {figure(peak, MIB)} MiB"
    )
    yield (
        f"modules and parts add up to {figure(profile.attributed_s, MS)} ms "
        f"({percent(profile.attributed_s / profile.step_s - 1, signed=True)}) over {profile.steps} observed steps; "
        f"observing cost {percent(profile.observing_cost, signed=True)}"
    )


def findings_said(profile: Profile) -> Bullets:
    """Each finding with its remedy."""
    remedies = (one.remedy and f" {one.remedy[0].upper()}{one.remedy[1:]}." for one in profile.findings)
    return bullets(*(f"{one.text}.{remedy or ''}" for one, remedy in zip(profile.findings, remedies, strict=True)))


def memory_line(timeline: MemoryTimeline) -> str:
    """The peak, where it is, and how prediction and watching agree with the allocator: a sentence or two."""
    peak, measured = timeline.peak, timeline.measured_peak_bytes
    where = f" of `{peak.module}`" if peak.module else ""
    operator = f", in `{peak.operator}`{where}" if peak.operator else ""
    said = f"The peak is {_mib(peak.total)}, {_DURING[peak.section]}{operator}. "
    if abs(peak.total - measured) > 0.005 * measured:
        said += f"Unwatched, the step peaks at {_mib(measured)}. "
    if timeline.predicted_peak_bytes is None:
        return said + "No peak is predicted for this step."
    off = round(timeline.predicted_peak_bytes / measured - 1, 3)
    difference = percent(off, signed=True) if off else "no difference"
    return said + f"Predicted without running: {_mib(timeline.predicted_peak_bytes)} ({difference})."


def saved_line(timeline: MemoryTimeline, batch_size: int) -> str:
    """How much the forward pass keeps, and the kinds of tensor that most of it is: one sentence."""
    parts = _largest((one.made_by, one.bytes / timeline.saved_bytes) for one in timeline.saved_by_maker)
    return (
        f"{_mib(timeline.saved_bytes)} are kept for the backward pass, {_mib(timeline.saved_bytes / batch_size)} an "
        f"image: results of {parts}."
    )


def gradient_line(health: GradientHealth) -> str:
    """The ratio of first to last and what it means: a sentence or two."""
    how = f"Median of {health.seeds} draws of weights and of {health.batch_size} random images"
    ratio = health.first_to_last
    if ratio is None:
        said = f"{how}: the ratio of first to last layer cannot be formed, a gradient is 0 or not finite. "
    else:
        times = f"{plain(ratio.median)} times ({plain(ratio.low)} to {plain(ratio.high)})"
        said = f"{how}: the gradient of the first layer's weights is {times} that of the last's. "
        if ratio.median >= EXPLODED:
            said += "It grows on its way back: one learning rate cannot suit both ends of the network. "
        elif ratio.median <= VANISHED:
            said += "It fades on its way back: the first layers hardly learn. "
    if health.without_gradient:
        said += f"No gradient reaches {listed([f'`{path}`' for path in health.without_gradient], 3)}."
    return said.rstrip()


def _mib(size: float) -> str:
    return f"{figure(size, MIB)} MiB"
