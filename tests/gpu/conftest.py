"""These tests are collected everywhere and run where there is a GPU."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def device():
    return torch.device("cuda:0")
