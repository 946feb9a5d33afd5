"""Runs pytest on the simulated device, with the arguments of pytest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from simulated_cuda.build import build

HERE = Path(__file__).parent

os.environ["SIMULATED_CUDA"] = str(build())
paths = [str(HERE / "site"), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # so that child processes have the device, too
sys.exit(pytest.main(["-p", "simulated_cuda.start", *sys.argv[1:]]))
