"""What may stand in a suite file: the model's own types, but for architectures not yet looked up in the catalogue."""

from __future__ import annotations

from msgspec import Struct

from archbench.model.axes import DeviceKind, Head, Metric, Scalar
from archbench.model.cell import PositiveInt
from archbench.model.protocol import Protocol
from archbench.model.suite import Axes, Decision, Filter, Name, Percentile, Rounds, Section, Setting, SuiteName


class ArchitectureEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A network with what departs from its defaults, or (`family`) all networks of a family alike."""

    name: Name | None = None
    family: Name | None = None
    options: dict[str, Scalar] = {}
    num_classes: PositiveInt | None = None
    in_channels: PositiveInt | None = None
    head: Head = "classifier"
    input_size: PositiveInt | None = None


class SuiteFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A suite as written. Wherever the type says a tuple, the file may hold one value in place of a list."""

    suite: SuiteName
    description: str = ""
    architectures: tuple[Name | ArchitectureEntry, ...]
    axes: Axes = Axes()
    settings: dict[Name, Setting] = {}
    devices: dict[DeviceKind, tuple[Section, ...]] = {}
    exclude: tuple[Filter, ...] = ()
    metrics: tuple[Metric, ...] = ("static", "latency", "throughput", "memory")
    rounds: Rounds = 1
    percentiles: tuple[Percentile, ...] = (90,)
    seed: int = 0
    twin: Name | None = None
    protocol: Protocol = Protocol()
    decisions: tuple[Decision, ...] = ()


DESCRIPTIONS: dict[tuple[str, str], str] = {
    ("SuiteFile", "suite"): "Name of the suite; its results go to results/NAME/.",
    ("SuiteFile", "description"): "The question that the suite answers, in a sentence.",
    ("SuiteFile", "architectures"): (
        "Networks: a catalogue name or alias, torchvision:NAME, timm:NAME, module:function (needs --allow-code), "
        "{family: NAME}, or {name: NAME, options: {...}, num_classes: N, in_channels: N, head: none, input_size: N}."
    ),
    ("SuiteFile", "axes"): "Values to cross with each other; a missing axis has its default alone.",
    ("SuiteFile", "settings"): "Named bundles of toggles, in place of crossing precision, compile_mode, memory_format.",
    ("SuiteFile", "devices"): "What changes on cpu or cuda: one section, or a list of sections whose cells are united.",
    ("SuiteFile", "exclude"): "Cells to leave out: every given field must match, a field matches any of its values.",
    ("SuiteFile", "metrics"): "What to measure; energy, compile, numerics, profile cost time and are off unless named.",
    ("SuiteFile", "rounds"): "Passes over the suite, each in an order of its own and with fresh processes.",
    ("SuiteFile", "percentiles"): "Latency percentiles to give; a high one needs many samples.",
    ("SuiteFile", "seed"): "Seed of the order, of the inputs and of the weights.",
    ("SuiteFile", "twin"): "A network measured first, in between and last in each round: the run's noise floor.",
    ("SuiteFile", "protocol"): "Constants of the measurement protocol that this suite changes.",
    ("SuiteFile", "decisions"): "Rows of the decision matrix.",
    ("ArchitectureEntry", "name"): "Catalogue name or alias, torchvision:NAME, timm:NAME or module:function.",
    ("ArchitectureEntry", "family"): "Every catalogue network of this family.",
    ("ArchitectureEntry", "options"): "Keyword arguments of the network's constructor.",
    ("ArchitectureEntry", "num_classes"): "Outputs of the classifier.",
    ("ArchitectureEntry", "in_channels"): "Channels of the input.",
    ("ArchitectureEntry", "head"): "none gives feature maps in place of a classifier.",
    ("ArchitectureEntry", "input_size"): "Side of the square input; goes before the input_size axis.",
    ("Axes", "batch_size"): "Images a step (default 1).",
    ("Axes", "input_size"): "Side of the square input (default: what each network was published for).",
    ("Axes", "phase"): "inference (default) or training.",
    ("Axes", "precision"): "fp32 (default; TF32 off), tf32, amp-bf16, amp-fp16, bf16 or fp16.",
    ("Axes", "compile_mode"): "torch.compile mode, or off (default).",
    ("Axes", "memory_format"): "contiguous (default) or channels_last, of model and input.",
    ("Section", "architectures"): "Only these of the suite's networks; shell patterns over names.",
    ("Section", "family"): "Only the suite's networks of these families.",
    ("Section", "settings"): "Only these of the suite's settings.",
    ("Setting", "only"): "Use the setting for matching cells only.",
    ("Filter", "architecture"): "Shell patterns over the names of the suite's networks.",
    ("Filter", "family"): "Families of networks.",
    ("Filter", "setting"): "Names of settings.",
    ("Filter", "device"): "cpu or cuda.",
    ("Decision", "situation"): "The reader's situation, as a tutorial would put it.",
    ("Decision", "where"): 'Conditions on rows of results, such as "phase == \'training\'" or "top1 >= 76".',
    ("Decision", "minimize"): "The column whose smallest value wins.",
    ("Decision", "maximize"): "The column whose largest value wins.",
    ("Decision", "at_least"): 'Least values of columns, such as {top1: 70} or {throughput: "100 img/s"}.',
    ("Decision", "at_most"): 'Largest values of columns, in stored units or with one: {latency_median: "5 ms"}.',
    ("Decision", "baseline"): "The network that gains and costs are given against.",
    ("Decision", "at_most_of_baseline"): "Largest values relative to the baseline's: {macs: 1.05} is 5 % more at most.",
    ("Decision", "across"): "Columns in which rows may differ and be ranked against each other all the same.",
    ("Decision", "show"): "Columns whose figures stand beside the answer.",
    ("Decision", "every_setting"): "Show the usual networks under every setting, and not only under their best.",
    ("Decision", "not_measurable"): "Why measurements cannot judge this; figures are then shown without a verdict.",
    ("Decision", "folklore"): "The networks that people usually take.",
    ("Decision", "note"): "What the reader should know beside the answer.",
}
"""What each key means, for editors. A key of `Axes` means the same in sections, settings and filters."""
