"""Run as a process by the tests: appends rows to a run for ever and prints each number once `append` has returned.

usage: appender.py RUN [file size limit in bytes]
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import msgspec
from builders import make_record, make_samples

from archbench.results import RunStore

store = RunStore.open(Path(sys.argv[1]))
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
blank = make_record()
samples = make_samples(blank, count=40)
for number in range(1_000_000):
    row = msgspec.structs.replace(blank, round=number)
    store.append(row, [msgspec.structs.replace(sample, round=number) for sample in samples])
    print(number, flush=True)
    if number % 7 == 6:
        store.merge()
