"""What a process beside a measurement does to it: why nothing is rendered or built while something is timed.

    python benchmarks/beside.py RUN [--rounds 3]

ResNet-18's step on all cores: alone, beside a report of the stored RUN being rendered, beside networks being built, and
beside a process with torch that sleeps on its pipe, as those of a wave do. Prints medians, ms, and ratios to alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LOOP = """
import time, torch, torchvision
from statistics import median
model, image, seconds = torchvision.models.resnet18().eval(), torch.randn(1, 3, 224, 224), []
with torch.inference_mode():
    for _ in range(20):
        model(image)
    end = time.perf_counter() + 4
    while time.perf_counter() < end:
        start = time.perf_counter()
        model(image)
        seconds.append(time.perf_counter() - start)
print(median(seconds) * 1e3)
"""
RENDERING = """
import sys, pathlib
from archbench.rendering.report import write_reports
while True:
    write_reports(pathlib.Path(sys.argv[1]))
"""
BUILDING = "import torchvision\nwhile True: torchvision.models.densenet121()"
SLEEPING = "import sys, torch; sys.stdin.read()"
GETTING_GOING_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    beside = {"alone": "", "rendering": RENDERING, "building": BUILDING, "sleeping on a pipe": SLEEPING}
    found: dict[str, list[float]] = {what: [] for what in beside}
    with tempfile.TemporaryDirectory() as folder:
        run = shutil.copytree(arguments.run, Path(folder) / "run")
        for _ in range(arguments.rounds):
            for what, code in beside.items():
                words = [sys.executable, "-c", code, str(run)]
                neighbour = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) if code else None
                time.sleep(GETTING_GOING_S if neighbour else 0.0)
                done = subprocess.run([sys.executable, "-c", LOOP], check=True, stdout=subprocess.PIPE)
                found[what].append(float(done.stdout))
                if neighbour:
                    neighbour.kill()
                    neighbour.wait()
    for what, times in found.items():
        print(f"{what:20}{median(times):8.1f} ms {median(times) / median(found['alone']):6.2f}")


if __name__ == "__main__":
    main()
