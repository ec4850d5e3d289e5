"""Whether a profile can be believed: modules' times against the whole step, their MACs against `show`, its own cost.

    python benchmarks/profile_adds_up.py [--batch-size 8] [--networks resnet50,densenet121,vit_b_16]

Each network in training on the CPU with one thread, through the same processes as `archbench profile`; then resnet50 at
batch size 1 as a whole command, against the clock. Exits with 1 where times are more than 5 % off the unobserved step,
MACs are not equal to the last one, or the command takes 30 s. An observing cost above 5 % is told, as the profile does.
Takes about two minutes a network at batch size 8; on a machine with neighbours the first figure is theirs too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from archbench.analyze.counts import count
from archbench.device import collect_environment
from archbench.model.cell import Cell, Network
from archbench.model.messages import ProfileRequest
from archbench.profiling import run_profile
from archbench.worker import WorkerClient

OFF, COST, COMMAND_S = 0.05, 0.05, 30.0


def adds_up(name: str, batch_size: int, timing_s: float) -> bool:
    """Profile one network, print its line, and say whether it holds."""
    network = Network(name=name)
    request = ProfileRequest(
        cell=Cell(network=network, batch_size=batch_size, phase="training", threads=1),
        environment=collect_environment("cpu"),
        timing_s=timing_s,
        memory=False,
        gradients=False,
    )
    with WorkerClient() as worker:
        profile = run_profile(worker, request)
    off = profile.attributed_s / profile.step_s - 1
    macs = sum(row.own_macs or 0 for row in profile.modules)
    shown = count(network).macs
    print(
        f"{name:14} step {profile.step_s:7.3f} s  modules and parts {profile.attributed_s:7.3f} s ({off:+.1%})  "
        f"observing {profile.observing_cost:+.1%}{' (more than 5 %)' if profile.observing_cost > COST else ''}  "
        f"{profile.steps} steps  {len(profile.modules)} rows  MACs {macs:,} {'=' if macs == shown else '!='} {shown:,}",
        flush=True,
    )
    return abs(off) <= OFF and macs == shown


def command_seconds() -> float:
    """Wall time of the command that the issue names."""
    begin = time.perf_counter()
    words = [sys.executable, "-m", "archbench", "profile", "resnet50", "--batch-size", "1", "--device", "cpu"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--networks", default="resnet50,densenet121,vit_b_16")
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing for each network")
    arguments = parser.parse_args()
    held = [adds_up(name, arguments.batch_size, arguments.seconds) for name in arguments.networks.split(",")]
    seconds = command_seconds()
    print(f"archbench profile resnet50 --batch-size 1: {seconds:.1f} s of {COMMAND_S:g} s")
    return 0 if all(held) and seconds <= COMMAND_S else 1


if __name__ == "__main__":
    sys.exit(main())
