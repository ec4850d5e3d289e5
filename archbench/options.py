"""What is asked of whatever measures: each option once, with its type, its default and what `--help` says of it.

`keywords` gives a function the options of a class as keywords, and `cli.console.taking` gives them to a command.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, get_type_hints, overload

from archbench.model.axes import DEVICE_KINDS
from archbench.model.derived import RANKING_KEYS, judged_names
from archbench.model.suite import AXES

_T = TypeVar("_T")
_Options = TypeVar("_Options")
_Options_co = TypeVar("_Options_co", covariant=True)
_Subject = TypeVar("_Subject")
_Found = TypeVar("_Found")
_P = ParamSpec("_P")

OneOrMore: TypeAlias = _T | Sequence[_T]
"""One value, or several in a list; `"1,8"`, as one types it for the command, does too."""
PathOrText: TypeAlias = str | os.PathLike[str]
Network: TypeAlias = str | Callable[..., object] | Mapping[str, Any]
"""A name, a `torch.nn.Module` with its weights, a function that makes one, or what a suite says of one
(`{"name": "lenet5", "num_classes": 100}`, in which the name may be such an object as well)."""
Inputs: TypeAlias = str | Sequence[Mapping[str, Any]] | None
"""The arguments of a network's forward: as a suite lists them, or in short."""


@dataclass(frozen=True)
class Option:
    """How a command shows an option. A field without one is a function's alone."""

    help: str
    metavar: str | None = None
    repeatable: bool = False
    words: Callable[[], Iterable[str]] | None = None
    """What completes its value."""
    least: int | None = None


