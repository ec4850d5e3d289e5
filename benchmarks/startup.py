"""How soon the command line answers, and a run's first figure comes: medians of whole processes.

    python benchmarks/startup.py [--runs 5]

Goals: --help within 0.3 s; list, show and plan within 0.8 s; the first figure of two networks within 4 s of Enter, and
what of that a worker's imports take, each with what goes before it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

COMMANDS = (
    (("--help",), 0.3),
    (("list",), 0.8),
    (("show", "densenet121"), 0.8),
    (("plan", "suites/imagenet_backbones.yaml", "--device", "cuda"), 0.8),
)
IMPORTS = {
    "import of torch": "from archbench.worker.preload import import_torch; import_torch()",
    "... and of what measures": "import archbench.measure",
    "... and of torchvision": "from archbench.worker.preload import _import_once; _import_once('torchvision')",
}
NETWORKS = ("resnet50", "densenet121")


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_figure() -> tuple[float, float, float]:
    """Seconds until the first figure, the first row, and the end of `archbench run` where nothing is stored."""
    seen: list[float] = []
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen(
            [sys.executable, "-m", "archbench", "run", *NETWORKS, "--device", "cpu"],
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith("being measured\n") or line.startswith("["):
                seen.append(time.perf_counter() - start)
    return seen[0], seen[1], time.perf_counter() - start


def show(what: str, times: list[float], goal: float | None = None) -> None:
    print(f"{what:54}{median(times):10.2f}{min(times):10.2f}{'-' if goal is None else format(goal, '.1f'):>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = range(parser.parse_args().runs)

    def repeated(work: Callable[[], float]) -> list[float]:
        return [work() for _ in runs]

    print(f"{'':54}{'median s':>10}{'least s':>10}{'goal s':>8}")
    for words, goal in COMMANDS:
        command = [sys.executable, "-m", "archbench", *words]
        show(" ".join(words), repeated(lambda command=command: seconds(command)), goal)  # type: ignore[misc]
    done = ""
    for what, code in IMPORTS.items():
        done = f"{done}\n{code}"
        command = [sys.executable, "-P", "-c", done]
        show(what, repeated(lambda command=command: seconds(command)))  # type: ignore[misc]
    figure, row, end = zip(*(first_figure() for _ in runs), strict=True)
    show(f"run {' '.join(NETWORKS)}: first figure", list(figure), 4.0)
    show("... first row", list(row))
    show("... report", list(end))


if __name__ == "__main__":
    main()
