"""Does the gate hold on a real machine, as noisy as it is? Real gates of three small networks on the CPU, one thread.

    python benchmarks/gate_here.py --out DIR [--only-part learn|aa|delay5|delay3|spread] [--count 10]

- `learn`: one `gate --aa`, so that noisy networks get thresholds of their own in the gates that follow.
- `aa`: both sides are the same; goal: no gate fails.
- `delay5`, `delay3`: the head's resnet18 takes 5 or 3 % longer, by spinning in its forward; goal at 5 %: found in
  every gate, and no other network blamed.
- `spread`: the standard deviation of a pair's log ratio for identical processes, in turns and one after the other.

A gate takes a minute and a half, and as much again where a network has to be confirmed. Every gate is a directory
under DIR, and every pair of `spread` a file there: what is there is not measured again, so a killed script continues,
and `--count 10` after `--count 2` plays eight more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from gate_networks import DELAY_VARIABLE

from archbench.device import collect_environment
from archbench.model.cell import Cell, Group, Network
from archbench.model.comparison import Frozen, ProcessPair
from archbench.model.messages import Task, TurnTask
from archbench.model.protocol import protocol_for
from archbench.model.record import RunContext
from archbench.worker.client import WorkerClient
from archbench.worker.turns import start_afresh, take_turns

DELAYED = "resnet18"
SIZES = {"resnet18": 96, "squeezenet": 96, "mobilenet": 96}
CONSTANTS = {"warmup_first_cell_s": 0.1, "warmup_cap_s": 1.0}
"""A shorter warm-up than usual, but the usual turns: with ten of 0.05 s a pair scattered by 4 % (blocks of five steps
do by 9 %), and 2 of 8 delays of 5 % were not flagged."""
DELAYS = {"aa": 0.0, "delay5": 0.05, "delay3": 0.03}
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


def write_suite(folder: Path) -> Path:
    networks = ", ".join(f'{{name: "gate_networks:{name}", input_size: {size}}}' for name, size in SIZES.items())
    constants = ", ".join(f"{name}: {value}" for name, value in CONSTANTS.items())
    path = folder / "gate_here.yaml"
    path.write_text(f"suite: gate_here\narchitectures: [{networks}]\nprotocol: {{{constants}}}\n")
    return path


def write_head(folder: Path, delay: float) -> Path:
    """An interpreter like this one, whose processes see the delay."""
    path = folder / f"python-{delay:g}"
    path.write_text(f'#!/bin/sh\n{DELAY_VARIABLE}={delay} exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path


def play_gates(folder: Path, part: str, count: int) -> None:
    suite, base, head = write_suite(folder), write_head(folder, 0.0), write_head(folder, DELAYS[part])
    failed = blamed = found = 0
    for number in range(count):
        out = folder / f"{part}-{number:02d}"
        began = time.monotonic()
        if not (out / "comparison.json").exists():
            words = ["gate", str(suite), "--base", str(base), "--head", str(head), "--allow-code", "--force"]
            done = subprocess.run(
                [sys.executable, "-m", "archbench", *words, "--device", "cpu", "--out", str(out), "--json"],
                env=ENVIRONMENT,
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if done.returncode not in (0, 1):
                sys.exit(f"{part} {number}: exit {done.returncode}: {done.stderr}")
        result = json.loads((out / "comparison.json").read_text())
        cells = {cell["architecture"].partition(":")[2]: cell for cell in result["cells"]}
        slower = {name for name, cell in cells.items() if cell["verdict"] == "slower"}
        failed += bool(slower or any(finding["fails"] for finding in result["findings"]))
        found += DELAYED in slower
        blamed += bool(slower - ({DELAYED} if DELAYS[part] else set()))
        told = ", ".join(
            f"{name} {cell['verdict']} {100 * (cell['ratio'] - 1):+.1f} % ({cell['pairs']} pairs, sees "
            f"{100 * cell['detectable']:.1f} %)"
            for name, cell in cells.items()
        )
        print(f"{part} {number + 1}/{count}: {told}; {time.monotonic() - began:.0f} s", flush=True)
    if DELAYS[part]:
        print(f"{part}: found in {found} of {count}, another network blamed in {blamed} of {count}")
    else:
        print(f"{part}: a regression in {failed} of {count}")


def learn(folder: Path) -> None:
    """One A/A gate, whose spreads land in DIR/results/noise, where the other gates look."""
    out = folder / "learn"
    if not (out / "comparison.json").exists():
        words = ["gate", str(write_suite(folder)), "--base", str(write_head(folder, 0.0)), "--aa", "--allow-code"]
        words += ["--force", "--device", "cpu", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "archbench", *words], env=ENVIRONMENT, cwd=folder, stdout=sys.stderr)
    for note in json.loads((out / "comparison.json").read_text())["notes"]:
        print(f"learn: {note}")


def play_spread(folder: Path, count: int) -> None:
    """For each network pairs in turns and pairs one after the other, in alternation."""
    environment = collect_environment("cpu")
    protocol = protocol_for("cpu", CONSTANTS)
    ratios: dict[tuple[str, bool], list[float]] = {}
    with WorkerClient(sys.executable, env=ENVIRONMENT) as base, WorkerClient(sys.executable, env=ENVIRONMENT) as head:
        for name, size in SIZES.items():
            cell = Cell(network=Network(name=f"gate_networks:{name}", input_size=size), batch_size=1)
            frozen: Frozen | None = None
            for number in range(count):
                for alternate in (False, True):
                    file = folder / f"spread-{name}-{'apart' if alternate else 'turns'}-{number:02d}.json"
                    if file.exists():
                        pair = msgspec.json.decode(file.read_bytes(), type=ProcessPair)
                    else:
                        context = RunContext(run_id="spread", round=number, environment=environment)
                        task = Task(
                            group=Group(cells=(cell,)), context=context, protocol=protocol, metrics=(), allow_code=True
                        )
                        start_afresh([base, head])
                        numbers = msgspec.structs.replace(frozen, alternate=alternate) if frozen else None
                        pair = take_turns(
                            [base, head],
                            [TurnTask(task=task)] * 2,
                            turns=protocol.turns,
                            block_s=protocol.turn_s,
                            rng=random.Random(f"{name}-{number}"),
                            frozen=numbers,
                        )
                        file.write_bytes(msgspec.json.encode(pair))
                    frozen = frozen or pair.frozen
                    ratio = pair.log_ratio()
                    if ratio is None:
                        sys.exit(f"{name}: {[row.error_message for row in pair.rows]}")
                    ratios.setdefault((name, alternate), []).append(ratio)
                print(f"spread {name} {number + 1}/{count}", file=sys.stderr, flush=True)
    print(f"sd of log(head / base), {count} pairs of identical processes:")
    print(f"{'':14} {'in turns':>9} {'one after the other':>20}")
    for name in SIZES:
        turns, apart = (statistics.stdev(ratios[name, alternate]) for alternate in (False, True))
        print(f"{name:14} {100 * turns:7.2f} % {100 * apart:18.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only-part", choices=["learn", *DELAYS, "spread"])
    parser.add_argument("--count", type=int, default=10)
    arguments = parser.parse_args()
    folder = arguments.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for part in [arguments.only_part] if arguments.only_part else ["learn", *DELAYS, "spread"]:
        if part == "learn":
            learn(folder)
        elif part == "spread":
            play_spread(folder, arguments.count)
        else:
            play_gates(folder, part, arguments.count)


if __name__ == "__main__":
    main()
