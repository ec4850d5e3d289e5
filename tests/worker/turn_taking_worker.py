"""A worker whose times are made up: what a step costs, and when the process fails, is in the network's options.

Times are virtual, so a pair takes milliseconds. `true_s` is a step's cost, `luck` the spread between processes,
`jitter` that between blocks; the machine itself gets slower by `ramp_per_s` since the moment `since`, for all alike.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time

from msgspec import structs
from worker_fakes import FACTS, make_environment

from archbench.model.messages import (
    Build,
    Built,
    CellFinished,
    CellStarted,
    Finish,
    PhaseStarted,
    Surveyed,
    TakeTurn,
    TurnTaken,
    TurnTask,
    Warmed,
    WarmUp,
)
from archbench.model.record import Status, empty_record
from archbench.worker.child import Receive, Send, Wire
from archbench.worker.host import serve


class Child:
    """One process of one cell."""

    def __init__(self, request: TurnTask, send: Send, receive: Receive) -> None:
        self.cell = request.cell
        self.request = request
        self.options = dict(request.cell.network.options)
        self.send = send
        self.receive = receive
        self.rng = random.Random(os.getpid())
        self.luck = self.rng.gauss(0, self.number("luck", 0))
        self.times: list[float] = []
        self.warmed = 0

    def number(self, option: str, default: float | None = None) -> float:
        given = self.options.get(option, default)
        assert isinstance(given, (int, float)), option
        return given

    def text(self, option: str) -> str | None:
        given = self.options.get(option)
        assert given is None or isinstance(given, str), option
        return given

    def row(self, status: Status = "ok", **columns: object) -> CellFinished:
        row = empty_record(self.cell, self.request.task.context, FACTS)
        middle = sorted(self.times)[len(self.times) // 2] if self.times else None
        counted = {"params": int(self.number("params", 1000)), "macs": 1} if self.request.survey else {}
        verdict = self.options.get("verdict", "ok") if status == "ok" else None
        reasons = ("throttled",) if verdict == "invalid" else ()
        known = {"latency_median_s": middle, "verdict": verdict, "reasons": reasons, **counted, **columns}
        return CellFinished(record=structs.replace(row, status=status, **known))

    def play(self) -> None:
        name = self.cell.cell_id
        self.send(CellStarted(cell_id=name, deadline_s=86_400.0))
        self.fail_at("start")
        surveyed = self.request.survey and "predicted" in self.options
        peak = int(self.number("predicted")) if surveyed else None
        self.send(Surveyed(cell_id=name, pid=os.getpid(), predicted_peak_bytes=peak))
        while not isinstance(word := self.receive(), Finish):
            self.answer(word)
        self.fail_at("finish")
        self.send(self.row())

    def answer(self, word: object) -> None:
        name = self.cell.cell_id
        match word:
            case Build():
                self.fail_at("build")
                self.send(Built(cell_id=name, origin=self.text("origin")))
            case WarmUp():
                self.send(PhaseStarted(cell_id=name, phase="warmup"))
                self.fail_at("warmup")
                self.warmed += int(self.number("needs", 5)) if word.steps is None else word.steps
                self.note(f"warm {word.steps} {len(word.rivals)}")
                self.send(Warmed(cell_id=name, steps=self.warmed, step_s=self.number("true_s"), level=True))
            case TakeTurn():
                self.send(PhaseStarted(cell_id=name, phase="turns"))
                self.fail_at(f"turn{len(self.times)}")
                self.take_turn(word.steps)

    def take_turn(self, steps: int) -> None:
        busy = self.text("busy")
        if busy:  # fails where somebody else is at it
            os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
            time.sleep(0.002)
        self.note(f"turn {steps}")
        slow = 1 + self.number("ramp_per_s", 0) * (time.monotonic() - self.number("since", 0))
        jitter = self.rng.gauss(0, self.number("jitter", 0))
        name, _, factor = os.environ.get("ARCHBENCH_TEST_SLOWDOWN", "").partition(":")  # of one side alone
        if name == self.cell.network.name:
            slow *= float(factor)
        seconds = self.number("true_s") * (1 + self.luck) * (1 + jitter) * slow
        self.times.append(seconds)
        if busy:
            os.unlink(busy)
        kept = len(self.times) > self.number("rejects", 0)
        self.send(TurnTaken(cell_id=self.cell.cell_id, steps=steps, seconds=seconds, kept=kept))

    def note(self, line: str) -> None:
        if log := self.text("log"):
            with open(log, "a") as file:
                file.write(f"{self.cell.network.name} {line}\n")

    def fail_at(self, moment: str) -> None:
        """Do what the options say for this moment, unless it has been done as often as they say."""
        act = self.options.get(moment)
        once = self.text("once")
        if act is None or (once and os.path.exists(once)):
            return
        if once:
            open(once, "w").close()
        match act:
            case "die":
                print("my last words", flush=True)
                os._exit(7)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill-host":
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(600)
            case "hang":
                time.sleep(600)
            case "oom" | "error" | "unsupported":
                self.send(self.row(act, error_message=f"{act} at {moment}", error_phase=moment))
                os._exit(0)
            case "babble":
                self.send(Built(cell_id=self.cell.cell_id, origin="babble"))
                time.sleep(600)
            case "oom-beside":  # only where another one lives on the device: as its file says
                beside = str(self.options["beside"])
                if os.path.exists(beside):
                    self.send(self.row("oom", error_message="out of memory"))
                    os._exit(0)


def measure(request: object, send: Send, receive: Receive) -> None:
    assert isinstance(request, TurnTask)
    Child(request, send, receive).play()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = make_environment(arguments.device)
    if "ARCHBENCH_TEST_CLASS" in os.environ:
        environment = structs.replace(environment, hardware_class=os.environ["ARCHBENCH_TEST_CLASS"])
    environment = structs.replace(environment, node=os.environ.get("ARCHBENCH_TEST_NODE", "here"))
    serve(Wire(), measure, environment=environment)


main()