DEVICE = Option("auto, cpu, cuda or cuda:N", words=lambda: ("auto", *DEVICE_KINDS))
INPUTS = Option("What it takes: in short, or as a suite has it.", "16/int64/0..1000")
ONLY = Option("Cells to keep: resnet*, resnet50@batch_size=1, @setting=amp.", "PATTERN", repeatable=True)
ALLOW_CODE = Option("Accept module:function architectures.")
_SIZE = Option("Side of the image in pixels, or 640x480.")
FORCE = Option("Measure on a machine that the preflight calls unfit.")


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Of networks that are named or passed: the axes, and in which role they are used."""

    batch_size: Annotated[OneOrMore[int] | str | None, Option("Batch sizes of the networks named.", "1,8")] = None
    phase: Annotated[OneOrMore[str] | None, Option("inference, training")] = None
    precision: Annotated[OneOrMore[str] | None, Option("fp32, tf32, amp-bf16, ...")] = None
    compile_mode: Annotated[OneOrMore[str] | None, Option("off, default, reduce-overhead, ...")] = None
    memory_format: Annotated[OneOrMore[str] | None, Option("contiguous, channels_last")] = None
    input_size: Annotated[OneOrMore[int] | str | None, _SIZE] = None
    threads: Annotated[OneOrMore[int] | str | None, Option("Threads of one operator, on the CPU.", "1,2")] = None
    inputs: Annotated[Inputs, INPUTS] = None
    head: Annotated[OneOrMore[str] | None, Option("classifier, none: the last map, features: pyramid.")] = None
    deploy: Annotated[OneOrMore[bool] | None, Option("Folded for inference: true, false.", "true")] = None
    train: Annotated[OneOrMore[str] | None, Option("full, head, frozen-bn")] = None
    optimizer: Annotated[OneOrMore[str] | None, Option("sgd, adamw")] = None
    checkpointing: Annotated[OneOrMore[bool] | None, Option("Blocks run again in the backward pass.", "true")] = None
    loss: Annotated[
        OneOrMore[str] | None, Option("by-output, cross-entropy, binary-cross-entropy, mean-square, mean")
    ] = None

    @property
    def axes(self) -> dict[str, object]:
        """The values of the axes by name, `None` for one that was not given."""
        return {name: getattr(self, name, None) for name in AXES}


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Networks):
    """Which cells a run has."""

    runtime: Annotated[OneOrMore[str] | None, Option("torch, onnxruntime, openvino, aot-inductor, tensorrt")] = None
    quantize: Annotated[OneOrMore[str] | None, Option("off, int8-dynamic, int8-static, ...")] = None
    device: Annotated[str, DEVICE] = "auto"
    only: Annotated[OneOrMore[str], ONLY] = ()
    rounds: Annotated[int | None, Option("Rounds, in place of the suite's.")] = None
    shard: Annotated[
        str | None, Option("One of so many parts of the suite; `archbench merge` unites them.", "3/16")
    ] = None
    allow_code: Annotated[bool, ALLOW_CODE] = False


@dataclass(frozen=True, kw_only=True)
class RunOptions(PlanOptions):
    """How they are measured, and where that is stored."""

    metrics: Annotated[OneOrMore[str] | None, Option("static, latency, throughput, memory, energy, ...")] = None
    images: Annotated[PathOrText | None, Option("Labelled images, a folder a class, to measure top-1 on.", "DIR")] = (
        None
    )
    executor: Annotated[str, Option("local, or ray: the devices of a Ray cluster.")] = "local"
    address: Annotated[str, Option("Of the Ray cluster.", "HOST:PORT")] = "auto"
    resource: Annotated[
        str | None, Option("What a device is in the cluster; else a GPU, or all CPUs of a node.", "NAME")
    ] = None
    out: Annotated[PathOrText | None, Option("The run's directory; by default one under results/.", "PATH")] = None
    static: Annotated[bool, Option("Only what is counted, predicted and traced; nothing is run or timed.")] = False
    fresh: Annotated[bool, Option("Begin a new run even where one could be resumed.")] = False
    retry_failed: Annotated[bool, Option("Measure failed and invalid cells again.")] = False
    retry_suspect: Annotated[bool, Option("Measure suspect cells again; of two rows the better counts.")] = False
    budget: Annotated[str | None, Option("End after this time, with what decides most until then.", "10m")] = None
    force: Annotated[bool, FORCE] = False
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """Of two sides whose processes take turns."""

    base: Annotated[str, Option("A Python interpreter, a git revision, or . as it lies here.", "X")]
    head: Annotated[str | None, Option("The same, of what may have become slower.", "Y")] = None
    only: Annotated[OneOrMore[str], ONLY] = ()
    aa: Annotated[bool, Option("Base against itself: learn how widely each cell scatters here.")] = False
    static: Annotated[bool, Option("Only what is counted, predicted and traced, on any machine; nothing is timed.")] = (
        False
    )
    accept: Annotated[
        str | None, Option("What fails is meant: say why, in SUITE.accepted.yaml, to be committed.", "REASON")
    ] = None
    max_time: Annotated[str | None, Option("Stop measuring after so long: 90s, 10m, 2h.", "10m")] = None
    out: Annotated[PathOrText | None, Option("The gate's directory; else under results/gate/.", "DIR")] = None
    device: Annotated[str, DEVICE] = "auto"
    allow_code: Annotated[bool, ALLOW_CODE] = False
    force: Annotated[bool, FORCE] = False
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(Networks):
    """Of the one cell that is profiled, and of what is looked at."""

    batch_size: Annotated[int | str, Option("Images in a step.", "N")] = 1
    phase: Annotated[str, Option("inference or training")] = "inference"
    precision: Annotated[str, Option("fp32, tf32, amp-bf16, ...")] = "fp32"
    compile_mode: Annotated[str, Option("off, default, reduce-overhead, ...")] = "off"
    memory_format: Annotated[str, Option("contiguous, channels_last")] = "contiguous"
    threads: Annotated[int | None, Option("Threads of one operator, on the CPU.")] = None
    against: Annotated[str, Option("Another network, or @AXIS=VALUE: other settings.", "NAME[@AXIS=VALUE,...]")] = ""
    device: Annotated[str, DEVICE] = "auto"
    stage: Annotated[str, Option("Show only what is inside this module.")] = ""
    memory: Annotated[bool, Option("Follow memory over the step.")] = True
    gradients: Annotated[bool, Option("Gradients at initialisation.")] = True
    html: Annotated[PathOrText | None, Option("Write everything as a page.", "PATH")] = None
    trace: Annotated[PathOrText | None, Option("Write a trace for Perfetto.", "FILE")] = None
    snapshot: Annotated[PathOrText | None, Option("Write CUDA's memory snapshot.", "FILE")] = None
    seed: Annotated[int, Option("Of weights and inputs.")] = 0
    allow_code: Annotated[bool, ALLOW_CODE] = False
    force: Annotated[bool, FORCE] = False
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """In which form a network is looked at."""

    input_size: Annotated[int | str | None, _SIZE] = None
    inputs: Annotated[Inputs, INPUTS] = None
    batch_size: Annotated[int | None, Option("Predict memory at this batch size.", least=1)] = None
    num_classes: Annotated[int | None, Option("Outputs of the classifier.", least=1)] = None
    in_channels: Annotated[int | None, Option("Channels of the image, or width of a vector.", least=1)] = None
    head: Annotated[str, Option("classifier, none (last map), features (a detector's maps).")] = "classifier"
    deploy: Annotated[bool, Option("Folded for inference.")] = False
    option: Annotated[
        Mapping[str, Any] | OneOrMore[str],
        Option("An option of the network: aux_logits=true.", "KEY=VALUE", repeatable=True),
    ] = ()
    build: Annotated[bool, Option("Build it: second counter and predicted memory.")] = False
    allow_code: Annotated[bool, ALLOW_CODE] = False


@dataclass(frozen=True, kw_only=True)
class FitsOptions:
    """Of the step that is to fit into a memory."""

    memory: Annotated[str | int, Option("The memory to fill: 8GiB, 512MiB.", "SIZE")]
    phase: Annotated[str, Option("inference or training")] = "inference"
    precision: Annotated[str, Option("fp32, tf32, amp-bf16, ...")] = "fp32"
    memory_format: Annotated[str, Option("contiguous, channels_last")] = "contiguous"
    input_size: Annotated[int | str | None, _SIZE] = None
    inputs: Annotated[Inputs, INPUTS] = None
    device: Annotated[str, DEVICE] = "auto"
    verify: Annotated[bool, Option("Run steps around the edge, with so much memory.")] = False
    allow_code: Annotated[bool, ALLOW_CODE] = False


def _columns(help: str, metavar: str = "COLUMN", words: Callable[[], Iterable[str]] = judged_names) -> Option:
    return Option(help, metavar, repeatable=True, words=words)


_ACROSS = _columns("Rank rows together that differ in batch_size, precision, ...", words=lambda: RANKING_KEYS)


@dataclass(frozen=True)
class PickOptions:
    """By what a network is picked from stored cells."""

    where: Annotated[
        OneOrMore[str],
        _columns("A condition: 'latency_p99 <= 5ms', 'year >= 2020', 'family in (resnet, densenet)'.", "EXPR"),
    ] = ()
    _: KW_ONLY
    minimize: Annotated[OneOrMore[str], _columns("Smallest first.")] = ()
    maximize: Annotated[OneOrMore[str], _columns("Largest first. Several goals give the Pareto front.")] = ()
    across: Annotated[OneOrMore[str], _ACROSS] = ()


@dataclass(frozen=True)
class ReportOptions:
    """Of stored results as a report."""

    format: Annotated[str, Option("md, html or latex", "FORMAT")] = "md"
    out: Annotated[
        PathOrText | None,
        Option(
            "Where to write, - for stdout; else report.FORMAT in RUN, of several archbench-report.FORMAT here.", "PATH"
        ),
    ] = None
    _: KW_ONLY
    only: Annotated[
        OneOrMore[str], Option("Cells to show: resnet*, resnet50@batch_size=1.", "PATTERN", repeatable=True)
    ] = ()
    table: Annotated[str, Option("Only the tables with these words in their caption, such as matrix.", "WORDS")] = ""
    label: Annotated[
        OneOrMore[str], Option("Networks that plots name; else all that have room.", "PATTERN", repeatable=True)
    ] = "*"
    plots: Annotated[
        OneOrMore[str], Option("Store plots as svg, png, pdf (several: png,pdf), beside the report.", "KINDS")
    ] = ()


@dataclass(frozen=True)
class CompareOptions:
    """Of two stored sides."""

    base: PathOrText
    head: PathOrText
    _: KW_ONLY
    allow_different: Annotated[
        OneOrMore[str],
        Option(
            "Let torch_version, driver_version, suite, applied or threads differ; repeatable.",
            "COLUMN",
            repeatable=True,
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class DuelOptions:
    """Of cells that take turns."""

    pairs: Annotated[int | None, Option("Pairs of fresh processes, with those played before; 8 unless given.")] = None
    turns: Annotated[int | None, Option("Turns of each process in a pair; 16 unless given.")] = None
    max_time: Annotated[str | None, Option("Stop after so long, with fewer pairs: 90s, 10m, 2h.", "5m")] = None
    inputs: Annotated[Inputs, INPUTS] = None
    device: Annotated[str, DEVICE] = "auto"
    fresh: Annotated[bool, Option("Begin anew, whatever was played before.")] = False
    allow_code: Annotated[bool, ALLOW_CODE] = False
    force: Annotated[bool, FORCE] = False
    progress: bool | None = None


@dataclass(frozen=True)
class ClaimsOptions:
    """Of which claims are judged, and by what."""

    runs: OneOrMore[PathOrText] = ()
    _: KW_ONLY
    only: Annotated[
        OneOrMore[str], Option("Claims to judge: 000.14, 003.*, measured.", "PATTERN", repeatable=True)
    ] = ()
    probe: Annotated[PathOrText | None, Option("A training probe; else the newest of this machine here.", "DIR")] = None
    file: Annotated[PathOrText | None, Option("Claims of your own, in the form of docs/claims.md.", "YAML")] = None
    measure: Annotated[str | None, Option("Measure what is missing, for so long at most: 90s, 10m, 2h.", "10m")] = None


@dataclass(frozen=True)
class ProbeOptions:
    """Of trainings for the sake of their curves."""

    networks: OneOrMore[str] = ()
    _: KW_ONLY
    seeds: Annotated[int, Option("How many times each is trained.")] = 3
    steps: Annotated[int | None, Option("Of each training, in place of the schedule's own.")] = None
    data: Annotated[PathOrText | None, Option("CIFAR-10's binary version; else scikit-learn's digits.", "DIR")] = None
    out: Annotated[PathOrText | None, Option("The probe's directory; else under results/train-probe/.", "DIR")] = None
    device: Annotated[str, DEVICE] = "cpu"
    at_once: Annotated[
        int | None, Option("Trainings at a time, on a thread each; else as many as there are cores.")
    ] = None
    told: Callable[[Any, str, int], None] | None = None
    """Called with the probe so far, the network and the seed of each training that ends."""


class _Keywords(Protocol[_Options_co, _P]):
    """Typed: the options alone, with what they are of among them, or behind that; several of it as they come."""

    @overload
    def __call__(self, function: Callable[[_Options_co], _Found]) -> Callable[_P, _Found]: ...
    @overload
    def __call__(
        self, function: Callable[[_Subject, _Options_co], _Found]
    ) -> Callable[Concatenate[_Subject, _P], _Found]: ...
    @overload
    def __call__(self, function: Callable[..., _Found]) -> Callable[..., _Found]: ...


def declared(options: Callable[..., object]) -> dict[str, tuple[Any, Option]]:
    """The type of each field that a command has, too, and what it shows of it."""
    hints = get_type_hints(options, include_extras=True).items()
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints if hasattr(hint, "__metadata__")}


def keywords(options: Callable[_P, _Options]) -> _Keywords[_Options, _P]:
    """A function whose last parameter is `options` as one that takes them as keywords, which `help` then explains."""
    told = "\n".join(f"- `{name}`: {about.help}" for name, (_, about) in declared(options).items())
    named = [one.replace(annotation=_plain(one)) for one in inspect.signature(options).parameters.values()]

    def decorate(function: Callable[..., Any]) -> Any:
        signature = inspect.signature(function)
        *subjects, last = signature.parameters.values()
        signature = signature.replace(parameters=[*subjects, *named])

        @wraps(function)
        def called(*words: Any, **given: Any) -> Any:
            bound = signature.bind(*words, **given)
            asked: dict[str, Any] = {
                one.name: bound.arguments.pop(one.name) for one in named if one.name in bound.arguments
            }
            return function(*bound.args, **{last.name: options(**asked)})  # type: ignore[call-arg]

        called.__doc__ = f"{inspect.getdoc(function)}\n\n{told}"
        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        return called

    return decorate


def _plain(one: inspect.Parameter) -> str:
    """Its type as it is written above, without what a command shows."""
    match ast.parse(one.annotation, mode="eval").body:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[written, *_])):
            return ast.unparse(written)
    return str(one.annotation)


def several(value: OneOrMore[_T]) -> list[_T]:
    """The values in a list, of which one may stand alone."""
    return list(value) if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]


def as_path(place: PathOrText | None) -> Path | None:
    """A place to write to; `None` where none was given."""
    return None if place is None else Path(place)
