"""The tests that need a CUDA device, on a simulated one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_cuda.build import build

pytestmark = pytest.mark.fresh_children  # torch is told of the device before it is imported
TESTS = Path(__file__).parent.parent
MODULES = sorted(path.name for path in (TESTS / "gpu").glob("test_*.py"))


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    """Compiles the device once, before the tests that share it."""
    try:
        build()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("module", MODULES)
def test_what_needs_a_gpu_passes_on_the_simulated_one(module: str, tmp_path: Path) -> None:
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "pytest")]
    ended = subprocess.run(
        [sys.executable, "-m", "simulated_cuda", *options, str(TESTS / "gpu" / module)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    assert "passed" in ended.stdout and "skipped" not in ended.stdout
