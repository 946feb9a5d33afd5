"""Tests that need a CUDA device: `make test-gpu`. Elsewhere they are skipped, and say so."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def cuda() -> torch.device:
    """The CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", 0)
