"""What holds for every test. Helpers of a test folder are imported by their bare name."""

from __future__ import annotations

import functools
import gc
import multiprocessing.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main
import warm_start

# Tests share their cores with each other: what refuses a machine that is taken is tested where it is tested.
os.environ["ARCHBENCH_FORCE"] = "1"
# What is kept between processes is kept between those of one call of pytest.
if "XDG_CACHE_HOME" not in os.environ:
    kept = tempfile.TemporaryDirectory(prefix="archbench-tests-")
    os.environ["XDG_CACHE_HOME"] = kept.name
# Two threads each beside another process wait for each other a hundred times longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes import the package, and each would compile what it imports anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# The parser of all commands takes 20 ms to make, and `main` makes it each time that a test calls it.
typer.main.get_command = functools.cache(typer.main.get_command)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`-n 2` gives each process a half in the order of the files, so that it makes what a module shares but once.

    Who has finished takes over a part of what is left. Not by `addopts`: pytest-benchmark would take it for `-n`.
    """
    if config.getoption("numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_collection() -> None:
    """Nothing that is imported or collected is garbage: to look through it again and again takes seconds."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is imported stays: without this each look for garbage, before every experiment, walks all of torch."""
    gc.collect()
    gc.freeze()
    gc.enable()
    warm_start.environment.update(os.environ)  # which imports have added to


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What measures starts with torch in it, but for tests that are slow anyway, or about just that."""
    from archbench.analyze import fresh
    from archbench.worker import client

    cold = "ARCHBENCH_COLD" in os.environ or any(map(item.get_closest_marker, ("cold", "slow", "gpu")))
    for module in (client, fresh):
        module.subprocess = subprocess if cold else warm_start  # type: ignore[attr-defined]
    multiprocessing.util.spawnv_passfds = warm_start._spawn if cold else warm_start.spawn


def pytest_unconfigure() -> None:
    warm_start.end()


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Whatever measures in the test's own process has tiny numbers flushed to zero: not beyond the test."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, run in this process from `tmp_path`: for what ends at once, where a process takes a second.

    What it and its children write counts as written by a process of its own.
    """
    from archbench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    # A directory of its own for the device's lock: tests that run beside this one need not wait for each other.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), said.out, said.err)

    return run
