from __future__ import annotations

import subprocess
import sys


def test_measuring_needs_neither_scipy_nor_torch() -> None:
    """The worker and the parent's planning half import `archbench.stats`; scipy alone takes half a second."""
    code = (
        "import sys, archbench.stats.paired, archbench.stats.twostage, archbench.stats.changepoint\n"
        "import archbench.stats.sampling\n"
        "archbench.stats.sampling.drifting([1.0] * 20)\n"
        "print(sorted({'scipy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
