"""What stands around the first import of bitsandbytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from graftkit.interfaces.quiet import importing_bitsandbytes

_RECORDS = "import pathlib\n\n\ndef get_kernel(*names, **options):\n    pathlib.Path({!r}).touch()\n"


def test_no_code_is_fetched_for_bitsandbytes(tmp_path: Path) -> None:
    """On processors with bfloat16 it had `kernels` fetch compiled code from the hub, also with --offline."""
    fetched = tmp_path / "fetched"
    (tmp_path / "kernels.py").write_text(_RECORDS.format(str(fetched)))
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-P", "-c", "import graftkit_quantizers.backend"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    assert not fetched.exists()


def test_the_package_is_as_it_was_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    for _ in range(2):  # unknown before, then known
        with importing_bitsandbytes(), pytest.raises(ImportError):
            import kernels
        import kernels

        assert kernels.__file__ == str(tmp_path / "kernels.py")


def test_two_threads_may_stand_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that leaves last finds the package as it was, or put back already."""
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    first, second = importing_bitsandbytes(), importing_bitsandbytes()
    for each in (first, second):
        each.__enter__()
    for each in (first, second):
        each.__exit__(None, None, None)
    assert "kernels" not in sys.modules
