"""`archbench profile`: where the time and the memory of one step go, in one screen, and what would help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from archbench.cli.console import (
    AllowCode,
    AsJson,
    CheckpointingOption,
    DeployOption,
    DeviceOption,
    Force,
    HeadOption,
    InputsOption,
    NetworkArgument,
    OptimizerOption,
    TrainOption,
    print_json,
)
from archbench.model.errors import UsageError


def profile_command(
    name: NetworkArgument,
    batch_size: Annotated[str, typer.Option(metavar="N", help="Images in a step.")] = "1",
    phase: Annotated[str, typer.Option(help="inference or training")] = "inference",
    precision: Annotated[str, typer.Option(help="fp32, tf32, amp-bf16, ...")] = "fp32",
    compile_mode: Annotated[str, typer.Option(help="off, default, reduce-overhead, ...")] = "off",
    memory_format: Annotated[str, typer.Option(help="contiguous, channels_last")] = "contiguous",
    input_size: Annotated[str, typer.Option(help="Side of the image in pixels, or 640x480.")] = "",
    inputs: InputsOption = None,
    head: HeadOption = None,
    deploy: DeployOption = None,
    train: TrainOption = None,
    optimizer: OptimizerOption = None,
    checkpointing: CheckpointingOption = None,
    against: Annotated[
        str, typer.Option(metavar="NAME[@AXIS=VALUE,...]", help="Another network, or @AXIS=VALUE: other settings.")
    ] = "",
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads of one operator, on the CPU.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels of modules to show; by default the stages.")] = None,
    stage: Annotated[str, typer.Option(help="Show only what is inside this module.")] = "",
    top: Annotated[int, typer.Option(min=0, max=60, help="Operators or kernels to show.")] = 6,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Follow memory over the step.")] = True,
    gradients: Annotated[bool, typer.Option("--gradients/--no-gradients", help="Gradients at initialisation.")] = True,
    html: Annotated[Path | None, typer.Option(metavar="PATH", help="Write everything as a page.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a trace for Perfetto.")] = None,
    snapshot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write CUDA's memory snapshot.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and inputs.")] = 0,
    allow_code: AllowCode = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Show where one step's time and memory go: by module, operator and stage, under the roofline."""
    from archbench.choose.profile_difference import Compared
    from archbench.profiling import profile
    from archbench.rendering.profile_screen import difference_screen, profile_screen
    from archbench.rendering.terminal import print_report

    if against and stage:
        raise UsageError("--stage shows the inside of one network; leave out --against, or --stage")
    found = profile(
        name,
        batch_size=batch_size,  # type: ignore[arg-type]
        phase=phase,
        precision=precision,
        compile_mode=compile_mode,
        memory_format=memory_format,
        input_size=input_size,
        inputs=inputs,
        head=head,
        deploy=deploy,  # type: ignore[arg-type]
        train=train,
        optimizer=optimizer,
        checkpointing=checkpointing,  # type: ignore[arg-type]
        against=against,
        device=device,
        threads=threads,
        memory=memory,
        gradients=gradients,
        stage=stage,
        html=html,
        trace=trace,
        snapshot=snapshot,
        seed=seed,
        allow_code=allow_code,
        force=force,
    )
    if as_json:
        print_json(found, indent=False)
    elif isinstance(found, Compared):
        print_report(difference_screen(found, found.against, depth=depth))
    else:
        print_report(profile_screen(found, depth=depth, stage=stage, top=top))
    for path in (html, trace, snapshot):
        if path is not None:
            print(f"written: {path}", file=sys.stderr)
