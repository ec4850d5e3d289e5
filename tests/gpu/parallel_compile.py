"""Do compilations side by side take less time than one after the other? Each is a process with a cache of its own.

    python tests/gpu/parallel_compile.py [SECONDS]

Prints the wall time of 1, 4 and 8 at once, and how many times one's time that is; stops where the next would not fit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

COMPILES = """
import sys, time
import torch, torchvision
model = torchvision.models.resnet18(weights=None).cuda().eval()
image = torch.randn(int(sys.argv[1]), 3, 224, 224, device="cuda")
with torch.inference_mode():
    begun = time.perf_counter()
    torch.compile(model, dynamic=False)(image)
    torch.cuda.synchronize()
    print(time.perf_counter() - begun)
"""


def compile_at_once(count: int) -> float:
    """Wall seconds of so many processes, each of which compiles ResNet-18. Raises where one of them fails."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        started = [
            subprocess.Popen(
                [sys.executable, "-c", COMPILES, "1"],
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/{number}"},
                stdout=subprocess.DEVNULL,
            )
            for number in range(count)
        ]
        codes = [process.wait() for process in started]
        took = time.perf_counter() - begun
    if any(codes):
        raise SystemExit(f"{sum(map(bool, codes))} of {count} compilations failed")
    return took


def main() -> None:
    until = time.perf_counter() + (float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    print(f"{os.cpu_count()} cores")
    one = last = compile_at_once(1)
    print(f"1 at once: {one:.1f} s", flush=True)
    for count in (4, 8):
        if time.perf_counter() + 2 * last > until:
            print(f"{count} at once: no time left")
            break
        last = compile_at_once(count)
        print(f"{count} at once: {last:.1f} s; one after the other {count * one:.1f} s: {count * one / last:.1f} x")


if __name__ == "__main__":
    main()
