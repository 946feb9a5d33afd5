"""A module that another thread is importing is waited for, never used half-made."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest
from graftkit.host.imported import imported


def test_a_module_that_another_thread_imports_is_given_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\nmade = True\n")
    assert imported("slow_to_import") is None
    thread = threading.Thread(target=importlib.import_module, args=("slow_to_import",))
    thread.start()
    while "slow_to_import" not in sys.modules:
        time.sleep(0.001)
    found = imported("slow_to_import")
    thread.join()
    assert found is not None and found.made
    del sys.modules["slow_to_import"]
