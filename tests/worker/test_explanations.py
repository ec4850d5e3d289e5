"""Why a process died, told from exit code, last words and the kernel's count of OOM kills."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.worker.child import LineReader
from archbench.worker.processes import explain, oom_kill_count

FAULT = b"""Fatal Python error: Segmentation fault

Thread 0x00007f4 (most recent call first):
  File "/lib/threading.py", line 1 in wait

Current thread 0x00007f3 (most recent call first):
  File "/net/block.py", line 42 in forward
  File "/net/model.py", line 7 in forward

Extension modules: numpy._core._multiarray_umath (total: 1)
"""


@pytest.mark.parametrize(
    ("exit_code", "output", "oom_kills", "status", "message"),
    [
        (-signal.SIGKILL, b"noise", 1, "oom", "killed by the kernel's out-of-memory killer"),
        (-signal.SIGKILL, b"noise", 0, "crashed", "killed by SIGKILL: noise"),
        (-signal.SIGSEGV, b"", 1, "crashed", "killed by SIGSEGV"),
        (-signal.SIGSEGV, FAULT, 0, "crashed", "killed by SIGSEGV: in forward (/net/block.py:42)"),
        (-signal.SIGABRT, b"terminate called after throwing\n  what():  std::bad_alloc\n", 0, "oom", "SIGABRT"),
        (1, b"Traceback:\n  line\nMemoryError\n", 0, "oom", "exited with code 1: Traceback: | line | MemoryError"),
        (3, b"a\nb\n\nc\nd\n", 0, "crashed", "exited with code 3: b | c | d"),
        (0, b"", 0, "crashed", "exited with code 0"),
        (-33, b"\xff", 0, "crashed", "killed by signal 33"),
        (1, b"x" * 10_000, 0, "crashed", "x..."),
    ],
)
def test_explanation(exit_code: int, output: bytes, oom_kills: int, status: str, message: str) -> None:
    said = explain(exit_code, output, oom_kills)
    assert said[0] == status
    assert message in said[1]
    assert len(said[1]) <= 500
    assert "\n" not in said[1]


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.events": "oom 7\noom_kill 3\n"}, 3),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/memory.events": "oom_kill 4\n"}, 4),
        (
            {
                "proc/self/cgroup": "5:cpu:/a\n4:memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.oom_control": "under_oom 0\noom_kill 5\n",
                "proc/vmstat": "oom_kill 9\n",
            },
            5,
        ),
        ({"proc/self/cgroup": "0::/\n", "proc/vmstat": "pgfault 1\noom_kill 6\n"}, 6),
        ({}, 0),
    ],
    ids=["v2", "v2-without-namespace", "v1", "whole-machine", "untold"],
)
def test_oom_kills_are_counted_where_the_kernel_keeps_them(tmp_path: Path, files: dict[str, str], count: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kill_count(tmp_path) == count


class Pipe:
    """Stands in for `os.read`: gives out the chunks that it holds, then the end."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    def read(self, fd: int, size: int) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


@given(st.binary(max_size=200), st.lists(st.integers(1, 200)))
def test_lines_survive_any_cutting(text: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    chunks = [text[a:b] for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("archbench.worker.child.os.read", Pipe(chunks).read)
        reader = LineReader(-1)
        lines = list(iter(reader.next_line, None))
    assert lines == text.split(b"\n")[:-1]  # what follows the last newline is no line
    assert reader.ended
