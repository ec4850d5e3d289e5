"""What `session.sh` does: step after step until its time is up, and at any moment all results in a folder.

A step has its expected seconds beside it, together 600 less `SLACK_S`. Each gets the share of what is left that it has
of the steps still to come: one that takes longer shrinks the others, one that is quick leaves them more. It is
interrupted at its limit, so that what is finished is kept, and killed if that does not help. After every step FOLDER is
written anew, so that a caller who kills without warning loses one step at most. Needs nothing but Python and torch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SLACK_S = 80.0
"""For a machine slower to stop than thought, and for whoever fetches the files."""
GRACE_S = 15.0
"""From the interrupt to the kill: a run merges its rows and writes its report."""
LEAST_S = 0.5
"""A step with less than this is left out."""
MOST_BYTES = 16 * 2**20
LOG_BYTES = 2**20
"""Of a file of words the end is kept."""
TIME_IS_UP = "time is up"


@dataclass(frozen=True)
class Step:
    """One command. `{seconds}` in it becomes its limit, `{work}` the folder of which all is packed."""

    name: str
    expected_s: float
    command: str
    accepted: tuple[int, ...] = ()
    """Exit codes besides 0 that are no failure."""
    may_be_cut: bool = False
    """What it finished before its limit is of use by itself."""


REFERENCE = "-m archbench run suites/gpu_reference.yaml --device cuda --out {work}/reference --force"
STEPS = (
    Step("install", 8, "-m pip install --quiet --no-index --no-deps --target {target} {wheels}"),
    Step("doctor", 7, "-m archbench doctor --device cuda", accepted=(3,)),
    Step("facts", 55, "tests/gpu/facts.py {work}/facts.json {seconds}", may_be_cut=True),
    Step("eager", 135, f"{REFERENCE} --only *@compile_mode=off", accepted=(130,), may_be_cut=True),
    Step("compiled", 85, REFERENCE, accepted=(130,), may_be_cut=True),
    Step("bare_loop", 40, "benchmarks/bare_loop.py --device cuda --turns 6 --seconds 0.1", may_be_cut=True),
    Step("tests", 85, "-m pytest -q -m gpu -p no:cacheprovider tests/gpu"),
    Step("parallel_compile", 45, "tests/gpu/parallel_compile.py {seconds}", may_be_cut=True),
    Step(
        "gate",
        60,
        "-m archbench gate suites/gpu_reference.yaml --device cuda --aa --base {python} --max-time {seconds}s "
        "--only resnet50@batch_size=32,precision=fp32,compile_mode=off --out {work}/gate --force",
    ),
)
"""520 s: what can be learnt nowhere else comes first, what takes the longest to believe its answer last."""


class StopError(Exception):
    """The caller wants it ended."""


class Session:
    """The steps' results, and the folder in which they lie."""

    def __init__(self, folder: Path, seconds: float, python: str, wheels: Path) -> None:
        self._folder = folder
        self._python = python
        self._wheels = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
        self._work = Path(tempfile.mkdtemp(prefix="gpu-session-"))
        self._target = Path(tempfile.mkdtemp(prefix="gpu-session-packages-"))
        self._due = time.monotonic() + seconds - SLACK_S
        self._head = ""
        self._rows: list[str] = []
        self._dropped: list[str] = []
        self._running: subprocess.Popen[bytes] | None = None
        self.failed = False
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Do all steps. Raises `StopError` where the caller sends a signal."""
        steps = [step for step in STEPS if step.name != "install" or self._wheels]
        self._head = self._card()
        for number, step in enumerate(steps):
            left_s = self._due - time.monotonic()
            share = step.expected_s / sum(later.expected_s for later in steps[number:])
            limit_s = left_s * share
            if limit_s < LEAST_S:
                self._note(step, "left out", 0.0, TIME_IS_UP)
                continue
            self._do(step, limit_s)
            self.pack()

    def _do(self, step: Step, limit_s: float) -> None:
        print(f"== {step.name} (expected {step.expected_s:g} s, at most {limit_s:.0f} s)", flush=True)
        log = self._work / f"{step.name}.txt"
        began = time.monotonic()
        with open(log, "wb") as words:
            process = subprocess.Popen(
                self._command(step, limit_s), cwd=ROOT, env=self._environment(), stdout=words, stderr=words,
                start_new_session=True,
            )  # fmt: skip
            self._running = process
            try:
                process.wait(limit_s)
                cut = False
            except subprocess.TimeoutExpired:
                cut = True
                self._end(process)
        self._running = None
        took_s = time.monotonic() - began
        code = process.returncode
        if cut:
            result = "cut short" if step.may_be_cut else f"failed ({TIME_IS_UP})"
        else:
            result = "passed" if code == 0 else f"{'passed' if code in step.accepted else 'failed'} ({code})"
        self.failed |= result.startswith("failed")
        self._note(step, result, took_s, _last_line(log))

    def _command(self, step: Step, limit_s: float) -> list[str]:
        """The words; a gate hears of a limit that leaves it time to conclude."""
        given = {"seconds": max(1, int(0.8 * limit_s)), "work": self._work, "target": self._target}
        command = [self._python]
        for word in step.command.split():
            if word == "{wheels}":
                command += map(str, self._wheels)
            else:
                command.append(word.format(**given, python=self._python))
        return command

    def _environment(self) -> dict[str, str]:
        paths = [str(ROOT), str(self._target), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}

    def _end(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
        """Interrupt what was started, and kill it where that does not end it."""
        for number, patience_s in ((signal.SIGINT, grace_s), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            try:
                process.wait(patience_s)
                return
            except subprocess.TimeoutExpired:
                continue

    def _note(self, step: Step, result: str, took_s: float, ending: str) -> None:
        print(f"   {result}, {took_s:.1f} s: {ending}", flush=True)
        cells = (step.name, result, f"{step.expected_s:g}", f"{took_s:.0f}", ending.replace("|", "/"))
        self._rows.append(f"| {' | '.join(cells)} |")

    def _card(self) -> str:
        """The card's name, from torch. Raises `SystemExit` (3) where there is none."""
        code = "import torch; print(torch.cuda.get_device_name(), 'torch', torch.__version__)"
        try:
            done = subprocess.run([self._python, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        except (OSError, subprocess.SubprocessError):
            print(
                f"session.sh: {self._python} sees no CUDA device (or has no torch); "
                "run this on a machine with a GPU, or set PYTHON",
                file=sys.stderr,
            )
            raise SystemExit(3) from None
        return done.stdout.strip().splitlines()[-1]

    def stop(self, reason: str) -> None:
        """End the running step at once; its results up to here are packed."""
        if self._running is not None:
            self._end(self._running, grace_s=5.0)
            self._running = None
        self._rows.append(f"| (ended) | {reason} | | | |")
        self.failed = True

    def pack(self) -> None:
        """Write the folder's three files, each put in place whole."""
        self._place("session.log", self._log())
        self._archive()
        table = "| Step | Result | Expected s | Took s | It ends |\n| --- | --- | --: | --: | --- |\n"
        facts = self._facts()
        dropped = f"\nLeft out of the archive for its size: {', '.join(self._dropped)}\n" if self._dropped else ""
        text = f"# GPU session\n\n{self._head}\n\n{table}" + "\n".join(self._rows) + f"\n{dropped}{facts}"
        self._place("summary.md", text.encode())

    def clear(self) -> None:
        """Remove what lies outside the folder."""
        for folder in (self._work, self._target):
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, name: str, content: bytes) -> None:
        part = self._work.parent / f"{self._work.name}.{name}"  # FOLDER never holds a fourth file
        part.write_bytes(content)
        shutil.copyfile(part, self._folder / name)
        part.unlink()

    def _log(self) -> bytes:
        parts = [f"== {log.stem}\n".encode() + _end_of(log) for log in sorted(self._work.glob("*.txt"), key=_made)]
        return b"\n".join(parts)

    def _archive(self) -> None:
        """Pack the work folder; where that is too large, without its largest files."""
        files = sorted((path for path in self._work.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        files = [path for path in files if path.suffix != ".lock"]
        while True:
            packed = self._work.parent / f"{self._work.name}.tar.gz"
            with tarfile.open(packed, "w:gz") as archive:
                for path in files:
                    archive.add(path, path.relative_to(self._work))
            if packed.stat().st_size <= MOST_BYTES or not files:
                break
            self._dropped.append(str(files.pop().relative_to(self._work)))
        shutil.copyfile(packed, self._folder / "session.tar.gz")
        packed.unlink()

    def _facts(self) -> str:
        try:
            facts = json.loads((self._work / "facts.json").read_text())
        except (OSError, ValueError):
            return ""
        return "\n## Facts\n\n" + "".join(f"- {name}: {json.dumps(fact)}\n" for name, fact in facts.items())


def _made(path: Path) -> float:
    return path.stat().st_mtime


def _end_of(path: Path) -> bytes:
    content = path.read_bytes()
    return content if len(content) <= LOG_BYTES else b"(...)\n" + content[-LOG_BYTES:]


def _last_line(log: Path) -> str:
    lines = [line for line in _end_of(log).decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "(it said nothing)"


def _stop(number: int, frame: FrameType | None) -> None:
    raise StopError(signal.Signals(number).name)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float, nargs="?", default=600.0)
    parser.add_argument("--wheels", type=Path, default=HERE / "wheels")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the steps")
    given = parser.parse_args(words)
    if given.seconds <= SLACK_S:
        parser.error(f"SECONDS: {SLACK_S:g} of them are kept as slack; give more")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    session = Session(given.folder.absolute(), given.seconds, given.python, given.wheels)
    try:
        session.run()
    except StopError as stopped:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        session.stop(str(stopped))
    except SystemExit:
        session.clear()
        shutil.rmtree(given.folder, ignore_errors=not any(given.folder.iterdir()))
        raise
    session.pack()
    print((given.folder / "summary.md").read_text())
    session.clear()
    return int(session.failed)


if __name__ == "__main__":
    sys.exit(main())
