"""A module that another thread is importing is waited for, never used half-made."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from graftkit.host.imported import imported


@pytest.mark.parametrize("end", ["made = True", "raise ImportError('half of it')"])
def test_a_module_that_another_thread_imports_is_given_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_to_import.py").write_text(f"import time\ntime.sleep(0.3)\n{end}\n")
    assert imported("slow_to_import") is None

    def load() -> None:
        with suppress(ImportError):
            importlib.import_module("slow_to_import")

    thread = threading.Thread(target=load)
    thread.start()
    while "slow_to_import" not in sys.modules:
        time.sleep(0.001)
    found = imported("slow_to_import")
    thread.join()
    assert found is None if end.startswith("raise") else found is not None and found.made
    sys.modules.pop("slow_to_import", None)
