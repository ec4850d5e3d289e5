"""The simulation scripts as modules, and the noise that several tests draw."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray


def script(name: str) -> ModuleType:
    """Load `benchmarks/NAME.py`, so that a test runs a small share of what the script prints."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def autocorrelated(count: int, rng: np.random.Generator, rho: float = 0.5) -> NDArray[np.float64]:
    """An AR(1) process with unit variance."""
    values = rng.normal(size=count)
    values[1:] *= np.sqrt(1 - rho**2)
    for index in range(1, count):
        values[index] += rho * values[index - 1]
    return values
